"""LayerNormalization, of which TensorFlow exports a dozen operators.

With `g = scale / √(variance + ε)`, tf.nn.moments and tf.nn.batch_normalization over the last axis make
`x·g + (offset - mean·g)`, and Keras 3 `x·g + (-mean·g + offset)`; either may lack scale or offset. People also write
`(x - mean) / √(variance + ε) · scale + offset`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from converter.graph.algebra import Term, computed_from, term_of, terms_of
from converter.graph.edit import Rewrite, Variables, add_constant, bypass, insert, nodes_of, producer, scalar
from converter.graph.facts import Facts, constant_elements
from converter.graph.unused import remove_unused


@dataclass(frozen=True, slots=True)
class _Moments:
    """A tensor with its mean over the last axis, what deviates from it, and the root of its variance plus epsilon."""

    x: ir.Value
    mean: ir.Value
    deviation: ir.Value
    root: ir.Value
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Affine:
    """A normalised tensor times a scale plus an offset, each None where there is none."""

    output: ir.Value
    scale: ir.Value | None
    offset: ir.Value | None


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    done = 0
    for node in nodes_of(model, "ReduceMean"):
        for moments in _moments(facts, node):
            found = [a for value in _after(moments) if (a := _affine(facts, moments, value)) is not None]
            if found:
                done += _replace(model, facts, moments, found[-1])  # the last has most of it
    if done:
        remove_unused(model, variables)
        _flatten_parameters(model)
    return done


def _moments(facts: Facts, node: ir.Node) -> Iterator[_Moments]:
    """What is normalised, if a ReduceMean is the variance of it."""
    square = node.inputs[0]
    if square is None or not _over_last_axis(facts, node):
        return
    # term_of sees through Mul and Pow; the deviation is what it finds squared.
    term = term_of(square, depth=1)
    deviation = next(iter(term.powers), None)
    difference = producer(deviation, "Sub")
    if deviation is None or not term.holds({deviation: 2}) or term.number != 1 or difference is None:
        return
    x, mean = difference.inputs
    average = producer(mean, "ReduceMean")
    if (
        x is None
        or mean is None
        or average is None
        or average.inputs[0] is not x
        or not _over_last_axis(facts, average)
    ):
        return
    for total in computed_from(node.outputs[0], "Add", depth=1):
        numbers = [scalar(value) for value in total.producer().inputs]  # type: ignore[union-attr] # an Add made it
        epsilon = next((number for number in numbers if number is not None), None)
        if epsilon is not None and epsilon > 0:
            for root in computed_from(total, "Sqrt", depth=1):
                yield _Moments(x, mean, deviation, root, epsilon)


def _over_last_axis(facts: Facts, node: ir.Node) -> bool:
    axes = constant_elements(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = facts.rank(node.inputs[0])
    keeps = node.attributes.get_int("keepdims", 1) == 1
    return keeps and rank is not None and axes is not None and len(axes) == 1 and axes[0] in {-1, rank - 1}


def _after(moments: _Moments) -> Iterator[ir.Value]:
    yield from computed_from(moments.root, "Reciprocal", "Mul", "Div", "Add", "Sub", "Neg")


def _affine(facts: Facts, moments: _Moments, value: ir.Value) -> _Affine | None:
    """Read a value as scale · (x - mean) / root + offset."""
    atoms = (moments.x, moments.mean, moments.deviation, moments.root)
    minuend, subtrahend, whole, offsets = list[Term](), list[Term](), list[Term](), list[Term]()
    for term in terms_of(value, atoms):
        parts = {moments.x: minuend, moments.mean: subtrahend, moments.deviation: whole}
        held = [part for atom, part in parts.items() if term.powers[atom] == 1]
        if term.powers[moments.root] == -1 and len(held) == 1:
            held[0].append(term)
        else:
            offsets.append(term)
    if len(whole) == 1 and not minuend and not subtrahend:
        scale = _scale(whole[0], atoms, 1.0)
    elif len(minuend) == len(subtrahend) == 1 and not whole:
        scale = _scale(minuend[0], atoms, 1.0)
        if scale is None or scale != _scale(subtrahend[0], atoms, -1.0):
            return None
    else:
        return None
    offset = _offset(offsets)
    if scale is None or offset is None or not all(_is_parameter(facts, moments.x, p) for p in (*scale, *offset)):
        return None
    return _Affine(value, next(iter(scale), None), next(iter(offset), None))


def _scale(term: Term, atoms: tuple[ir.Value, ...], number: float) -> tuple[ir.Value, ...] | None:
    """What else a term holds: at most one value."""
    others = {value: power for value, power in term.powers.items() if value not in atoms and power}
    if not math.isclose(term.number, number) or len(others) > 1 or any(power != 1 for power in others.values()):
        return None
    return tuple(others)


def _offset(terms: list[Term]) -> tuple[ir.Value, ...] | None:
    """What is added: at most one value, as it is."""
    if not terms:
        return ()
    value = next(iter(terms[0].powers), None)
    if len(terms) > 1 or value is None or terms[0].number != 1 or not terms[0].holds({value: 1}):
        return None
    return (value,)


def _is_parameter(facts: Facts, x: ir.Value, value: ir.Value) -> bool:
    """Whether a value is a constant with an element for each of the last axis."""
    shape, whole = facts.shapes.get(value), facts.shapes.get(x)
    if (
        not shape
        or not whole
        or value.const_value is None
        or value.is_graph_input()
        or facts.types.get(value) != _DTYPE
    ):
        return False
    return isinstance(whole[-1], int) and shape[-1] == whole[-1] and all(size == 1 for size in shape[:-1])


_DTYPE: Final = ir.DataType.FLOAT  # of others ONNX Runtime has no kernel, or one that computes otherwise


def _replace(model: ir.Model, facts: Facts, moments: _Moments, affine: _Affine) -> bool:
    before = affine.output.producer()
    width = facts.shapes[moments.x][-1]
    if before is None or facts.types.get(moments.x) != _DTYPE or not isinstance(width, int):
        return False
    scale = affine.scale or add_constant(model, "layer_norm/ones", np.ones(width, np.float32))
    inputs = [moments.x, scale, *([] if affine.offset is None else [affine.offset])]
    name = f"{before.name}/layer_norm"
    return bypass(affine.output, insert(before, "LayerNormalization", inputs, name, axis=-1, epsilon=moments.epsilon))


def _flatten_parameters(model: ir.Model) -> None:
    """Give scales and offsets one dimension: Keras writes them as [1, 1, n], which PyTorch does not take."""
    for node in nodes_of(model, "LayerNormalization"):
        for value in node.inputs[1:]:
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or len(tensor.shape) < 2:
                continue
            if all(use.node.op_type == "LayerNormalization" and use.idx > 0 for use in value.uses()):
                value.const_value = ir.tensor(tensor.numpy().reshape(-1), name=value.name)
                value.shape = ir.Shape([tensor.size])


REWRITE: Final = Rewrite("layer-norm", "layer normalisation is one operator", _apply)
