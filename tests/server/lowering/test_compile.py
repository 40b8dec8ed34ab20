"""Tests of what happens around torch's compiler: open sizes, rules, precisions and the check of the result."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch

from server.backends.sizes import SizeRule
from server.lowering import lower
from server.lowering.exporting import Exported, NotExportable, export
from server.lowering.ports import describe
from server.lowering.precision import AtPrecision
from server.lowering.verify import Differs, _require_close, without_ones
from tests.server.lowering.graphs import model, numbers, whole


def exported(proto: onnx.ModelProto, precision: str = "fp32") -> tuple[Exported, dict[str, object]]:
    """A graph, traced, and its ports."""
    module = lower(proto)
    with torch.no_grad():
        found = export(AtPrecision(module, precision, "cpu"), module.inputs, "cpu")
    return found, describe(module.inputs, module.outputs, found)


def test_sizes_stay_open_and_ports_are_described() -> None:
    """Fixed sizes are written down, open ones are not; axes of equal names are of one size."""
    found, ports = exported(
        model("g (float[n,3] x, int64[n] i) => (float[n,3] y, int64[n] j) { y = Relu(x) j = Abs(i) }")
    )
    assert ports["inputs"] == [
        {"name": "x", "dtype": "float32", "dims": [None, 3]},
        {"name": "i", "dtype": "int64", "dims": [None]},
    ]
    assert ports["outputs"] == [
        {"name": "y", "dtype": "float32", "rank": 2},
        {"name": "j", "dtype": "int64", "rank": 1},
    ]
    assert ports["rules"] == []
    assert found.inputs[0].shape[0] == found.inputs[1].shape[0]
    assert [tuple(value.shape) for value in found.graph(torch.ones(9, 3), torch.ones(9, dtype=torch.int64))] == [
        (9, 3),
        (9,),
    ]


def test_axes_that_must_be_equal_are_found() -> None:
    """An exporter gave them different names; the rule lets no call pass in which they differ."""
    _, ports = exported(model("g (float[n,3] x, float[m,3] y) => (float[k,3] z) { z = Add(x, y) }"))
    rules = [SizeRule(text) for text in ports["rules"]]  # type: ignore[attr-defined] # a list
    assert all(rule.holds([(4, 3), (4, 3)]) for rule in rules)
    assert not all(rule.holds([(4, 3), (1, 3)]) for rule in rules)


def test_sizes_that_must_be_multiples_are_found() -> None:
    """Torch notes what it assumed, and so do we."""
    _, ports = exported(model("g (float[n] x) => (float[k,4] y) { y = Reshape(x, s) }", s=whole([-1, 4])))
    rules = [SizeRule(text) for text in ports["rules"]]  # type: ignore[attr-defined] # a list
    assert rules
    assert [all(rule.holds([(size,)]) for rule in rules) for size in (8, 9, 12)] == [True, False, True]


def test_what_has_no_rank_is_refused() -> None:
    """Nothing could be checked at a call."""
    with pytest.raises(NotExportable, match="input 'x' has no rank"):
        exported(model("g (float[] x) => (float[] y) { y = Relu(x) }"))


def test_the_last_step_of_a_series_is_taken_whatever_its_length() -> None:
    """Keras's way to end a recurrent layer: a slice from the last step to "the end", squeezed."""
    found, ports = exported(
        model(
            "g (float[t,n,3] x) => (float[n,3] y) { s = Slice(x, last, end, zero) y = Squeeze(s, zero) }",
            last=whole([-1]), end=whole([2**31 - 1]), zero=whole([0]),
        )
    )  # fmt: skip
    assert ports["outputs"] == [{"name": "y", "dtype": "float32", "rank": 2}]
    x = torch.from_numpy(numbers(9, 4, 3))
    assert torch.equal(found.graph(x)[0], x[-1])


def test_an_output_of_another_rank_is_refused() -> None:
    """Squeeze takes an axis of size one away, which a graph with open sizes cannot."""
    with pytest.raises(NotExportable, match="output 'y' would have rank 2"):
        exported(model("g (float[n,3] x) => (float[k] y) { y = Squeeze(x) }"))


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("fp32", 0, 1e-6), ("bf16", 1e-5, 0.05), ("fp16", 1e-6, 0.01)]
)
def test_precisions_keep_the_ports_dtypes(precision: str, least: float, most: float) -> None:
    """Lower precision is seen in the numbers and nowhere else."""
    proto = model("g (float[n,64] x) => (float[n,8] y) { m = MatMul(x, w) y = Tanh(m) }", w=numbers(64, 8) / 8)
    found, ports = exported(proto, precision)
    x = torch.from_numpy(numbers(20, 64, seed=1))
    with torch.no_grad():
        (got,), (want,) = found.graph(x), lower(proto)(x)
    assert got.dtype == torch.float32
    assert ports["outputs"] == [{"name": "y", "dtype": "float32", "rank": 2}]
    assert least <= float((got - want).abs().max()) <= most


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.array([1, 2.1, 3], np.float32), "output 0 differs by 0.1"),
        (np.array([1, np.nan, 3], np.float32), "other infinities"),
        (np.array([[1, 2, 3]], np.float32), r"float32\(1, 3\) instead of float32\(3,\)"),
        (np.array([1, 2, 3], np.float64), "float64"),
    ],
)
def test_wrong_code_is_found(wrong: np.ndarray[tuple[int, ...], np.dtype[np.float32]], text: str) -> None:
    """Other numbers, other shapes, other dtypes; not a rounding."""
    right = np.array([1, 2, 3], np.float32)
    _require_close(right * np.float32(1.0001), right, 1e-3, "output 0")
    with pytest.raises(Differs, match=text):
        _require_close(wrong, right, 1e-3, "output 0")


def test_sizes_of_one_are_allowed_where_they_were_seen_to_work() -> None:
    """Each alone and all together; rules about anything else stay."""
    rules = ["d[0][0] != 1", "d[0][0] % 4 == 0", "d[0][1] > 1", "d[1][0] >= 2"]
    inputs = [torch.ones(5, 6, 3), torch.ones(5)]
    shapes: list[list[int | str]] = [["n", "t", 3], ["n"]]
    seen: list[list[tuple[int, ...]]] = []

    def all_right(smaller: Sequence[torch.Tensor]) -> None:
        seen.append([tuple(tensor.shape) for tensor in smaller])

    def batches_right(smaller: Sequence[torch.Tensor]) -> None:
        if smaller[0].shape[1] == 1:
            raise Differs("wrong")

    def not_together(smaller: Sequence[torch.Tensor]) -> None:
        if tuple(smaller[0].shape) == (1, 1, 3):
            raise Differs("wrong")

    def nothing_right(_: Sequence[torch.Tensor]) -> None:
        raise RuntimeError("the module does not take this")

    assert without_ones(rules, all_right, inputs, shapes) == ["d[0][0] % 4 == 0"]
    assert seen == [[(1, 6, 3), (1,)], [(5, 1, 3), (5,)], [(1, 1, 3), (1,)]]
    assert without_ones(rules, batches_right, inputs, shapes) == ["d[0][0] % 4 == 0", "d[0][1] > 1"]
    assert without_ones(rules, not_together, inputs, shapes) == ["d[0][0] % 4 == 0", "d[0][1] > 1"]
    assert without_ones(rules, nothing_right, inputs, shapes) == rules
