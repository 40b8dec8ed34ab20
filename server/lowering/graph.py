"""ONNX as the lowering sees it: nodes in order, constants, types, and who uses what. No torch here."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import defs, inliner, numpy_helper, shape_inference

from server.errors import GraphNotLowerable

# Larger constants are never read by shape inference, which would copy them.
_SMALL_ELEMENTS: Final = 256

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """What is known of a tensor before it is computed.

    Attributes:
        dtype: ONNX's number of the element type (onnx.TensorProto.DataType); 0 if unknown or not a tensor.
        shape: A size, a name or None (unknown) for each axis; None where not even the rank is known.
    """

    dtype: int = 0
    shape: Dims | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator of a graph.

    Attributes:
        operator: As in the ONNX standard, with its domain in front where that is not the default one.
        version: The operator set version that introduced the form of the operator which holds here.
        name: The node's own, or that of its first output.
        inputs: Names of values; "" for one that is left out.
        outputs: The same.
        attributes: By name: numbers, strings, tuples of them, TensorProto, `Graph` for bodies.
        proto: The node as it is in the file.
    """

    operator: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto

    def refusal(self, reason: str) -> GraphNotLowerable:
        """The error that names this node."""
        return GraphNotLowerable(self.operator, self.name, reason)


@dataclass(slots=True, eq=False)
class Graph:
    """A graph, or the body of a control-flow operator.

    Attributes:
        inputs: Names, without those that only give an initializer a name.
        outputs: Names.
        nodes: In an order in which they can run. Constant nodes are among `constants` instead.
        constants: Initializers and Constant nodes, by name.
        types: Of every value that shape inference knows.
        uses: How many nodes and outputs use a value, uses in bodies included.
        parent: For a body, the graph whose values it may use besides its own.
        opsets: Domain -> version.
        consumers: Value -> the nodes that use it.
        makers: Value -> the node that computes it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, onnx.TensorProto]
    types: dict[str, Type]
    uses: Counter[str]
    opsets: Mapping[str, int]
    parent: "Graph | None" = None
    consumers: dict[str, list[Node]] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)

    def type_of(self, name: str) -> Type:
        """What is known of a value."""
        if name in self.types:
            return self.types[name]
        return self.parent.type_of(name) if self.parent else Type()

    def constant(self, name: str) -> onnx.TensorProto | None:
        """The tensor, if the value is one that the file holds."""
        if name in self.constants:
            return self.constants[name]
        return self.parent.constant(name) if self.parent else None

    def producer(self, name: str) -> Node | None:
        """The node of this graph that computes a value."""
        return self.makers.get(name)

    def captured(self) -> tuple[str, ...]:
        """Values of enclosing graphs that this body uses and that are not constants, each once, in order of use."""
        own = set(self.inputs) | set(self.constants) | {out for node in self.nodes for out in node.outputs}
        names = [name for node in self.nodes for name in (*node.inputs, *_captured_by(node))]
        outer = [name for name in (*names, *self.outputs) if name and name not in own and self.constant(name) is None]
        return tuple(dict.fromkeys(outer))


def _captured_by(node: Node) -> tuple[str, ...]:
    return tuple(name for body in bodies(node) for name in body.captured())


def bodies(node: Node) -> Iterator[Graph]:
    """The graphs among a node's attributes."""
    for value in node.attributes.values():
        if isinstance(value, Graph):
            yield value


def read_graph(model: onnx.ModelProto | Path) -> Graph:
    """Read a model.

    Args:
        model: The model, with its external data loaded, or the path of its file.

    Raises:
        GraphNotLowerable: The model is not valid, or has an operator set that the installed onnx does not know.
    """
    proto = onnx.load(model) if isinstance(model, Path) else model
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    inferred = _infer(proto)
    opsets = {one.domain if one.domain != "ai.onnx" else "": one.version for one in proto.opset_import}
    if opsets.get("", 0) > defs.onnx_opset_version():
        raise GraphNotLowerable("", "", f"operator set {opsets['']} is newer than the installed onnx")
    return _graph(proto.graph, inferred, opsets, None)


def _infer(proto: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with the types of all values, its large constants left empty."""
    light = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    graph = proto.graph
    light.graph.CopyFrom(onnx.GraphProto(name=graph.name, node=graph.node, input=graph.input, output=graph.output))
    light.graph.value_info.extend(graph.value_info)
    for tensor in graph.initializer:
        if elements(tensor) <= _SMALL_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    try:
        return shape_inference.infer_shapes(light, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise GraphNotLowerable("", "", f"the graph contradicts itself: {error}") from error


def elements(tensor: onnx.TensorProto) -> int:
    """How many elements a tensor of the file has."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _graph(proto: onnx.GraphProto, inferred: onnx.GraphProto, opsets: Mapping[str, int], parent: Graph | None) -> Graph:
    constants = {tensor.name: tensor for tensor in proto.initializer}
    if proto.sparse_initializer:
        raise GraphNotLowerable("", "", "sparse initializers have no form here")
    graph = Graph(
        inputs=tuple(value.name for value in proto.input if value.name not in constants),
        outputs=tuple(value.name for value in proto.output),
        nodes=(), constants=constants, types=_types(inferred), uses=Counter(), opsets=opsets, parent=parent,
    )  # fmt: skip
    nodes = []
    for node, known in zip(proto.node, inferred.node, strict=True):
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            tensor = _constant(node)
            graph.constants[node.output[0]] = tensor
            graph.types[node.output[0]] = Type(tensor.data_type, tuple(tensor.dims))
        else:
            nodes.append(_node(node, known, opsets, graph))
    graph.nodes = tuple(nodes)
    graph.makers.update((name, one) for one in nodes for name in one.outputs if name)
    for one in nodes:
        for name in {*one.inputs, *_captured_by(one)} - {""}:
            graph.consumers.setdefault(name, []).append(one)
        graph.uses.update(name for name in (*one.inputs, *_captured_by(one)) if name)
    graph.uses.update(graph.outputs)
    return graph


def _types(inferred: onnx.GraphProto) -> dict[str, Type]:
    types = {tensor.name: Type(tensor.data_type, tuple(tensor.dims)) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor_type = value.type.tensor_type
        shape = None
        if tensor_type.HasField("shape"):
            shape = tuple(
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor_type.shape.dim
            )
        types[value.name] = Type(tensor_type.elem_type, shape)
    return types


def _node(proto: onnx.NodeProto, known: onnx.NodeProto, opsets: Mapping[str, int], graph: Graph) -> Node:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    operator = f"{domain}::{proto.op_type}" if domain else proto.op_type
    name = proto.name or proto.output[0]
    if domain not in opsets:
        raise GraphNotLowerable(operator, name, "the model imports no operator set of its domain")
    try:
        version = defs.get_schema(proto.op_type, opsets[domain], domain).since_version
    except defs.SchemaError:
        version = 0  # no standard operator
    inner = {
        attribute.name: attribute.g for attribute in known.attribute if attribute.type == onnx.AttributeProto.GRAPH
    }
    attributes = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            attributes[attribute.name] = _graph(attribute.g, inner[attribute.name], opsets, graph)
        else:
            attributes[attribute.name] = _plain(onnx.helper.get_attribute_value(attribute))
    return Node(operator, version, name, tuple(proto.input), tuple(proto.output), attributes, proto)


def _plain(value: Any) -> Any:
    """An attribute's value as Python says it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(one) for one in value)
    return value


def _constant(node: onnx.NodeProto) -> onnx.TensorProto:
    """The tensor of a Constant node, whichever of its attributes holds it."""
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        return tensor
    kinds = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if attribute.name not in kinds:
        raise GraphNotLowerable("Constant", node.name or node.output[0], f"a constant given as {attribute.name}")
    return numpy_helper.from_array(np.array(value, kinds[attribute.name]), node.output[0])
