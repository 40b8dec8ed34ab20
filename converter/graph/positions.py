"""Only the positions that are read are computed: a head that reads one token of a sequence needs no others before it.

A transformer's last layer computes every token, and a classifier slices one off. All of that layer but keys and values
treats each token by itself, so the slice may come first: of ViT-Base's matrix products, one fourteenth goes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, add_constant, bypass, insert, integers, nodes_of
from converter.graph.facts import TO_THE_END, Facts, constant_elements
from converter.graph.unused import merge_constants, remove_unused

_WORTH: Final = frozenset({"MatMul", "Attention"})  # what costs so much that less of it is worth a slice more
_BROADCASTING: Final = ("Add", "Clip", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Where")
_UNARY: Final = ("Cast", "Elu", "Erf", "Exp", "Gelu", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh")

# The inputs of a node, with the axis of each, of which only the positions are needed that are needed of its output.
_Narrowed = dict[int, int]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A Slice that shortens one axis, by steps of one, and takes every other axis whole."""

    node: ir.Node
    of: ir.Value
    start: int
    end: int
    axis: int


@dataclass(slots=True)
class _Move:
    """How far a slice may move: what is narrowed, along which axis, and who reads it narrowed."""

    axes: dict[ir.Value, int]
    readers: set[tuple[ir.Node, int]]
    passed: list[ir.Node] = field(default_factory=list)


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    for node in nodes_of(model, "Slice"):
        cut = _cut(facts, node)
        move = None if cut is None else _follow(model, facts, cut)
        if cut is not None and move is not None and any(one.op_type in _WORTH for one in move.passed):
            _rebuild(model, cut, move)
            remove_unused(model, variables)
            merge_constants(model, variables)
            return 1  # what was known of shapes no longer holds: another slice waits for the next round
    return 0


def _cut(facts: Facts, node: ir.Node) -> _Cut | None:
    of, *bounds = node.inputs
    known = [constant_elements(value) for value in bounds if value is not None]
    rank = facts.rank(of)
    if of is None or rank is None or len(known) not in {3, 4} or any(one is None for one in known):
        return None
    starts, ends, axes, *steps = [one or () for one in known]
    cuts = [
        _Cut(node, of, start, end, axis % rank)
        for start, end, axis in zip(starts, ends, axes, strict=True)
        if start != 0 or end < TO_THE_END
    ]
    return cuts[0] if len(cuts) == 1 and all({1}.issuperset(one) for one in steps) else None


def _follow(model: ir.Model, facts: Facts, cut: _Cut) -> _Move:
    """Go up from a Slice through everything that is read by nobody else, and treats the positions one by one."""
    move = _Move({cut.of: cut.axis}, {(cut.node, 0)})
    for node in reversed(list(model.graph)):
        output = node.outputs[0]
        if output not in move.axes or output.is_graph_output() or any(other.uses() for other in node.outputs[1:]):
            continue
        if any((use.node, use.idx) not in move.readers for use in output.uses()):
            continue
        through = None if node.domain else _THROUGH.get(node.op_type)
        needed = (through(facts, node, move.axes[output]) if through else None) or {}
        axes = {value: axis for index, axis in needed.items() if (value := node.inputs[index]) is not None}
        if axes and all(move.axes.get(value, axis) == axis for value, axis in axes.items()):
            move.axes.update(axes)
            move.readers.update((node, index) for index in needed)
            move.passed.append(node)
    return move


def _rebuild(model: ir.Model, cut: _Cut, move: _Move) -> None:
    """Slice where the move ended, and read that in place of what the Slice gave."""
    order = {node: number for number, node in enumerate(model.graph)}
    for value, axis in move.axes.items():
        if value.producer() in move.passed:
            value.shape = None  # what was written there is the shape before
            continue
        readers = [use for use in value.uses() if (use.node, use.idx) in move.readers]
        first = min((use.node for use in readers), key=order.__getitem__)
        bounds = (("starts", cut.start), ("ends", cut.end), ("axes", axis))
        given = [add_constant(model, f"{cut.node.name}/{name}", integers(number)) for name, number in bounds]
        narrow = insert(first, "Slice", [value, *given], f"{cut.node.name}/{value.name}")
        for use in readers:
            use.node.replace_input_with(use.idx, narrow)
    bypass(cut.node.outputs[0], cut.of)


def _each(facts: Facts, node: ir.Node, axis: int) -> _Narrowed | None:
    """Operators that compute an element of the elements at its place, with broadcasting."""
    shape = facts.shapes.get(node.outputs[0])
    needed: _Narrowed = {}
    for index, value in enumerate(node.inputs):
        of_input = None if value is None else facts.shapes.get(value)
        if value is None:
            continue
        if shape is None or of_input is None:
            return None
        place = axis - len(shape) + len(of_input)
        if place >= 0 and of_input[place] != 1:
            if of_input[place] != shape[axis]:
                return None  # it may be of size one, which is not sliced, or not
            needed[index] = place
    return needed


def _normalised(facts: Facts, node: ir.Node, axis: int) -> _Narrowed | None:
    """Layer normalisation of later axes."""
    rank = facts.rank(node.inputs[0])
    attribute = node.attributes.get("axis")
    first = -1 if attribute is None else attribute.as_int()
    if rank is None or axis >= first % rank:
        return None
    parameters = [facts.rank(value) for value in node.inputs[1:] if value is not None]
    return {0: axis} if all(one is not None and one <= rank - first % rank for one in parameters) else None


def _multiplied(facts: Facts, node: ir.Node, axis: int) -> _Narrowed | None:
    """Rows of a product need those rows of its left side; leading dimensions too if the right side is one matrix."""
    ranks = [facts.rank(value) for value in node.inputs]
    rank = facts.rank(node.outputs[0])
    if rank is None or rank < 2 or ranks[0] != rank or ranks[1] is None or ranks[1] < 2:
        return None
    return {0: axis} if axis == rank - 2 or (ranks[1] == 2 and axis < rank - 1) else None


def _attended(facts: Facts, node: ir.Node, axis: int) -> _Narrowed | None:
    """Queries are answered one by one; with a mask that has a row for each, those rows go along."""
    queries, _, _, mask, *past = (*node.inputs, None)[: max(4, len(node.inputs))]
    causal = node.attributes.get("is_causal")
    if axis != 1 or facts.rank(queries) != 3 or any(past) or (causal is not None and causal.as_int()):
        return None
    if mask is None:
        return {0: 1}
    shape, whole = facts.shapes.get(mask), facts.shapes.get(node.outputs[0])
    if shape is None or whole is None or len(shape) < 2 or shape[-2] != whole[1]:
        return None
    return {0: 1, 3: len(shape) - 2}


_THROUGH: Final[dict[str, Callable[[Facts, ir.Node, int], _Narrowed | None]]] = {
    **dict.fromkeys((*_BROADCASTING, *_UNARY), _each),
    "LayerNormalization": _normalised,
    "MatMul": _multiplied,
    "Attention": _attended,
}

REWRITE: Final = Rewrite("positions", "layers in front of a slice compute only what it takes", _apply)
