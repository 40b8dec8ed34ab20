"""Leave out what nothing reads, and keep one of what is there twice."""

from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common

from converter.graph.edit import Rewrite

_COMPARED_ELEMENTS: Final = 1024  # the exporter has merged larger ones


def _apply(model: ir.Model, kept: frozenset[str]) -> int:
    before = len(model.graph) + len(model.graph.initializers)
    merge_constants(model, kept)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    remove_unused(model, kept)
    return before - len(model.graph) - len(model.graph.initializers)


def merge_constants(model: ir.Model, kept: frozenset[str]) -> None:
    """Let equal small constants be one; those of variables stay apart."""
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or name in kept or tensor.size > _COMPARED_ELEMENTS or value.is_graph_output():
            continue
        if tensor.dtype == ir.DataType.STRING or value.is_graph_input():
            continue
        same = first.setdefault((tensor.dtype, tuple(tensor.shape), tensor.tobytes()), value)
        if same is not value:
            ir.convenience.replace_all_uses_with(value, same)


def remove_unused(model: ir.Model, kept: frozenset[str]) -> None:
    """Remove nodes and initializers that nothing reads; initializers of variables only go with the nodes.

    One that a removed node read is no longer part of what the model computes, and must be a fault of a rewrite: it is
    left there, so that the postconditions find it.
    """
    for node in reversed(list(model.graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if name not in kept and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]


REWRITE: Final = Rewrite("unused", "no dead nodes, no constant twice", _apply)
