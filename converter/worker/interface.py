"""The graph inputs and outputs of an exported model: aliases for names, and the signature's own shapes.

The exporter knows our names of the frozen graph only, and forgets shapes here and there. Aliases may hold any
character: ONNX names may, too.
"""

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from converter.worker.graphs import subgraphs
from converter.worker.signature import Signature, Spec


def name_interface(
    model: onnx.ModelProto, signature: Signature, input_names: Sequence[str], output_names: Sequence[str]
) -> tuple[dict[str, str | None], dict[str, str]]:
    """Rename the model's inputs and outputs to the signature's aliases and give them its shapes, in place.

    Dynamic dimensions of inputs get names that no other dimension has, for a shared name would be a promise that they
    are equal, and runtimes reuse memory by it. A name already taken (an output called like an input) gets a suffix.

    Args:
        model: As exported.
        signature: What it was exported from.
        input_names: The model's present names of the signature's inputs, some of which it may have dropped.
        output_names: And of its outputs.

    Returns:
        ONNX names of the inputs and of the outputs, by alias. An input that the graph does not have is None.
    """
    graph = model.graph
    wanted = [spec.alias or "unnamed" for spec in (*signature.inputs, *signature.outputs)]
    current = [*input_names, *output_names]
    renamed = _fresh_names(graph, dict(zip(current, _distinct(wanted), strict=True)))
    _rename(graph, renamed)
    _compute_constants(graph)
    there = {value.name for value in graph.input}
    inputs = {
        spec.alias: renamed[name] if renamed[name] in there else None
        for spec, name in zip(signature.inputs, input_names, strict=True)
    }
    outputs = {spec.alias: renamed[name] for spec, name in zip(signature.outputs, output_names, strict=True)}
    _set_inputs(graph, signature.inputs, inputs)
    _set_outputs(graph, signature.outputs, outputs)
    return inputs, outputs


def _distinct(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    result = []
    for name in names:
        final, number = name, 1
        while final in taken:
            number += 1
            final = f"{name}_{number}"
        taken.add(final)
        result.append(final)
    return result


def _fresh_names(graph: onnx.GraphProto, wanted: Mapping[str, str]) -> dict[str, str]:
    """Add new names for inner values that are called like an alias."""
    inner = {name for part in subgraphs(graph) for name in _defined(part)} - set(wanted)
    taken, renamed = inner | set(wanted.values()), dict(wanted)
    for name in sorted(inner & set(wanted.values())):
        final = f"{name}_inner"
        while final in taken:
            final += "_"
        taken.add(final)
        renamed[name] = final
    return renamed


def _defined(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in graph.input} | {initializer.name for initializer in graph.initializer}
    return names.union(*(node.output for node in graph.node)) - {""}


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for part in subgraphs(graph):
        for value in (*part.input, *part.output, *part.value_info):
            value.name = names.get(value.name, value.name)
        for initializer in part.initializer:
            initializer.name = names.get(initializer.name, initializer.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def _compute_constants(graph: onnx.GraphProto) -> None:
    """Give every output that is an initializer a node: few tools beside the runtimes expect to meet the former."""
    outputs = {value.name for value in graph.output}
    for initializer in graph.initializer:
        if initializer.name in outputs:
            name = initializer.name
            initializer.name = f"{name}_constant"
            graph.node.append(helper.make_node("Identity", [initializer.name], [name], name=f"{name}_constant_node"))


def _set_inputs(graph: onnx.GraphProto, specs: Sequence[Spec], names: Mapping[str, str | None]) -> None:
    values = {value.name: value for value in graph.input}
    batched = len([spec for spec in specs if spec.shape]) == 1
    for index, spec in enumerate(specs):
        name = names[spec.alias]
        if name is None:
            continue
        dimensions: list[int | str] | None = None
        if spec.shape is not None:
            dimensions = [f"input{index}_dim{axis}" if size is None else size for axis, size in enumerate(spec.shape)]
            if batched and spec.shape and spec.shape[0] is None:
                dimensions[0] = "batch"
        _set_shape(values[name], dimensions)


def _set_outputs(graph: onnx.GraphProto, specs: Sequence[Spec], names: Mapping[str, str]) -> None:
    values = {value.name: value for value in graph.output}
    for spec in specs:
        _set_shape(values[names[spec.alias]], None if spec.shape is None else list(spec.shape))


def _set_shape(value: onnx.ValueInfoProto, dimensions: Sequence[int | str | None] | None) -> None:
    element = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(value.name, element, dimensions))
