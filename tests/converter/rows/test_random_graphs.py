"""Random graphs: whatever is proved of them is so when they are computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from converter.rows.proof import why_not_apart
from server.arrays import Array

BATCHES = (4, 3)


class Nonsense(Exception):
    """An operation that does not fit its inputs."""


def _input(rows: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, 2, 3)).astype(np.float32)


@dataclass
class Builder:
    """A graph under construction: float tensors to go on with, the nodes, and what all are for two sizes of batches."""

    draw: Callable[..., int]
    values: dict[str, list[Array]] = field(default_factory=lambda: {"x": [_input(rows, 0) for rows in BATCHES]})
    names: list[str] = field(default_factory=lambda: ["x"])
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def pick(self, count: int) -> int:
        """A number below."""
        return self.draw(st.integers(0, count - 1))

    def value(self) -> str:
        """A tensor made before, most often the last."""
        return self.names[-1] if self.pick(3) else self.names[self.pick(len(self.names))]

    def constant(self, array: Array) -> str:
        """An initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        self.values[name] = [array] * len(BATCHES)
        return name

    def numbers(self, *items: int) -> str:
        """An initializer of integers."""
        return self.constant(np.array(items, np.int64))

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; returns its first output."""
        names = [f"n{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, names, **attributes)
        evaluator: Any = ReferenceEvaluator(node, opsets={"": 18})
        try:
            for index in range(len(BATCHES)):
                answers = evaluator.run(None, {name: self.values[name][index] for name in inputs})
                for name, answer in zip(names, answers, strict=True):
                    self.values.setdefault(name, []).append(np.asarray(answer))
        except Exception as error:
            for name in names:
                self.values.pop(name, None)
            raise Nonsense from error
        self.nodes.append(node)
        return names[0]

    def size(self, axis: int) -> str:
        """The size of an axis of a tensor, as a vector of one."""
        return self.node("Gather", self.node("Shape", self.value()), self.numbers(axis), axis=0)


def _shape(b: Builder) -> str:
    """A shape for Reshape or Expand: constant, or computed from sizes."""
    fixed = [(0, -1), (-1, 6), (-1, 3), (0, 0, -1), (2, -1, 3), (-1,), (0, 3, 2), (-1, 1, 2, 3), (3, -1), (0, 1, -1)]
    if b.pick(2):
        return b.numbers(*fixed[b.pick(len(fixed))])
    parts = [b.size(0), b.numbers(-1)] if b.pick(2) else [b.size(0), b.size(1), b.numbers((-1, 2, 3)[b.pick(3)])]
    if b.pick(3) == 0:
        parts.reverse()
    return b.node("Concat", *parts, axis=0)


def _weights(b: Builder) -> str:
    shapes = [(3, 3), (2, 2), (6, 6), (3, 2), (1, 3), (3,), (1, 1, 1), (2, 1), (1, 2, 3), (2, 6)]
    shape = shapes[b.pick(len(shapes))]
    return b.constant(np.random.default_rng(len(b.constants)).standard_normal(shape).astype(np.float32))


def _grow(b: Builder) -> str:  # noqa: PLR0911, PLR0912, C901 - one line for each kind of node
    """One more operation, which need not make sense."""
    axis, kind = b.pick(4) - 1, b.pick(22)
    match kind:
        case 0:
            return b.node("Relu", b.value())
        case 1:
            return b.node("Softmax", b.value(), axis=axis)
        case 2:
            return b.node("ReduceMean", b.value(), b.numbers(axis), keepdims=b.pick(2))
        case 3:
            orders = [(1, 0), (1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 1), (0, 2, 1, 3)]
            return b.node("Transpose", b.value(), perm=orders[b.pick(len(orders))])
        case 4 | 5 | 6:
            return b.node("Reshape", b.value(), _shape(b))
        case 7:
            return b.node("MatMul", b.value(), _weights(b))
        case 8:
            return b.node("MatMul", b.value(), b.value())
        case 9:
            return b.node(("Add", "Mul", "Sub", "Max")[b.pick(4)], b.value(), b.value())
        case 10:
            return b.node("Add", b.value(), _weights(b))
        case 11:
            return b.node("Concat", b.value(), b.value(), axis=axis)
        case 12:
            bounds = [b.numbers(b.pick(3) - 1), b.numbers((1, 2, 2**31 - 1, -1)[b.pick(4)])]
            return b.node("Slice", b.value(), *bounds, b.numbers(axis))
        case 13:
            return b.node("Gather", b.value(), b.numbers(*[b.pick(2)] * (1 + b.pick(2))), axis=axis)
        case 14:
            return b.node("CumSum", b.value(), b.constant(np.array(axis, np.int64)), reverse=b.pick(2))
        case 15:
            return b.node("Expand", b.value(), _shape(b))
        case 16:
            return b.node(("Unsqueeze", "Squeeze")[b.pick(2)], b.value(), b.numbers(axis))
        case 17:
            times = b.node("Concat", b.size(0), b.numbers(1), b.numbers(1), axis=0) if b.pick(2) else b.numbers(1, 1, 2)
            return b.node("Tile", b.value(), times)
        case 18:
            return b.node("Div", b.value(), b.node("Cast", b.size(b.pick(2)), to=TensorProto.FLOAT))
        case 19:
            return b.node("TopK", b.value(), b.numbers(1 + b.pick(2)), axis=axis, outputs=2)
        case 20:
            most = b.node("ArgMax", b.value(), axis=axis, keepdims=b.pick(2))
            return (
                b.node("GatherElements", b.value(), most, axis=b.pick(3)) if b.pick(2) else b.node("Cast", most, to=1)
            )
        case _:
            means = b.node("ReduceMax", b.value(), b.numbers(axis), keepdims=1)
            return b.node("Where", b.node("Less", b.value(), means), b.value(), means)


@st.composite
def graphs(draw: Callable[..., int]) -> onnx.ModelProto:
    """Some operations on x, [batch, 2, 3], that make sense, and if there is one an output of as many rows."""
    builder = Builder(draw)
    for _ in range(3 + builder.pick(10)):
        there = len(builder.nodes)
        try:
            builder.names.append(_grow(builder))
        except Nonsense:
            del builder.nodes[there:]
    rows = [
        name for name in builder.names[1:] if [v.shape[:1] for v in builder.values[name]] == [(n,) for n in BATCHES]
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 3])
    y = helper.make_tensor_value_info((rows or builder.names)[-1], TensorProto.FLOAT, None)
    graph = helper.make_graph(builder.nodes, "g", [x], [y], builder.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _answers(model: onnx.ModelProto, batches: list[Array]) -> list[Array] | None:
    """The answers, or None if the graph makes no sense. A runtime proper might end the process over such graphs."""
    try:
        evaluator: Any = ReferenceEvaluator(model)
        return [np.asarray(evaluator.run(None, {"x": batch})[0]) for batch in batches]
    except Exception:  # noqa: BLE001 - numpy raises whatever it likes over a graph that makes no sense
        return None


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(0, 5))
def test_what_is_proved_is_so(model: onnx.ModelProto, seed: int) -> None:
    """In a graph that is proved, a row gets beside others, large ones too, what it gets alone."""
    if why_not_apart(model):
        event("not proved")
        return
    x = _input(4, seed)
    x[3] *= 100
    answers = _answers(model, [x[:1], x[1:2], x[2:3], x[3:], x, x[1:3]])
    if answers is None:
        event("proved, but nonsense")
        return
    event("proved and run")
    *alone, all_rows, two = answers
    assert all(len(answer) == 1 for answer in alone)
    np.testing.assert_allclose(all_rows, np.concatenate(alone), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(two, np.concatenate(alone[1:3]), rtol=1e-4, atol=1e-4)
