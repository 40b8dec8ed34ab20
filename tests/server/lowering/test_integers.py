"""Tests of whole numbers: every operator on every integer type is right, or refused while lowering."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from server.errors import GraphNotLowerable
from server.lowering import lower
from tests.server.lowering.graphs import Array, run, whole

_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_BINARY = (
    "Add", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Max", "Min", "Mod", "Mul", "PRelu", "Sub", "Sum",
)  # fmt: skip
_UNARY = (
    "Abs", "BitwiseNot", "Identity", "Neg", "NonZero", "ReduceL1", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Sign", "Size", "Transpose", "Trilu",
)  # fmt: skip
Question = tuple[str, dict[str, Any], list[Array]]


def numbers(dtype: str, *shape: int, seed: int = 0) -> Array:
    """Small numbers and the largest and smallest that there are, at places that the seed decides."""
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    array = rng.integers(0 if info.min == 0 else -6, 7, shape).astype(dtype)
    places = rng.permutation(array.size)
    for place, value in zip(places, (info.max, info.max - 3, info.max // 2 + 2, info.min), strict=False):
        array.reshape(-1)[place] = value
    return array


def questions(dtype: str) -> Iterator[Question]:
    """Nodes, and what they are given."""
    x, y = numbers(dtype, 2, 3), numbers(dtype, 2, 3, seed=1)
    divisor = np.where(y == 0, np.array(1, dtype), y)
    for operator in _BINARY:
        yield operator, {}, [x, divisor if operator in {"Div", "Mod"} else y]
    yield "Mod", {"fmod": 1}, [x, divisor]
    for operator in _UNARY:
        yield operator, {}, [x]
    for operator in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"):
        yield operator, {"keepdims": 0}, [x, whole([1])]
    for operator in ("ArgMax", "ArgMin"):
        yield operator, {"axis": 1}, [x]
    yield "Clip", {}, [x, np.array(2, dtype), np.array(5, dtype)]
    yield "MatMul", {}, [x, np.ascontiguousarray(y.T)]
    yield "CumSum", {}, [x, np.array(1)]
    yield "CumSum", {"reverse": 1, "exclusive": 1}, [x, np.array(1)]
    yield "TopK", {}, [x, whole([2])]
    for reduction in ("none", "add", "mul", "max", "min"):
        yield "ScatterElements", {"axis": 1, "reduction": reduction}, [x, whole([[0], [1]]), y[:, :1]]
        yield "ScatterND", {"reduction": reduction}, [x, whole([[1]]), y[:1]]
    yield "Gather", {"axis": 1}, [x, whole([0, -1])]
    yield "GatherElements", {"axis": 1}, [x, whole([[0], [-1]])]
    yield "GatherND", {}, [x, whole([[0, 1], [1, 2]])]
    yield "Where", {}, [np.array([[True, False, True]]), x, y]
    yield "Concat", {"axis": 0}, [x, y]
    yield "Slice", {}, [x, whole([2]), whole([-9]), whole([1]), whole([-1])]
    yield "Pad", {"mode": "reflect"}, [x, whole([0, 1, 0, 1])]
    yield "Tile", {}, [x, whole([2, 1])]
    yield "BitShift", {"direction": "LEFT"}, [x, np.abs(numbers("int8", 2, 3) % 5).astype(dtype)]
    yield "BitShift", {"direction": "RIGHT"}, [x, np.abs(numbers("int8", 2, 3) % 5).astype(dtype)]
    yield "Compress", {"axis": 1}, [x, np.array([True, False, True])]


def graph(operator: str, attributes: dict[str, Any], inputs: list[Array]) -> onnx.ModelProto | None:
    """A model of one node; None where the standard does not know it for these types."""
    names = [f"i{index}" for index in range(len(inputs))]
    outputs = ["y", "places"] if operator == "TopK" else ["y"]
    node = helper.make_node(operator, names, outputs, **attributes)
    given = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [f"{name}_{n}" for n in range(array.ndim)]
        )
        for name, array in zip(names, inputs, strict=True)
    ]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    model = helper.make_model(
        helper.make_graph([node], "g", given, made), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    try:
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return model


@pytest.mark.parametrize("dtype", _TYPES)
def test_every_operator_is_right_or_refused(dtype: str) -> None:
    """At both ends of the type, where numbers wrap around; nothing fails only when it runs."""
    refused, seen, wrong = set(), 0, []
    for operator, attributes, inputs in questions(dtype):
        model = graph(operator, attributes, inputs)
        if model is None:
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            wanted = expected(model, operator, attributes, inputs)
        try:
            module = lower(model)
        except GraphNotLowerable:
            refused.add((operator, attributes.get("reduction", "")))
            continue
        seen += 1
        for got, want in zip(run(module, *inputs), wanted, strict=True):
            if got.dtype != want.dtype or not np.array_equal(got, want):
                wrong.append((operator, attributes, got.tolist(), want.tolist()))
    assert not wrong
    assert seen > 15
    most = {
        ("PRelu", ""),
        ("Sign", ""),
        *((f"Scatter{kind}", how) for kind in ("ND", "Elements") for how in ("max", "min")),
    }
    assert refused == (most if dtype == "uint64" else set())


def expected(model: onnx.ModelProto, operator: str, attributes: dict[str, Any], inputs: list[Array]) -> list[Array]:
    """What the standard says: its reference implementation, or numpy where that one computes in other types."""
    x, *others = inputs
    axis = tuple(others[0].tolist()) if operator.startswith("Reduce") and others else None
    keep = bool(attributes.get("keepdims", 1))
    exact: dict[str, Any] = {
        "Div": lambda: divided(x, others[0]),
        "Mod": lambda: np.fmod(x, others[0]) if attributes.get("fmod") else np.mod(x, others[0]),
        "ReduceL1": lambda: np.abs(x).sum(axis, x.dtype, keepdims=keep),
        "ReduceSumSquare": lambda: np.square(x).sum(axis, x.dtype, keepdims=keep),
        "ReduceSum": lambda: x.sum(axis, x.dtype, keepdims=keep),
        "ReduceProd": lambda: x.prod(axis, x.dtype, keepdims=keep),
        "PRelu": lambda: np.where(x < 0, x * others[0], x),
        "Sum": lambda: x + others[0],
    }
    if operator in exact:
        return [np.asarray(exact[operator]())]
    answers: Any = ReferenceEvaluator(model).run(None, {f"i{index}": array for index, array in enumerate(inputs)})
    return [np.asarray(answer) for answer in answers]


def divided(one: Array, other: Array) -> Array:
    """Quotients rounded towards zero, by Python's own numbers."""
    pairs = zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)
    quotients = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs]
    return np.array([q % 2**64 if one.dtype.kind == "u" else q for q in quotients], one.dtype).reshape(one.shape)


@pytest.mark.parametrize("operator", ["ReduceLogSum", "ReduceLogSumExp"])
def test_logarithms_of_whole_numbers_are_refused(operator: str) -> None:
    """Runtimes do not agree on what they are."""
    model = graph(operator, {}, [numbers("int32", 2, 3)])
    assert model is not None
    with pytest.raises(GraphNotLowerable, match="whole numbers"):
        lower(model)
