"""The proof that rows may be joined: what each output's row depends on, derived from the ONNX graph alone. Pure.

The claim: for every number of rows, and whatever they hold, row i of each output is a function of row i of the inputs,
and of the sizes of their other axes; the same function however many rows there are. It is about the operators as ONNX
defines them: how a runtime rounds may still differ between sizes, which golden batches and tolerances are for. Inputs
without elements, axes of 10**9 places and integers beyond their type's range are left out.

Each value of the graph is given a description (see `converter.rows.values`) by the rule of the operator that makes it.
Without a rule, or where a rule does not hold, nothing is claimed of what depends on that value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from converter.rows import computing, pointwise, selecting, sequences, shaping
from converter.rows.dimensions import ROWS, Number, Unproved, symbol
from converter.rows.nodes import RULES, Inputs, Node
from converter.rows.values import MAX_CONTENT, Value, constant, in_rows, refuse_rows, same

_RULE_MODULES: Final = (computing, pointwise, selecting, sequences, shaping)  # they enter themselves in RULES
_OLDEST_OPSET: Final = 13  # the rules are those of this and later versions of the operators
_NEWEST_OPSET: Final = 25
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_STANDARD: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A value of which nothing is claimed, and the first reason for that."""

    reason: str


_Known = Value | _Unknown
_Scope = dict[str, _Known]


def why_not_apart(model: onnx.ModelProto) -> str:
    """What keeps the rows of a model from being proved independent; empty if they are.

    Args:
        model: Large initializers need not be loaded.
    """
    versions = [each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}]
    if not versions or not _OLDEST_OPSET <= versions[0] <= _NEWEST_OPSET:
        return f"operators of opset {versions} are not analysed"
    if model.functions:
        return "models with functions of their own are not analysed"
    try:
        scope = _inputs(model.graph)
    except Unproved as error:
        return str(error)
    found = _Walk().graph(model.graph, scope, "")
    for port, value in zip(model.graph.output, found, strict=True):
        if isinstance(value, _Unknown):
            return f"output {port.name!r}: {value.reason}"
        if value.axis != 0 or value.dims[0] != ROWS:
            return f"output {port.name!r} is not laid out in the rows of the inputs"
    return ""


def _inputs(graph: onnx.GraphProto) -> _Scope:
    """The inputs, with the rows in their first axes."""
    scope: _Scope = {}
    constants = {tensor.name for tensor in graph.initializer}
    for port in graph.input:
        if port.name in constants:
            raise Unproved(f"input {port.name!r} has a default in the graph")
        tensor = port.type.tensor_type
        dims = tensor.shape.dim
        if not tensor.HasField("shape") or not dims or dims[0].HasField("dim_value"):
            raise Unproved(f"the first dimension of input {port.name!r} is not dynamic")
        rest = [
            Number(d.dim_value) if d.HasField("dim_value") else symbol(f"\0{port.name}\0{i}")
            for i, d in enumerate(dims)
        ]
        scope[port.name] = in_rows([ROWS, *rest[1:]], 0)
    return scope


class _Walk:
    """One pass over a model. Graphs within it get scopes of their own, so that names are not taken for one another."""

    def graph(self, graph: onnx.GraphProto, scope: _Scope, path: str) -> list[_Known]:
        """What is known of a graph's outputs, given its inputs and what it sees of the graphs around it."""
        scope = dict(scope)
        for tensor in graph.initializer:
            scope[tensor.name] = _initializer(tensor)
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = same([Number(size) for size in sparse.dims])
        for proto in graph.node:
            names = [name for name in proto.output if name]
            found = self._node(proto, scope, path)
            for name, value in zip(proto.output, found, strict=False):
                scope[name] = value
            missing = _Unknown(f"{_words(proto)}: its outputs are not all described")
            scope |= {name: missing for name in names if name not in scope}
        return [scope[port.name] for port in graph.output]

    def _node(self, proto: onnx.NodeProto, scope: _Scope, path: str) -> list[_Known]:
        inputs: list[Value | None] = []
        for name in proto.input:
            value = scope[name] if name else None
            if isinstance(value, _Unknown):
                return [value] * len(proto.output)
            inputs.append(value)
        node = Node.of(proto, path)
        try:
            if node.operator == "Loop":
                return list(self._loop(node, inputs, scope))
            if node.operator == "If":
                return list(self._if(node, inputs, scope))
            return list(_described(node, inputs))
        except Unproved as error:
            return [_Unknown(f"{_words(proto)}: {error}")] * len(proto.output)
        except (IndexError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
            # A graph that contradicts the operator's definition: no runtime computes it either.
            return [_Unknown(f"{_words(proto)}: it is not as its operator demands ({error})")] * len(proto.output)

    def _if(self, node: Node, inputs: Inputs, scope: _Scope) -> list[_Known]:
        """One branch or the other, by a condition that all rows share."""
        refuse_rows(*inputs)
        path = f"{node.scope}{node.proto.output[0]}\0"
        branches = [
            self.graph(node.attributes[name], scope, f"{path}{name}\0") for name in ("then_branch", "else_branch")
        ]
        return [_either(one, other, f"{path}{index}") for index, (one, other) in enumerate(zip(*branches, strict=True))]

    def _loop(self, node: Node, inputs: Inputs, scope: _Scope) -> list[_Known]:
        """Repeats a graph as often as all rows want it; what is carried is described by what holds for each turn."""
        refuse_rows(*inputs[:2])
        body, path = node.attributes["body"], f"{node.scope}{node.proto.output[0]}\0"
        carried: list[_Known] = [_present(value) for value in inputs[2:]]
        names = [port.name for port in body.input]
        while True:
            turn: _Scope = dict(zip(names, [same([]), same([]), *carried], strict=True))
            condition, *found = self.graph(body, scope | turn, path)
            if isinstance(condition, _Unknown):
                return [condition] * node.outputs
            refuse_rows(condition)
            after = [
                _either(one, other, f"{path}{index}")
                for index, (one, other) in enumerate(zip(carried, found[: len(carried)], strict=True))
            ]
            if all(_alike(one, other) for one, other in zip(carried, after, strict=True)):
                break
            carried = after
        return [*carried, *(_stacked(value, node.unknown("turns")) for value in found[len(carried) :])]


def _present(value: Value | None) -> Value:
    if value is None:
        raise Unproved("a value that is carried has no beginning")
    return value


def _stacked(value: _Known, turns: Number) -> _Known:
    """The values of all turns along a new first axis."""
    if isinstance(value, _Unknown) or value.shape is None:
        return value
    if value.has_sizes:
        return _Unknown("the number of rows is collected over a loop")
    return Value((turns, *value.shape), None if value.axis is None else value.axis + 1)


def _either(one: _Known, other: _Known, path: str) -> _Known:
    """What holds for both of two values."""
    if isinstance(one, _Unknown) or isinstance(other, _Unknown):
        return one if isinstance(one, _Unknown) else other
    equal = _content(one) == _content(other)
    if not equal and (one.has_sizes or other.has_sizes):
        return _Unknown("a number that depends on how many rows there are changes")
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        alike = one.axis is None and other.axis is None
        return same(None) if alike else _Unknown("rows are laid out in different ways")
    if one.axis != other.axis or (one.axis is not None and one.dims[one.axis] != other.dims[one.axis]):
        return _Unknown("rows are laid out in different ways")
    sizes = [
        a if a == b else symbol(f"{path}\0\0{axis}")
        for axis, (a, b) in enumerate(zip(one.dims, other.dims, strict=True))
    ]
    return Value(tuple(sizes), one.axis, one.content if equal else None)


def _content(value: Value) -> list[Number] | None:
    return None if value.content is None else value.numbers


def _alike(one: _Known, other: _Known) -> bool:
    if isinstance(one, _Unknown) or isinstance(other, _Unknown):
        return isinstance(one, _Unknown) and isinstance(other, _Unknown)
    return (one.shape, one.axis, _content(one)) == (other.shape, other.axis, _content(other))


def _described(node: Node, inputs: Inputs) -> list[Value]:
    if node.operator == "Constant":
        return [_constant(node.attributes)]
    if node.operator in RULES:
        return RULES[node.operator](node, inputs)
    if node.proto.domain not in _STANDARD or node.operator in _RANDOM or "seed" in node.attributes:
        raise Unproved("the operator is not analysed")
    if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
        raise Unproved("the operator is not analysed")
    if any(value is not None and (value.axis is not None or value.has_sizes) for value in inputs):
        raise Unproved("the operator is not analysed")
    return [same(None)] * node.outputs


def _constant(attributes: Mapping[str, object]) -> Value:
    value = attributes.get("value")
    if isinstance(value, onnx.TensorProto):
        return _initializer(value)
    for name in ("value_int", "value_ints"):
        if name in attributes:
            return constant(np.array(attributes[name], np.int64))
    return same(None)


def _initializer(tensor: onnx.TensorProto) -> Value:
    elements = 1
    for size in tensor.dims:
        elements *= size
    if elements > MAX_CONTENT or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return same([Number(size) for size in tensor.dims])
    return constant(numpy_helper.to_array(tensor))


def _words(proto: onnx.NodeProto) -> str:
    return f"{proto.op_type} {proto.name!r}" if proto.name else proto.op_type
