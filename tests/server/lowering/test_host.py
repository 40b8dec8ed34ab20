"""Tests of `server.lowering.host` and `server.lowering.values`: shapes are Python numbers."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from server.lowering.graph import read_graph
from server.lowering.host import HOST
from server.lowering.operators import OPERATORS
from server.lowering.values import host_values
from tests.server.lowering.graphs import Array, model, real, whole

_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
_NUMBERS = st.integers(-40, 40)


def reference(operator: str, *values: object, **attributes: Any) -> object:
    """What ONNX's reference implementation makes of numbers."""
    names = [f"i{index}" for index in range(len(values))]
    arrays = [np.array(value, np.int64) for value in values]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    node = onnx.helper.make_node(operator, names, ["y"], **attributes)
    graph = onnx.helper.make_graph([node], "g", inputs, [output])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    (answer,) = ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))
    return np.asarray(answer).tolist()


@pytest.mark.parametrize("operator", _BINARY)
@given(one=st.lists(_NUMBERS, min_size=1, max_size=4), other=st.lists(_NUMBERS, min_size=1, max_size=4))
def test_arithmetic_on_shapes_is_onnxs(operator: str, one: list[int], other: list[int]) -> None:
    """Division rounds towards zero, single numbers go with every element: as on tensors."""
    if len(one) != len(other):
        one = one[:1]
    if operator == "Div":
        other = [number or 1 for number in other]
    assert list(HOST[operator](tuple(one), tuple(other))) == reference(operator, one, other)


@given(numbers=st.lists(_NUMBERS, min_size=1, max_size=5), data=st.data())
def test_picking_from_shapes_is_onnxs(numbers: list[int], data: st.DataObject) -> None:
    """Gather, Slice and Concat, with positions counted from either end."""
    place = data.draw(st.integers(-len(numbers), len(numbers) - 1))
    start, end = data.draw(st.integers(-7, 7)), data.draw(st.integers(-7, 7))
    assert HOST["Gather"](tuple(numbers), place) == reference("Gather", numbers, place)
    assert list(HOST["Gather"](tuple(numbers), (place,))) == reference("Gather", numbers, [place])
    assert list(HOST["Slice"](tuple(numbers), (start,), (end,))) == reference("Slice", numbers, [start], [end])
    assert list(HOST["Concat"](tuple(numbers), (3,), axis=0)) == reference("Concat", numbers, [3], axis=0)


def test_ratios_of_sizes_are_single_precision() -> None:
    """0.7 as the model has it times 10 is 7, and 6 would be another size."""
    seven_tenths = float(np.float32(0.7))
    assert HOST["Floor"](HOST["Mul"](HOST["Cast"](10, to=1), seven_tenths)) == np.floor(real(0.7) * real(10))


def found(text: str, **constants: Array) -> frozenset[str]:
    """The values of a graph that are shapes."""
    return host_values(read_graph(model(text, **constants)), OPERATORS)


def test_values_that_follow_from_shapes_are_numbers() -> None:
    """From Shape on, through arithmetic, until data come in."""
    graph = """g (float[n,m] x, int64[1] k) => (float[r] y) {
        s = Shape(x) p = ReduceProd<keepdims=1>(s) q = Add(p, k) y = Reshape(x, p) }"""
    assert found(graph) == {"s", "p"}


def test_real_numbers_are_tensors_unless_a_shape_is_made_of_them() -> None:
    """A mean divides by a number of elements on the device; a size that is scaled is computed on the host."""
    text = """g (float[n,m] x) => (float[n,m] y, float[r] z) {
        s = Size(x) mean = Cast<to=1>(s) y = Div(x, mean)
        t = Size(x) real = Cast<to=1>(t) half = Mul(real, h) whole = Cast<to=7>(half) one = Unsqueeze(whole, axes)
        z = ConstantOfShape(one) }"""
    assert found(text, h=real(0.5), axes=whole([0])) == {"s", "t", "real", "half", "whole", "one"}


def test_a_list_of_unknown_length_is_a_tensor() -> None:
    """A range over time is data, not a shape."""
    graph = """g (float[n,m] x) => (int64[r] y) {
        s = Shape(x) m = Gather(s, one) y = Range(zero, m, one) }"""
    assert found(graph, zero=whole(0), one=whole(1)) == {"s", "m"}


def test_an_attribute_that_the_host_does_not_know_keeps_a_value_on_the_device() -> None:
    """C's remainder is not Python's below zero."""
    graph = "g (float[n,m] x) => (int64[2] y, int64[2] z) {{ s = Shape(x) y = Mod{}(s, k) z = Identity(y) }}"
    assert "y" in found(graph.format(""), k=whole([3, 3]))
    assert "y" not in found(graph.format("<fmod=1>"), k=whole([3, 3]))
