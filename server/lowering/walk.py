"""The walk over an ONNX graph: each node becomes a call in a torch.fx graph.

Our own table is asked first, then onnx2torch's converters (`server.lowering.foreign`); what neither has is refused.
Layers are recognised (`server.lowering.layers`) before operators are looked up.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from server.errors import GraphNotLowerable
from server.lowering import foreign, materialise
from server.lowering.control import CONTROL
from server.lowering.dtypes import TORCH_DTYPES, to_torch
from server.lowering.graph import Graph, Node, elements, read_graph
from server.lowering.host import HOST
from server.lowering.layers import LAYERS
from server.lowering.module import LoweredModule, Port
from server.lowering.operators import OPERATORS
from server.lowering.operators.integers import as_int64, from_int64
from server.lowering.parameters import Variable, Weights, attach, drop_unread, path_of
from server.lowering.table import Operator
from server.lowering.unsigned import is_widened, widened
from server.lowering.values import host_values, is_small

_ANCHOR: Final = "_anchor"
# Of a call: the name of the value that it computes, and the node, where another could compute it as well.
VALUE: Final = "segue_value"
OPERATOR: Final = "segue_operator"


def lower(
    model: onnx.ModelProto | Path,
    variables: Mapping[str, str | Variable] | None = None,
    folded: Iterable[Variable] = (),
) -> LoweredModule:
    """Turn an ONNX model into a PyTorch module that computes the same.

    Args:
        model: The model, or the path of its file.
        variables: Initializer -> the TensorFlow variable that it holds. Those become parameters (or buffers, if they
            are not trainable) that bear the variables' names; see `server.lowering.parameters` for what happens to
            other constants, and without this.
        folded: TensorFlow's variables that no initializer holds as they were.

    Raises:
        GraphNotLowerable: An operator, or a use of one, that has no form here which is known to be right.
    """
    named = None
    if variables is not None:
        named = {name: Variable(one) if isinstance(one, str) else one for name, one in variables.items()}
    graph = read_graph(model)
    module = LoweredModule()
    walk = Walk(graph, module, Weights(named, tuple(folded)))
    walk.run()
    module.facts.inputs = tuple(_port(graph, name) for name in graph.inputs)
    module.facts.outputs = tuple(_port(graph, name) for name in graph.outputs)
    module.facts.origins.update(walk.weights.origins)
    return module.eval()


def _port(graph: Graph, name: str) -> Port:
    known = graph.type_of(name)
    return Port(name, known.dtype, known.shape)


class Walk:
    """Lowers one graph into one module.

    Attributes:
        graph: What is read.
        module: What is written.
        weights: The constants of the whole model.
        absorbed: Outputs of nodes that became part of a layer -> the value that stands for them.
        layers: What a layer is made of -> its place in the module.
    """

    def __init__(
        self, graph: Graph, module: LoweredModule, weights: Weights, outer_host: frozenset[str] = frozenset(),
        prefix: str = "",
    ) -> None:  # fmt: skip
        self.graph = graph
        self.module = module
        self.weights = weights
        self._prefix = prefix
        self.absorbed: dict[str, str] = {}
        self.layers: dict[tuple[object, ...], str] = {}
        self.host_names = host_values(graph, OPERATORS, outer_host)
        self._code = fx.Graph()
        self._tensors: dict[str, fx.Node] = {}
        self._numbers: dict[str, Any] = {}
        self._places: dict[str, str] = {}

    def run(self) -> None:
        """Write the module."""
        attach(self.module, _ANCHOR, torch.empty(0), persistent=False)
        captured = self.graph.captured() if self.graph.parent else ()
        for name in (*self.graph.inputs, *captured):
            value = self._code.placeholder(_identifier(name))
            (self._numbers if name in self.host_names else self._tensors)[name] = value
        for node in self.graph.nodes:
            self._node(node)
        self._code.output(tuple(self.tensor(name) for name in self.graph.outputs))
        self._code.eliminate_dead_code(lambda node: node.op in {"placeholder", "output"} or not _is_pure(node))
        self._code.lint()
        self.module.graph = self._code
        for place in drop_unread(self.module, self._code):
            self.weights.origins.pop(f"{self._prefix}{place}", None)

    def _node(self, node: Node) -> None:
        if node.outputs[0] in self.absorbed:
            self.bind(node.outputs[0], self.tensor(self.absorbed[node.outputs[0]]))
        elif node.outputs[0] in self.host_names:
            self._on_host(node)
        elif is_widened(node, self.graph):
            wide, narrows = widened(node, self.graph, self._converted)
            self._tensor_node(wide)
            if narrows:
                result, dtype = self.tensor(node.outputs[0]), self.dtype(node.outputs[0], node)
                self.bind(node.outputs[0], self.call(from_int64, result, dtype, name=node.outputs[0]))
        elif (layer := LAYERS.get(node.operator)) is not None and layer(node, self):
            self._count(node, "segue")
        else:
            self._tensor_node(node)

    def _converted(self, function: Callable[[torch.Tensor], torch.Tensor], name: str) -> str:
        """A value as another one, that only the walk knows."""
        wide = f"{name}/int64" if function is as_int64 else f"{name}/ordered"
        if wide not in self._tensors:
            self.bind(wide, self.call(function, self.tensor(name), name=wide))
        return wide

    def _tensor_node(self, node: Node) -> None:
        """A node that is no layer."""
        if (control := CONTROL.get(node.operator)) is not None:
            control(node, self)
            self._count(node, "segue")
        elif (operator := OPERATORS.get(node.operator)) is not None:
            self._ours(node, operator)
            self._count(node, "segue")
        elif foreign.supplies(node):
            self._foreign(node)
            self._count(node, "onnx2torch")
        else:
            raise node.refusal("no converter for it is known to be right")

    def _count(self, node: Node, supplier: str) -> None:
        self.module.facts.suppliers[node.operator, supplier] += 1

    def _on_host(self, node: Node) -> None:
        attributes = {name: _literal(value) for name, value in node.attributes.items()}
        self._count(node, "segue")
        if node.operator in {"Shape", "Size"}:
            constant = self.graph.constant(node.inputs[0])
            if constant is not None:  # which is not read for its sizes: a copy that has no other use then goes
                sizes = tuple(constant.dims)
                self._numbers[node.outputs[0]] = sizes[attributes.get("start", 0) : attributes.get("end")]
                if node.operator == "Size":
                    self._numbers[node.outputs[0]] = elements(constant)
                return
            arguments: list[Any] = [self.tensor(node.inputs[0])]
        else:
            arguments = [self.number(name) if name else None for name in node.inputs]
        if any(isinstance(each, fx.Node) for each in arguments):
            result = self.call(HOST[node.operator], *arguments, name=node.outputs[0], **attributes)
            result.meta[OPERATOR] = node
            self._numbers[node.outputs[0]] = result
        else:
            self._numbers[node.outputs[0]] = HOST[node.operator](*arguments, **attributes)

    def _ours(self, node: Node, operator: Operator) -> None:
        if not operator.first <= node.version <= operator.last:
            raise node.refusal(f"version {node.version} of the operator is not one of {operator.first}-{operator.last}")
        if unknown := sorted(set(node.attributes) - operator.attributes):
            raise node.refusal(f"attribute {unknown[0]} has no form here")
        if operator.refuse is not None and (reason := operator.refuse(node, self.graph)) is not None:
            raise node.refusal(reason)
        arguments = [
            None if not name else self.number(name) if index in operator.host else self.tensor(name)
            for index, name in enumerate(node.inputs)
        ]
        keywords = {name: _literal(value) for name, value in node.attributes.items()} | self._provided(node, operator)
        result = self.call(operator.function, *arguments, name=node.outputs[0], **keywords)
        if operator.many:
            self.bind_all(node, result)
        else:
            self.bind(node.outputs[0], result)

    def _provided(self, node: Node, operator: Operator) -> dict[str, Any]:
        values: dict[str, Callable[[], Any]] = {
            "like": self.anchor,
            "out": lambda: self.dtype(node.outputs[0], node),
            "count": lambda: len(node.outputs),
            "version": lambda: node.version,
        }
        return {name: value() for name, value in values.items() if name in operator.parameters}

    def _foreign(self, node: Node) -> None:
        module, names = foreign.convert(node, self.graph)
        result = self.layer(path_of(node.name), module, *(self.tensor(name) for name in names), name=node.outputs[0])
        result.meta[OPERATOR] = node
        self.bind(node.outputs[0], result)

    def bind(self, name: str, value: fx.Node) -> None:
        """Say which call computes a tensor."""
        self._tensors[name] = value

    def bind_all(self, node: Node, values: fx.Node) -> None:
        """Say which call computes all outputs of a node."""
        for index, name in enumerate(node.outputs):
            if name:
                self.bind(name, self.call(materialise.entry, values, index, name=name))

    def call(self, function: Callable[..., Any], *arguments: Any, name: str, **keywords: Any) -> fx.Node:
        """Write a call of a function; `name` is the value that it is for."""
        node = self._code.create_node("call_function", function, arguments, keywords, _identifier(name))
        node.meta[VALUE] = name
        return node

    def layer(self, path: str, module: nn.Module, *arguments: Any, name: str) -> fx.Node:
        """Put a layer into the module and write a call of it."""
        return self.call_layer(attach(self.module, path, module), *arguments, name=name)

    def call_layer(self, place: str, *arguments: Any, name: str) -> fx.Node:
        """Write a call of a layer that the module has already."""
        node = self._code.create_node("call_module", place, arguments, {}, _identifier(name))
        node.meta[VALUE] = name
        return node

    def record(self, place: str, names: Mapping[str, str]) -> None:
        """Note from which constants a layer's parameters come: attribute -> constant."""
        for attribute, name in names.items():
            self.weights.record(f"{self._prefix}{place}.{attribute}", name)

    def record_as(self, key: str, name: str, variable: str) -> None:
        """Note of which constant, and perhaps variable, a parameter was made."""
        self.weights.record_as(f"{self._prefix}{key}", name, variable)

    def body(self, graph: Graph, label: str) -> fx.Node:
        """Lower a body into a module of its own, and write what refers to it."""
        module = LoweredModule()
        place = attach(self.module, path_of(label), module)
        inner = Walk(graph, module, self.weights, self.host_names, f"{self._prefix}{place}.")
        inner.run()
        self.module.facts.suppliers.update(module.facts.suppliers)
        return self._code.get_attr(place)

    def captured(self, graph: Graph) -> tuple[Any, ...]:
        """What a body uses of this graph, in the order in which its module takes it."""
        return tuple(self._numbers[name] if name in self.host_names else self.tensor(name) for name in graph.captured())

    def anchor(self) -> fx.Node:
        """A tensor on the module's device."""
        return self._code.get_attr(_ANCHOR)

    def dtype(self, name: str, node: Node) -> torch.dtype:
        """The torch dtype of a value.

        Raises:
            GraphNotLowerable: torch has none, or shape inference could not say.
        """
        number = self.graph.type_of(name).dtype
        if number not in TORCH_DTYPES:
            raise node.refusal(f"the element type of {name!r} has no form here")
        return TORCH_DTYPES[number]

    def tensor(self, name: str) -> fx.Node:
        """A value as a tensor."""
        if name not in self._tensors:
            if name in self._numbers:
                dtype = TORCH_DTYPES[self.graph.type_of(name).dtype]
                arguments = (self.anchor(), self._numbers[name], dtype)
                self._tensors[name] = self.call(materialise.to_tensor, *arguments, name=f"{name}_tensor")
            elif self.graph.constant(name) is not None:
                return self.made(name) if self.graph.parent else self._constant(name)
            else:
                raise GraphNotLowerable("", "", f"no node of the graph computes {name!r}")
        return self._tensors[name]

    def made(self, name: str) -> fx.Node:
        """A value as a tensor that is computed: a constant of one element that no training changes is made anew.

        Inductor takes no such constants into the body of a loop.
        """
        constant = self.graph.constant(name)
        if constant is None or elements(constant) > 1 or not is_small(self.graph, name) or self.weights.names(name):
            return self.tensor(name) if constant is None else self._constant(name)
        value = (self.anchor(), self.literal(name), TORCH_DTYPES[constant.data_type])
        return self.call(materialise.to_tensor, *value, name=name)

    def number(self, name: str) -> Any:
        """A value as Python numbers: a literal, or the call that computes it."""
        if name not in self._numbers:
            constant = self.graph.constant(name)
            if constant is not None:
                self._numbers[name] = _plain(constant)
            else:
                self._numbers[name] = self.call(materialise.to_host, self.tensor(name), name=f"{name}_numbers")
        return self._numbers[name]

    def literal(self, name: str) -> Any:
        """A constant as Python numbers; None if it is no constant."""
        constant = self.graph.constant(name)
        return None if constant is None else _plain(constant)

    def _constant(self, name: str) -> fx.Node:
        """Read a constant, which is put into the module on first use."""
        if name not in self._places:
            try:
                value = self.weights.take(self.graph, name)
            except KeyError as error:
                raise GraphNotLowerable("", "", f"the element type of constant {name!r} has no form here") from error
            held = self.weights.tensor(name) if value is None else value
            persistent = held.is_floating_point() and held.numel() > 1
            self._places[name] = attach(self.module, path_of(self.weights.label(name)), held, persistent=persistent)
            if persistent:
                self.weights.record(f"{self._prefix}{self._places[name]}", name)
        read = self._code.get_attr(self._places[name])
        if order := self.weights.order(name):
            back = tuple(order.index(axis) for axis in range(len(order)))
            return self.call(torch.permute, read, back, name=name)
        return read


def _identifier(name: str) -> str:
    """A value's name as torch.fx can use it; fx itself makes it unique."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_0123456789") or "value"


def _is_pure(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") not in {"random_normal", "random_uniform"}


def _plain(tensor: onnx.TensorProto) -> Any:
    """A small tensor of the file as a number or a (nested) tuple of numbers."""
    value = numpy_helper.to_array(tensor).tolist()
    return _tuple(value) if isinstance(value, list) else value


def _tuple(value: Any) -> Any:
    return tuple(_tuple(one) for one in value) if isinstance(value, list) else value


def _literal(value: Any) -> Any:
    """An attribute as the code can show it: a tensor of one element becomes a number."""
    if isinstance(value, onnx.TensorProto):
        return to_torch(value).reshape(-1)[0].item()
    return value
