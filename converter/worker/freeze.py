"""Freeze a signature: one flat TensorFlow graph with the variables' values in it and names of our own choosing.

The loaded signature is wrapped in a function of ours before it is frozen. So every input is a placeholder that we
named, whatever characters its alias has; outputs that are inputs, constants, or the same tensor twice need no care
later, since each ends in an Identity node of its own; and TensorFlow 1 signatures look like all others.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import tensorflow as tf
from tf2onnx import tf_loader

from converter.worker.foreign import ConcreteFunction, GraphDef, NodeDef, Tensor, TfVariable, Trackable
from converter.worker.signature import Signature

_INPUT: Final = "segue_input_{}"
_OUTPUT: Final = "segue_output_{}"
_WEIGHT_BYTES: Final = 4096  # smaller constants may be shapes and the like, which the optimizer must see
_KERNEL_RANK: Final = 3  # floats of as many dimensions are kernels, however small


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen signature.

    Attributes:
        graph: The GraphDef, without variables.
        weights: Contents of its large constants by node, where they were taken out of it; empty if nothing was.
        tables: Keys and values of the hash tables, by shared name, as tf2onnx wants them.
        inputs: Tensor names, in the order of the signature's inputs.
        outputs: Tensor names, in the order of the signature's outputs.
        variables: The tf.Variables that the signature reads.
        size: Theirs, in bytes.
        lean: Whether weights were taken out, and so kept from TensorFlow's graph optimizer.
    """

    graph: GraphDef
    weights: Mapping[str, bytes]
    tables: Mapping[bytes, tuple[Any, Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: tuple[TfVariable, ...]
    size: int
    lean: bool


def freeze(model: Trackable, signature: Signature, *, lean_bytes: int) -> Frozen:
    """Freeze one signature of a loaded model.

    Args:
        model: What `load_saved_model` gave.
        signature: One of its signatures.
        lean_bytes: If its variables are larger, TensorFlow's graph optimizer sees placeholders in place of weights. It
            would copy the whole graph some twenty times, and cannot take 2 GiB at all.
    """
    function = _wrapped(signature)
    variables = tuple(function.variables)
    # A variable whose shape was left open counts for nothing: this decides how to go about it, no more.
    size = sum(variable.dtype.size * (variable.shape.num_elements() or 0) for variable in variables)
    lean = size > lean_bytes
    inputs = tuple(f"{_INPUT.format(index)}:0" for index in range(len(signature.inputs)))
    outputs = tuple(f"{_OUTPUT.format(index)}:0" for index in range(len(signature.outputs)))
    ends = [tensor.name for tensor in function.outputs]
    names = _variable_names(function, variables)
    graph, tables = tf_loader.from_trackable(model, function, list(inputs), ends, lean)
    weights: dict[str, bytes] = {}
    if lean:
        _rename(graph, names)
        graph, weights = _without_weights(graph)
        graph = _optimized(graph, weights, list(inputs), ends)
    for name, end, spec in zip(outputs, ends, signature.outputs, strict=True):
        node = graph.node.add(name=name.removesuffix(":0"), op="Identity", input=[end])
        node.attr["T"].type = spec.dtype.as_datatype_enum
    return Frozen(graph, weights, tables, inputs, outputs, variables, size, lean)


def _wrapped(signature: Signature) -> ConcreteFunction:
    aliases = [spec.alias for spec in signature.inputs]
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=_INPUT.format(index)) for index, spec in enumerate(signature.inputs)
    ]

    def answer(*tensors: Tensor) -> list[Tensor]:
        answers = signature.function(**dict(zip(aliases, tensors, strict=True)))
        return [tf.identity(answers[spec.alias]) for spec in signature.outputs]

    return tf.function(answer, input_signature=specs, autograph=False).get_concrete_function()


def _variable_names(function: ConcreteFunction, variables: tuple[TfVariable, ...]) -> dict[str, str]:
    """Names of variables, by the placeholder through which the function reads each: so frozen constants are called."""
    handles = {id(variable.handle): variable.name.removesuffix(":0") for variable in variables}
    return {inner.op.name: handles[id(outer)] for outer, inner in function.graph.captures if id(outer) in handles}


def _rename(graph: GraphDef, names: Mapping[str, str]) -> None:
    """Rename nodes, out of each other's way and of all others'."""
    taken = {node.name for node in graph.node} - set(names)
    final: dict[str, str] = {}
    for name, wanted in sorted(names.items()):
        number, candidate = 1, wanted
        while candidate in taken:
            number += 1
            candidate = f"{wanted}_{number}"
        taken.add(candidate)
        final[name] = candidate
    for node in graph.node:
        node.attr.pop("_class", None)  # where TensorFlow would place it beside another, by that one's old name
        node.name = final.get(node.name, node.name)
        for index, source in enumerate(node.input):
            caret, (name, *port) = "^" * source.startswith("^"), source.removeprefix("^").split(":")
            if name in final:
                node.input[index] = ":".join([caret + final[name], *port])


def _without_weights(graph: GraphDef) -> tuple[GraphDef, dict[str, bytes]]:
    """The graph with a placeholder for each large constant, and their contents; the graph given can go."""
    weights = {node.name: node.attr["value"].tensor.tensor_content for node in graph.node if _is_weight(node)}
    light = type(graph)(versions=graph.versions, library=graph.library)
    light.node.extend(_placeholder(node) if node.name in weights else node for node in graph.node)
    tf_loader.fix_freezing_errors_part2(light)
    return light, weights


def _optimized(graph: GraphDef, weights: Mapping[str, bytes], inputs: list[str], outputs: list[str]) -> GraphDef:
    """Run TensorFlow's graph optimizer as tf2onnx does, then make constants, still empty, of the placeholders."""
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        optimized = tf_loader.tf_optimize(inputs, outputs, graph)
    for node in optimized.node:
        if node.name in weights:
            dtype, shape = node.attr["dtype"].type, node.attr["shape"].shape
            node.op = "Const"
            node.attr["value"].tensor.dtype = dtype
            node.attr["value"].tensor.tensor_shape.CopyFrom(shape)
            del node.attr["shape"]
    return optimized


def _is_weight(node: NodeDef) -> bool:
    """Whether the optimizer shall not see a constant: it would multiply scales into kernels and lose both."""
    if node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    is_kernel = len(tensor.tensor_shape.dim) >= _KERNEL_RANK and tf.dtypes.as_dtype(tensor.dtype).is_floating
    return len(tensor.tensor_content) > (0 if is_kernel else _WEIGHT_BYTES)


def _placeholder(weight: NodeDef) -> NodeDef:
    node = type(weight)(name=weight.name, op="Placeholder")
    node.attr["dtype"].CopyFrom(weight.attr["dtype"])
    node.attr["shape"].shape.CopyFrom(weight.attr["value"].tensor.tensor_shape)
    return node
