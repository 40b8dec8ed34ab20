"""Transposes cancelled, merged, and freed of dimensions of size 1."""

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, bypass, insert, nodes_of, only_use, producer
from converter.graph.facts import Facts, gather_facts
from converter.graph.reshapes import RESHAPING, reshape
from converter.graph.sizes import Shape, product
from converter.graph.unused import remove_unused


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    done = 0
    for step in (_before_merged, _without_ones, _merged):
        count = sum(step(model, facts, node) for node in nodes_of(model, "Transpose"))
        if count:
            remove_unused(model, variables)
            facts = gather_facts(model)
        done += count
    return done


def permutation(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a Transpose, if it names them."""
    return tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None


def _merged(model: ir.Model, facts: Facts, node: ir.Node) -> bool:  # noqa: ARG001 - a step's form
    """Merge a transpose with the one before it, or leave out what moves nothing."""
    source, order = node.inputs[0], permutation(node)
    before = producer(source, "Transpose")
    first = None if before is None else permutation(before)
    if source is None or order is None:
        return False
    if order == tuple(range(len(order))):
        return bypass(node.outputs[0], source)
    if before is None or first is None or before.inputs[0] is None:
        return False
    both = [first[axis] for axis in order]
    if both == sorted(both):
        return bypass(node.outputs[0], before.inputs[0])
    if only_use(source) is not node:
        return False  # two transposes either way
    node.replace_input_with(0, before.inputs[0])
    node.attributes["perm"] = ir.AttrInt64s("perm", both)
    return True


def _without_ones(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Transpose before dimensions of size 1 are added, rather than after."""
    source, order = node.inputs[0], permutation(node)
    before = producer(source, *RESHAPING)
    if source is None or order is None or before is None or before.inputs[0] is None or only_use(source) is not node:
        return False
    wide, narrow, result = (facts.shapes.get(v) for v in (source, before.inputs[0], node.outputs[0]))
    if wide is None or narrow is None or result is None or 1 not in wide:
        return False
    real = [axis for axis, size in enumerate(wide) if size != 1]
    if [wide[axis] for axis in real] != list(narrow):
        return False
    inner = [real.index(axis) for axis in order if axis in real]
    return _transpose_first(model, node, before.inputs[0], order=inner, shape=narrow, wanted=result)


def _before_merged(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Transpose the matrices of [batch, heads, rows, columns] before batch and heads are merged, rather than after."""
    source, order = node.inputs[0], permutation(node)
    before = producer(source, *RESHAPING)
    if (
        source is None
        or order != (0, 2, 1)
        or before is None
        or before.inputs[0] is None
        or only_use(source) is not node
    ):
        return False
    merged, whole, result = (facts.shapes.get(v) for v in (source, before.inputs[0], node.outputs[0]))
    if merged is None or whole is None or result is None or not _merges_leading(whole, merged):
        return False
    last = len(whole)
    inner = [*range(last - 2), last - 1, last - 2]
    return _transpose_first(model, node, before.inputs[0], order=inner, shape=whole, wanted=result)


def _merges_leading(whole: Shape, merged: Shape) -> bool:
    return len(whole) > len(merged) == 3 and whole[-2:] == merged[1:] and product(whole[:-2]) == merged[0]


def _transpose_first(
    model: ir.Model, node: ir.Node, source: ir.Value, *, order: Sequence[int], shape: Shape, wanted: Shape
) -> bool:
    name = node.outputs[0].name
    moved = insert(node, "Transpose", [source], f"{name}/moved", perm=list(order))
    permuted = tuple(shape[axis] for axis in order)
    shaped = reshape(model, node, moved, shape=permuted, wanted=wanted, name=f"{name}/shaped")
    return shaped is not None and bypass(node.outputs[0], shaped)


REWRITE: Final = Rewrite("transposes", "transposes that undo or follow each other are one, or none", _apply)
