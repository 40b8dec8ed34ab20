"""What OpenVINO would silently get wrong is refused, and what it gets right is not."""

from pathlib import Path

import numpy as np
import pytest

from server.arrays import Array
from server.backends.cores import physical_cores
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers
from tests.server.backends.graphs import write_graph

pytest.importorskip("openvino", reason="an optional install")

from server.backends.openvino import OpenVinoBackend

BACKEND = OpenVinoBackend(threads=2)

pytestmark = pytest.mark.skipif(physical_cores() < 2, reason="it needs two cores")
TABLE: dict[str, Array] = {"t": np.arange(12, dtype=np.float32).reshape(4, 3)}
ONE: dict[str, Array] = {"c": np.array([1])}
LOOP = (
    "g (float[A] x) => (float[A] y) {c = Constant<value_int=3>() k = Constant<value_int=1>() b = Cast<to=9>(k) "
    "y = Loop<body = body (int64 i, bool k1, float[A] u) => (bool k2, float[A] v) "
    "{k2 = Identity(k1) v = Add(u, u)}>(c, b, x)}"
)


@pytest.mark.parametrize(
    ("text", "constants", "words"),
    [
        ("g (int64[A] x) => (int64[A] y) {y = Add(x, c)}", ONE, "Add 'y' computes with integers"),
        ("g (int64[A] x) => (int64[A] y) {y = Mul(x, x)}", {}, "computes with integers"),
        ("g (uint8[A] x) => (uint8[A] y) {y = Sub(x, x)}", {}, "computes with integers"),
        ("g (int64[A,B] x) => (int64[A,C] y) {y = MatMul(x, c)}", {"c": np.ones((2, 2), np.int64)}, "with integers"),
        ("g (float[A] x) => (int64[A] y) {y = Cast<to=7>(x)}", {}, "makes i64 of f32"),
        ("g (int64[A] x) => (uint8[A] y) {y = Cast<to=2>(x)}", {}, "makes u8 of i64"),
        ("g (double[A] x) => (double[A] y) {y = Mul(x, x)}", {}, "with doubles"),
        ("g (double[A] x) => (bool[A] y) {y = Less(x, c)}", {"c": np.array(0.1)}, "with doubles"),
        ("g (int64[A] x) => (float[A,3] y) {z = Abs(x) y = Gather(t, z)}", TABLE, "computes with integers"),
        ("g (int64[A,2] x) => (float[A,3] y) {z = Slice(x, b, e, a) y = Gather(t, z)}",
         TABLE | {"b": np.array([0]), "e": np.array([1]), "a": np.array([1])}, "not an input's own"),
        ("g (float[A,B] t, int64[N] x) => (float[N,B] y) {y = Gather(t, x)}", {}, "table of unknown size"),
        ("g (float[A,B] x) => (float[A] y) {y = Gather<axis=1>(x, c)}", {"c": np.array(3)}, "short input"),
        ("g (float[A,3] z, int64[A,N] x) => (float[A,N] y) {y = GatherElements<axis=1>(z, x)}", {}, "not be there"),
        ("g (bool[A] x) => (int64[A] y) {y = Where(x, c, d)}", ONE | {"d": np.array([1 << 40])}, "beyond 32 bits"),
        (LOOP, {}, "is control flow"),
    ],
)  # fmt: skip
def test_what_comes_out_wrong_is_refused(tmp_path: Path, text: str, constants: dict[str, Array], words: str) -> None:
    """Integers computed with, cut or looked up by, doubles, and control flow are refused, naming the operator."""
    with pytest.raises(GraphNotLoadable, match=words):
        BACKEND.load(write_graph(tmp_path, text, constants))


MOVED = {
    "transposed": "g (int64[A,B] x) => (int64[B,A] y) {y = Transpose<perm=[1,0]>(x)}",
    "compared": "g (int64[A,B] x) => (bool[A,B] y) {y = Less(x, c)}",
    "as float": "g (int64[A,B] x) => (float[A,B] y) {y = Cast<to=1>(x)}",
    "as bool": "g (int64[A,B] x) => (bool[A,B] y) {y = Cast<to=9>(x)}",
    "narrowed to 32": "g (int64[A,B] x) => (int32[A,B] y) {y = Cast<to=6>(x)}",
    "largest": "g (int64[A,B] x) => (int64[A,B] y) {y = Max(x, c)}",
    "one hot": "g (int64[A,B] x) => (float[A,B,C] y) {y = OneHot(x, n, v)}",
    "masked": "g (int32[A,B] x) => (float[A,B] y) {z = Cast<to=1>(x) y = Mul(z, f)}",
    "joined": "g (int64[A,B] x) => (int64[A,C] y) {y = Concat<axis=1>(x, x)}",
}
CONSTANTS: dict[str, Array] = {
    "c": np.array(2),
    "n": np.array(5),
    "v": np.array([0, 1], np.float32),
    "f": np.array(-10, np.float32),
}


@pytest.mark.parametrize("how", MOVED)
def test_what_comes_out_right_is_taken(tmp_path: Path, how: str) -> None:
    """Integers that are moved, compared, converted exactly or looked up answer as in ONNX Runtime."""
    used = {name: value for name, value in CONSTANTS.items() if f" {name})" in MOVED[how] or f" {name}," in MOVED[how]}
    spec = write_graph(tmp_path, MOVED[how], used)
    kind = np.int32 if "int32[A,B] x" in MOVED[how] else np.int64
    ours, theirs = BACKEND.load(spec), OnnxRuntimeBackend("cpu", threads=1).load(spec)
    for x in (np.arange(6).reshape(2, 3), np.array([[1 << 24, -(1 << 24), (1 << 24) - 1]])):
        feeds = {"x": x.astype(kind)}
        np.testing.assert_array_equal(ours.run(feeds, ["y"])[0], theirs.run(feeds, ["y"])[0])


def test_integers_beyond_the_exact_range_are_left_to_others(tmp_path: Path) -> None:
    """A request with larger integers fails here, so that another runtime answers it."""
    graph = BACKEND.load(write_graph(tmp_path, MOVED["compared"], {"c": CONSTANTS["c"]}))
    for number in ((1 << 24) + 1, -(1 << 40)):
        with pytest.raises(LeftToOthers, match=f"exactly up to 16777216, and input 'x' holds {number}"):
            graph.run({"x": np.array([[1, number]])}, ["y"])


def test_an_index_outside_of_its_table_is_the_requests_fault(tmp_path: Path) -> None:
    """OpenVINO would read zeros there; ONNX Runtime and TensorFlow refuse."""
    spec = write_graph(tmp_path, "g (int64[A] x) => (float[A,3] y) {y = Gather(t, x)}", TABLE)
    graph = BACKEND.load(spec)
    for x in ([0, 3], [-4, -1]):
        feeds = {"x": np.array(x)}
        expected = OnnxRuntimeBackend("cpu", threads=1).load(spec).run(feeds, ["y"])[0]
        np.testing.assert_array_equal(graph.run(feeds, ["y"])[0], expected)
    for outside in (4, -5, 1 << 40):
        with pytest.raises(InvalidRequest, match=rf"holds the index {outside}, not in \[-4, 3\]"):
            graph.run({"x": np.array([0, outside])}, ["y"])


def test_positions_are_looked_up_only_as_far_as_there_are_any(tmp_path: Path) -> None:
    """A sequence longer than the table of positions is refused, as a model of BERT's kind has one."""
    text = (
        "g (int64[A,S] x) => (float[S,3] y) {s = Shape(x) n = Gather(s, one) r = Range(zero, n, one) y = Gather(t, r)}"
    )
    spec = write_graph(tmp_path, text, TABLE | {"one": np.array(1), "zero": np.array(0)})
    graph = BACKEND.load(spec)
    np.testing.assert_array_equal(graph.run({"x": np.zeros((1, 4), np.int64)}, ["y"])[0], TABLE["t"])
    with pytest.raises(InvalidRequest, match="dimension 1 of 'x' is 5, at most 4"):
        graph.run({"x": np.zeros((9, 5), np.int64)}, ["y"])
