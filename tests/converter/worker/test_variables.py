"""`variables`: initializers are matched with variables exactly, by value and then by name."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converter.worker.variables import Variable, map_initializers

_RNG = np.random.default_rng(3)


def _model(**initializers: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], tensors))


def _mapped(model: onnx.ModelProto, *variables: Variable) -> dict[str, tuple[list[str], list[int], bool]]:
    entries, _ = map_initializers([model], [variables])
    return {
        entry["initializer"]: ([v["name"] for v in entry["variables"]], entry["transposition"], entry["reshaped"])
        for entry in entries
    }


@pytest.mark.parametrize(
    ("made", "order", "reshaped"),
    [
        (lambda value: value, [], False),
        (lambda value: value.transpose(3, 2, 0, 1), [3, 2, 0, 1], False),
        (lambda value: value.reshape(12, 20), [], True),
        (lambda value: value.transpose(3, 2, 0, 1)[:, :, None], [3, 2, 0, 1], True),
        (lambda value: value.transpose(1, 3, 0, 2).reshape(16, 15), [1, 3, 0, 2], True),
    ],
)
def test_layouts(made: object, order: list[int], reshaped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Permuted axes, merged and added ones are recognised and described."""
    assert callable(made)
    value = _RNG.standard_normal((3, 4, 5, 4)).astype(np.float32)
    assert _mapped(_model(w=made(value)), Variable("v", True, value)) == {"w": (["v"], order, reshaped)}  # noqa: FBT003


def test_equality_is_exact() -> None:
    """Another dtype, a changed bit, or the same numbers in another order are no match."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    near = value.copy()
    near[0, 0] = np.nextafter(np.float32(0), np.float32(1))
    shuffled = value[:, [1, 0, 2]].copy()
    model = _model(near=near, wide=value.astype(np.float64), shuffled=shuffled, negative=-value)
    entries, unmapped = map_initializers([model], [[Variable("v", True, value)]])  # noqa: FBT003
    assert not any(entry["variables"] for entry in entries)
    assert unmapped == [{"name": "v", "shape": [2, 3], "trainable": True}]


def test_nan_and_zero_signs() -> None:
    """Bits are compared: NaN matches itself, and -0 does not match 0."""
    value = np.array([np.nan, 0.0, 1.0], np.float32)
    mapped = _mapped(_model(same=value, other=np.array([np.nan, -0.0, 1.0], np.float32)), Variable("v", True, value))  # noqa: FBT003
    assert mapped["same"][0] == ["v"]
    assert mapped["other"][0] == []


def test_names_tell_equals_apart() -> None:
    """Equal values are told apart by words of the names; one whose own initializer was merged away joins its equal."""
    value = np.array([1.0, 2.0], np.float32)
    variables = [Variable(f"layer_{number}/bias", True, value) for number in range(3)]  # noqa: FBT003
    names = {"m/layer_0/Add/ReadVariableOp:0": value, "m/layer_1/Add/ReadVariableOp:0": value}
    mapped = _mapped(_model(**names), *variables)
    assert mapped["m/layer_0/Add/ReadVariableOp:0"][0] == ["layer_0/bias", "layer_2/bias"]
    assert mapped["m/layer_1/Add/ReadVariableOp:0"][0] == ["layer_1/bias", "layer_2/bias"]


def test_chance_equality_is_no_match() -> None:
    """A constant that only happens to have a variable's one value is not that variable; its ReadVariableOp is."""
    one = Variable("scale", True, np.array(1.0, np.float32))  # noqa: FBT003
    mapped = _mapped(_model(**{"epsilon": one.value, "m/x/ReadVariableOp:0": one.value}), one)
    assert mapped["epsilon"][0] == []
    assert mapped["m/x/ReadVariableOp:0"][0] == ["scale"]


def test_each_model_has_its_own_variables() -> None:
    """A variable counts as unmapped only if no model holds it."""
    first, second = (np.array([number, 2.0], np.float32) for number in (1.0, 5.0))
    a, b = Variable("a", True, first), Variable("b", False, second)  # noqa: FBT003
    entries, unmapped = map_initializers([_model(x=first), _model(y=first)], [[a], [a, b]])
    assert [(entry["onnx"], entry["initializer"]) for entry in entries] == [(0, "x"), (1, "y")]
    assert unmapped == [{"name": "b", "shape": [2], "trainable": False}]
