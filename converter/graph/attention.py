"""Attention as one operator: ONNX's Attention, with scale and mask, from matrix products around a Softmax.

Queries, keys and values are [batch, length, heads, width] here, before TensorFlow transposes them; Attention takes them
with heads and width merged, and gives such an answer, so that the transposes go as well.
"""

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from converter.graph.algebra import Term, term_of
from converter.graph.edit import (
    Rewrite,
    Variables,
    add_constant,
    bypass,
    insert,
    integers,
    nodes_of,
    only_use,
    producer,
    scalar,
)
from converter.graph.facts import Facts
from converter.graph.opset import may_raise, raise_opset
from converter.graph.shapes import Origins, first_with_sizes, measured
from converter.graph.transposes import permutation
from converter.graph.unused import merge_constants, remove_unused

OPSET: Final = 23  # from which ONNX has Attention
_HEADS_FIRST: Final = (0, 2, 1, 3)
_KEYS: Final = (0, 2, 3, 1)
_MASKED_OUT: Final = -1e30  # from here on a float32 score added to it is lost


@dataclass(frozen=True, slots=True)
class _Attention:
    """Queries, keys and values, [batch, length, heads, width] each; the answer in that layout; what is added."""

    queries: ir.Value
    keys: ir.Value
    values: ir.Value
    answer: ir.Value
    scale: float
    masks: list[ir.Value]


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    if not may_raise(model, OPSET):
        return 0
    origins = first_with_sizes(model, facts)
    done = 0
    for node in nodes_of(model, "Softmax"):
        found = _attention(facts, node)
        if found is not None:
            _replace(model, facts, found, origins)
            done += 1
    if done:
        raise_opset(model, OPSET)
        remove_unused(model, variables)
        merge_constants(model, variables)
    return done


def _attention(facts: Facts, softmax: ir.Node) -> _Attention | None:
    """What a Softmax is in the middle of, if that is attention."""
    weighted = _reader(softmax.outputs[0], "MatMul")
    merged = None if weighted is None else _reader(weighted.outputs[0], "Transpose")
    axis = softmax.attributes.get_int("axis", -1)
    if weighted is None or merged is None or permutation(merged) != _HEADS_FIRST or axis not in {-1, 3}:
        return None
    if weighted.inputs[0] is not softmax.outputs[0] or softmax.inputs[0] is None:
        return None
    parts = _scores(softmax.inputs[0])
    if parts is None:
        return None
    product, scale, masks = parts
    queries = _transposed(product.inputs[0], _HEADS_FIRST)
    keys = _transposed(product.inputs[1], _KEYS)
    values = _transposed(weighted.inputs[1], _HEADS_FIRST)
    if queries is None or keys is None or values is None or not _fits(facts, queries, keys, values, masks):
        return None
    return _Attention(queries, keys, values, merged.outputs[0], scale, masks)


def _reader(value: ir.Value, operator: str) -> ir.Node | None:
    node = only_use(value)
    return node if node is not None and node.op_type == operator and not node.domain else None


def _transposed(value: ir.Value | None, order: tuple[int, ...]) -> ir.Value | None:
    node = producer(value, "Transpose")
    return node.inputs[0] if node is not None and permutation(node) == order else None


def _scores(value: ir.Value) -> tuple[ir.Node, float, list[ir.Value]] | None:
    """The product of queries and keys, its scale, and what is added to it.

    A number added to all scores changes no softmax, and goes.
    """
    addends = [addend for addend in _addends(value) if scalar(addend) is None]
    products = [(addend, found) for addend in addends if (found := _product(addend)) is not None]
    if len(products) != 1:
        return None
    addend, (product, scale, chosen) = products[0]
    masks = [other for other in addends if other is not addend]
    if chosen is not None and not any(_masks_out(mask, chosen) for mask in masks):
        return None
    return product, scale, masks


def _addends(value: ir.Value) -> list[ir.Value]:
    node = producer(value, "Add")
    if node is None:
        return [value]
    return [addend for operand in node.inputs if operand is not None for addend in _addends(operand)]


def _product(addend: ir.Value) -> tuple[ir.Node, float, ir.Value | None] | None:
    """A MatMul, its scale, and the condition with which it is multiplied if there is one."""
    term = term_of(addend)
    matmuls = [node for value in term.powers if (node := producer(value, "MatMul")) is not None]
    others = [value for value in term.powers if producer(value, "MatMul") is None]
    if len(matmuls) != 1 or len(others) > 1 or set(term.powers.values()) != {1}:
        return None
    condition = producer(others[0], "Cast") if others else None
    if others and (condition is None or condition.inputs[0] is None):
        return None
    return matmuls[0], term.number, None if condition is None else condition.inputs[0]


def _masks_out(mask: ir.Value, chosen: ir.Value) -> bool:
    """Whether a mask is a huge negative number wherever a condition is false, and zero elsewhere.

    Keras's Where comes as `condition · scores + (not condition) · -huge`; adding that to all scores is the same.
    """
    term: Term = term_of(mask)
    cast = producer(next(iter(term.powers), None), "Cast")
    negation = None if cast is None else producer(cast.inputs[0], "Not")
    single = list(term.powers.values()) == [1] and term.number <= _MASKED_OUT
    return single and negation is not None and negation.inputs[0] is chosen


def _fits(facts: Facts, queries: ir.Value, keys: ir.Value, values: ir.Value, masks: list[ir.Value]) -> bool:
    q, k, v = (facts.shapes.get(value, ()) for value in (queries, keys, values))
    if not len(q) == len(k) == len(v) == 4 or facts.types.get(queries) != ir.DataType.FLOAT:
        return False
    known = all(isinstance(size, int) for size in (*q[2:], *k[2:], *v[2:]))
    ranks = [facts.rank(mask) for mask in masks]
    return known and q[2:] == k[2:] and v[2] == k[2] and all(rank is not None and rank <= 4 for rank in ranks)


def _replace(model: ir.Model, facts: Facts, found: _Attention, origins: Origins) -> None:
    before = found.answer.producer()
    assert before is not None  # noqa: S101 - a Transpose made it
    name = f"{before.name}/attention"
    heads, width = facts.shapes[found.values][2:]
    inputs: list[ir.Value | None] = [
        _merged(model, facts, before, value, f"{name}/{part}")
        for part, value in (("queries", found.queries), ("keys", found.keys), ("values", found.values))
    ]
    if found.masks:
        inputs.append(_mask(model, facts, before, found, origins))
    assert isinstance(heads, int) and isinstance(width, int)  # noqa: S101, PT018 - seen by _fits
    attended = insert(before, "Attention", inputs, name, q_num_heads=heads, kv_num_heads=heads, scale=found.scale)
    split = add_constant(model, f"{name}/split", integers(0, 0, heads, width))
    bypass(found.answer, insert(before, "Reshape", [attended, split], f"{name}/answer"))


def _merged(model: ir.Model, facts: Facts, before: ir.Node, value: ir.Value, name: str) -> ir.Value:
    heads, width = facts.shapes[value][2:]
    assert isinstance(heads, int) and isinstance(width, int)  # noqa: S101, PT018 - seen by _fits
    shape = add_constant(model, f"{name}/shape", integers(0, 0, heads * width))
    return insert(before, "Reshape", [value, shape], name)


def _mask(model: ir.Model, facts: Facts, before: ir.Node, found: _Attention, origins: Origins) -> ir.Value:
    """All masks added, with the lengths that Attention wants: ONNX Runtime does not broadcast those."""
    name = f"{before.name}/attention/mask"
    lengths = (facts.shapes[found.queries][1], facts.shapes[found.keys][1])
    masks = list(found.masks)
    if any(facts.shapes[mask][-2:] != lengths for mask in masks):
        parts = [measured(model, before, length, origins, f"{name}/length_{n}") for n, length in enumerate(lengths)]
        shape = insert(before, "Concat", parts, f"{name}/shape", axis=0)
        masks = [
            mask
            if facts.shapes[mask][-2:] == lengths
            else insert(before, "Expand", [mask, shape], f"{name}/expanded_{n}")
            for n, mask in enumerate(masks)
        ]
    total = masks[0]
    for number, mask in enumerate(masks[1:]):
        total = insert(before, "Add", [total, mask], f"{name}/sum_{number}")
    rank = max(facts.rank(mask) or 0 for mask in found.masks)
    if rank == 3:  # [heads, …] for ONNX
        total = insert(before, "Unsqueeze", [total, add_constant(model, f"{name}/axis", integers(0))], f"{name}/whole")
    return total


REWRITE: Final = Rewrite("attention", "attention is one operator", _apply)
