"""A graph in double precision: what a model's answers would be without rounding, to tell whose rounding differs."""

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every single-precision number as a double, its inputs and outputs among them.

    What an operator takes in single precision alone (the scales of a Resize) is not told apart.
    """
    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    for graph in _graphs(twice.graph):
        del graph.value_info[:]
        for tensor in graph.initializer:
            _widen(tensor)
        for port in (*graph.input, *graph.output):
            if port.type.tensor_type.elem_type == FLOAT:
                port.type.tensor_type.elem_type = DOUBLE
        for node in graph.node:
            _widen_attributes(node)
    return twice


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _widen(attribute.t)
        if attribute.name in {"to", "stash_type"} and attribute.i == FLOAT:
            attribute.i = DOUBLE
    if node.op_type == "LayerNormalization" and all(one.name != "stash_type" for one in node.attribute):
        node.attribute.append(onnx.helper.make_attribute("stash_type", DOUBLE))


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float64"), tensor.name))
