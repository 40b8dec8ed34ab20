"""Leave out what nothing reads, and keep one of what is there twice."""

from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common

from converter.graph.edit import Rewrite, Variables
from converter.graph.facts import Facts

_COMPARED_ELEMENTS: Final = 1024  # the exporter has merged larger ones


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:  # noqa: ARG001 - a rewrite's form
    before = len(model.graph) + len(model.graph.initializers)
    merge_constants(model, variables)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    remove_unused(model, variables)
    return before - len(model.graph) - len(model.graph.initializers)


def merge_constants(model: ir.Model, variables: Variables) -> None:
    """Let equal small constants be one; those of variables stay apart."""
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or name in variables or tensor.size > _COMPARED_ELEMENTS or value.is_graph_output():
            continue
        if tensor.dtype == ir.DataType.STRING or value.is_graph_input():
            continue
        same = first.setdefault((tensor.dtype, tuple(tensor.shape), tensor.tobytes()), value)
        if same is not value:
            ir.convenience.replace_all_uses_with(value, same)


def remove_unused(model: ir.Model, variables: Variables) -> None:
    """Remove nodes and initializers that nothing reads; of initializers with a variable only those that others hold."""
    for node in reversed(list(model.graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)
    unread = [name for name, value in model.graph.initializers.items() if not _is_read(value)]
    held = {v for name, own in variables.items() if name not in unread for v in own}
    for name in unread:
        if variables.get(name, frozenset()) <= held:
            del model.graph.initializers[name]
        else:
            held |= variables[name]


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output() or value.is_graph_input()


REWRITE: Final = Rewrite("unused", "no dead nodes, no constant twice", _apply)
