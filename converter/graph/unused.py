"""Leave out what nothing reads, and keep one of what is there twice."""

from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, bypass, nodes_of
from converter.graph.facts import Facts

_COMPARED_ELEMENTS: Final = 1024  # the exporter has merged larger ones


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:  # noqa: ARG001 - a rewrite's form
    before = len(model.graph) + len(model.graph.initializers)
    merge_constants(model, variables)
    for node in nodes_of(model, "Identity"):
        if node.inputs[0] is not None and not node.outputs[0].is_graph_output():
            bypass(node.outputs[0], node.inputs[0])
    _merge_nodes(model)
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


def _merge_nodes(model: ir.Model) -> None:
    """Let nodes that compute the same be one; those that give outputs of the graph stay apart."""
    first: dict[tuple[object, ...], ir.Node] = {}
    for node in model.graph:
        plain = all(attribute.type in _COMPARED for attribute in node.attributes.values())
        if node.op_type in _RANDOM or not plain or any(value.is_graph_output() for value in node.outputs):
            continue
        attributes = tuple((name, _frozen(node.attributes[name].value)) for name in sorted(node.attributes))
        same = first.setdefault((node.domain, node.op_type, node.inputs, attributes, len(node.outputs)), node)
        if same is not node:
            ir.convenience.replace_all_uses_with(node.outputs, same.outputs)


_COMPARED: Final = frozenset({
    ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT, ir.AttributeType.FLOATS,
    ir.AttributeType.STRING,
})  # fmt: skip
_RANDOM: Final = frozenset({
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


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
