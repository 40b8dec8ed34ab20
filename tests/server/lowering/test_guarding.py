"""Tests of `server.lowering.guarding`: no request can break what is compiled."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch

from server.arrays import Array
from server.lowering import lower
from server.lowering.exporting import Exported, NotExportable, export
from server.lowering.guarding import guard
from server.lowering.precision import AtPrecision
from tests.server.lowering.graphs import model, numbers, whole

Arrays = Sequence[Array]


def traced(proto: onnx.ModelProto) -> Exported:
    """A graph's traced form."""
    module = lower(proto)
    with torch.no_grad():
        return export(AtPrecision(module, "fp32", "cpu"), module.inputs, "cpu")


def answers(exported: Exported, inputs: Arrays) -> list[Array]:
    """What the traced form answers."""
    return [value.detach().numpy() for value in exported.graph(*(torch.from_numpy(array) for array in inputs))]


def int32(*values: int) -> Array:
    """A vector."""
    return np.array(values, np.int32)


_TABLE = numbers(5, 3)
_CASES: dict[str, tuple[str, dict[str, Array], Arrays, list[Arrays]]] = {
    # Graph, constants, good inputs, bad inputs.
    "rows of a matrix of weights": (
        "g (int64[n] i) => (float[n,3] y) { y = Gather(w, i) }",
        {"w": _TABLE}, [whole([0, -5, 4])], [[whole([0, 5])], [whole([-6, 0])]],
    ),
    "positions of 32 bits": (
        "g (int32[n] i) => (float[n,3] y) { y = Gather(w, i) }",
        {"w": _TABLE}, [int32(0, -5, 4)], [[int32(0, 5)], [int32(-6, 0)], [int32(2**31 - 1, 0)]],
    ),
    "a table of the request": (
        "g (float[n,m] x, int64[k] i) => (float[n,k] y) { y = Gather<axis=1>(x, i) }",
        {}, [_TABLE, whole([0, -3, 2])], [[_TABLE, whole([3, 0])], [_TABLE, whole([-4, 0])]],
    ),
    "one position": (
        "g (float[n,3] x, int64 i) => (float[3] y) { y = Gather(x, i) }",
        {}, [_TABLE, np.array(-5)], [[_TABLE, np.array(5)], [_TABLE, np.array(-6)]],
    ),
    "elements": (
        "g (float[n,3] x, int64[n,2] i) => (float[n,2] y) { y = GatherElements<axis=1>(x, i) }",
        {}, [_TABLE[:2], whole([[0, -3], [2, 1]])], [[_TABLE[:2], whole([[0, 3], [2, 1]])]],
    ),
    "places": (
        "g (float[n,3] x, int64[k,2] i) => (float[k] y) { y = GatherND(x, i) }",
        {}, [_TABLE, whole([[0, -3], [-5, 2]])], [[_TABLE, whole([[5, 0]])], [_TABLE, whole([[0, -4]])]],
    ),
    "writing elements": (
        "g (float[n,3] x, int64[2,2] i) => (float[n,3] y) { y = ScatterElements<axis=1, reduction=\"add\">(x, i, u) }",
        {"u": _TABLE[:2, :2]}, [_TABLE[:2], whole([[0, -3], [2, 1]])], [[_TABLE[:2], whole([[0, 3], [2, 1]])]],
    ),
    "writing places": (
        "g (float[n,3] x, int64[2,1] i) => (float[n,3] y) { y = ScatterND(x, i, u) }",
        {"u": _TABLE[:2]}, [_TABLE, whole([[0], [-5]])], [[_TABLE, whole([[0], [5]])]],
    ),
    "maxima at places": (
        "g (float[n,3] x, int64[2,1] i) => (float[n,3] y) { y = ScatterND<reduction=\"max\">(x, i, u) }",
        {"u": _TABLE[:2]}, [_TABLE, whole([[0], [-5]])], [[_TABLE, whole([[0], [5]])]],
    ),
    "lengths beyond the end": (
        "g (float[n,3] x, int64[3] i) => (float[n,3] y) { y = ReverseSequence<time_axis=0, batch_axis=1>(x, i) }",
        {}, [_TABLE, whole([1, 5, 0])], [[_TABLE, whole([1, 6, 0])]],
    ),
    "quotients": (
        "g (int32[n] a, int32[n] b) => (int32[n] q) { q = Div(a, b) }",
        {}, [int32(7, -7, 0), int32(2, 2, -1)], [[int32(7, 0), int32(1, 0)]],
    ),
    "quotients of large numbers": (
        "g (uint64[n] a, uint64[n] b) => (uint64[n] q) { q = Div(a, b) }",
        {}, [np.array([2**63 + 1, 7], np.uint64), np.array([2, 2**63], np.uint64)],
        [[np.array([7], np.uint64), np.array([0], np.uint64)]],
    ),
    "remainders": (
        "g (int64[n] a, int64[n] b) => (int64[n] q) { q = Mod(a, b) }",
        {}, [whole([7, -7, 0]), whole([2, 2, -1])], [[whole([7, 0]), whole([1, 0])]],
    ),
    "remainders with the dividend's sign": (
        "g (int16[n] a, int16[n] b) => (int16[n] q) { q = Mod<fmod=1>(a, b) }",
        {}, [np.array([7, -7], np.int16), np.array([2, 2], np.int16)],
        [[np.array([7], np.int16), np.array([0], np.int16)]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES)
def test_what_a_request_may_break_is_told(case: str) -> None:
    """Good inputs are answered as before, and of bad ones it is said, where nothing is thrown."""
    text, constants, good, bad = _CASES[case]
    proto = model(text, **constants)
    before, exported = traced(proto), traced(proto)
    assert guard(exported)
    (want,), (got, fault) = answers(before, good), answers(exported, good)
    np.testing.assert_array_equal(got, want)
    assert not fault
    for inputs in bad:
        assert answers(exported, inputs)[-1]


def test_the_one_quotient_that_has_no_room_wraps_around() -> None:
    """As numbers of a fixed width do, where the processor would end the process."""
    exported = traced(model("g (int32[n] a, int32[n] b) => (int32[n] q) { q = Div(a, b) }"))
    assert guard(exported)
    quotients, fault = answers(exported, [int32(-(2**31), 8), int32(-1, 2)])
    assert quotients.tolist() == [-(2**31), 4]
    assert not fault


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("g (float[n,3] x) => (float[n,2] y) { y = Gather<axis=1>(x, i) }", {"i": whole([2, 0])}),
        ("g (int32[n] a) => (int32[n] q) { q = Div(a, b) }", {"b": np.array(3, np.int32)}),
        ("g (float[n] a, float[n] b) => (float[n] q) { q = Div(a, b) }", {}),
        ("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }", {}),
    ],
)
def test_what_no_request_decides_needs_no_guard(text: str, constants: dict[str, Array]) -> None:
    """Constants are what they are, and floating-point numbers may be divided by zero."""
    exported = traced(model(text, **constants))
    assert not guard(exported)
    assert len(exported.graph.graph.output_node().args[0]) == 1  # type: ignore[arg-type] # a tuple


_LOOP = """g (float[5,3] x, int64[5] i) => (float[3] y) {{
    y = Loop (count, yes, start) <body = b (int64 step, bool c, float[3] s) => (bool c2, float[3] s2) {{
        c2 = Identity(c) {position} row = Gather(x, p) s2 = Add(s, row) }}>
    }}"""
_LOOPED = {"count": np.array(5), "yes": np.array(True), "start": np.zeros(3, np.float32)}  # noqa: FBT003 - its value


def test_a_step_may_look_up_what_is_its_own() -> None:
    """Loops over time do; that is no matter of the request."""
    assert not guard(traced(model(_LOOP.format(position="p = Identity(step)"), **_LOOPED)))


def test_a_step_that_looks_up_what_was_asked_for_is_refused() -> None:
    """What happens within a loop cannot be told outside: better no compiled form than one that ends the server."""
    exported = traced(model(_LOOP.format(position="p = Gather(i, step)"), **_LOOPED))
    with pytest.raises(NotExportable, match="index_select in a loop or a branch depends on the request"):
        guard(exported)
