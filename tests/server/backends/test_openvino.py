"""Promises of server.backends.openvino, on the runtime itself."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.interface import GraphSpec, LoadedGraph, Precision, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import GraphNotLoadable, InvalidRequest, RunFailed
from tests.packages import joined

pytest.importorskip("openvino")
from server.backends.openvino import OpenVinoBackend

FLOAT, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
DTYPES: Mapping[int, int] = {
    onnx.TensorProto.FLOAT: tensor_pb2.DT_FLOAT,
    onnx.TensorProto.DOUBLE: tensor_pb2.DT_DOUBLE,
    onnx.TensorProto.FLOAT16: tensor_pb2.DT_HALF,
    onnx.TensorProto.INT8: tensor_pb2.DT_INT8,
    onnx.TensorProto.INT16: tensor_pb2.DT_INT16,
    onnx.TensorProto.INT32: tensor_pb2.DT_INT32,
    onnx.TensorProto.INT64: tensor_pb2.DT_INT64,
    onnx.TensorProto.UINT8: tensor_pb2.DT_UINT8,
    onnx.TensorProto.UINT16: tensor_pb2.DT_UINT16,
    onnx.TensorProto.UINT32: tensor_pb2.DT_UINT32,
    onnx.TensorProto.UINT64: tensor_pb2.DT_UINT64,
    onnx.TensorProto.BOOL: tensor_pb2.DT_BOOL,
    onnx.TensorProto.STRING: tensor_pb2.DT_STRING,
    onnx.TensorProto.BFLOAT16: tensor_pb2.DT_BFLOAT16,
}
Port = tuple[str, int, Sequence[str | int | None]]


def graph_of(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    constants: Mapping[str, Array] | None = None,
) -> GraphSpec:
    """Write a graph and describe it."""
    ins, outs = ([helper.make_tensor_value_info(n, t, s) for n, t, s in side] for side in (inputs, outputs))
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", ins, outs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    known, wanted = (tuple(TensorPort(n, DTYPES[t]) for n, t, _ in side) for side in (inputs, outputs))
    return GraphSpec(path, known, wanted)


def dense(path: Path) -> GraphSpec:
    """Two outputs of one input: a product of matrices, and its softmax."""
    weights = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["p"])]
    outputs: list[Port] = [("y", FLOAT, ["n", 5]), ("p", FLOAT, ["n", 5])]
    return graph_of(path, nodes, [("x", FLOAT, ["n", 8])], outputs, {"w": weights})


def lookup(path: Path, *, rows: int = 6) -> GraphSpec:
    """Rows of a table, by indices that come with the request, after some arithmetic."""
    nodes = [helper.make_node("Add", ["i", "one"], ["j"]), helper.make_node("Gather", ["table", "j"], ["y"])]
    table = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    constants: dict[str, Array] = {"table": table, "one": np.array(1, np.int64)}
    return graph_of(path, nodes, [("i", INT, ["n"])], [("y", FLOAT, ["n", 2])], constants)


def both(spec: GraphSpec) -> tuple[LoadedGraph, LoadedGraph]:
    """The graph in OpenVINO and in ONNX Runtime."""
    return OpenVinoBackend(threads=1).load(spec), OnnxRuntimeBackend("cpu", threads=1).load(spec)


def test_it_answers_as_onnx_runtime_does_at_every_size(tmp_path: Path) -> None:
    """One compiled model serves every batch, an empty one too; outputs come in the order asked for."""
    ours, theirs = both(dense(tmp_path / "m.onnx"))
    for rows in (1, 3, 16, 2, 0):
        x = np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)
        for names in (["y", "p"], ["p", "y"], ["p"]):
            for got, expected in zip(ours.run({"x": x}, names), theirs.run({"x": x}, names), strict=True):
                assert got.dtype == expected.dtype
                np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(DTYPES) - {onnx.TensorProto.STRING, onnx.TensorProto.BFLOAT16}))
def test_every_type_goes_through(tmp_path: Path, kind: int) -> None:
    """Each element type comes out as it went in, of any rank, and nothing is converted on the way."""
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    spec = graph_of(tmp_path / "m.onnx", nodes, [("x", kind, ["n", 2])], [("y", kind, ["m", 2])])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    x = np.array([[0, 1], [1, 0]]).astype(dtype)
    (y,) = OpenVinoBackend(threads=1).load(spec).run({"x": x}, ["y"])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.concatenate([x, x]))


@pytest.mark.parametrize("kind", [onnx.TensorProto.STRING, onnx.TensorProto.BFLOAT16])
def test_types_that_it_has_no_form_for_are_refused(tmp_path: Path, kind: int) -> None:
    """Said when the graph is loaded, not when a request comes."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    spec = graph_of(tmp_path / "m.onnx", nodes, [("x", kind, ["n"])], [("y", kind, ["n"])])
    with pytest.raises(GraphNotLoadable):
        OpenVinoBackend().load(spec)


def test_a_scalar_is_an_input_too(tmp_path: Path) -> None:
    """Rank 0 in and out."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    spec = graph_of(tmp_path / "m.onnx", nodes, [("x", FLOAT, [])], [("y", FLOAT, [])])
    (y,) = OpenVinoBackend(threads=1).load(spec).run({"x": np.array(3, np.float32)}, ["y"])
    assert y.shape == ()
    assert y == -3


@pytest.mark.parametrize("index", [5, 1000, -8, -1000])
def test_an_index_out_of_range_is_refused(tmp_path: Path, index: int) -> None:
    """Where OpenVINO itself would answer with something: the client is told, as by ONNX Runtime."""
    ours, theirs = both(lookup(tmp_path / "m.onnx"))
    for graph in (ours, theirs):
        with pytest.raises(InvalidRequest):
            graph.run({"i": np.array([0, index, 1])}, ["y"])
        np.testing.assert_array_equal(graph.run({"i": np.array([0, 4, -7])}, ["y"])[0][:, 0], [2, 10, 0])
        assert graph.run({"i": np.array([], np.int64)}, ["y"])[0].shape == (0, 2)


def test_indices_that_cannot_be_checked_are_no_model_for_it(tmp_path: Path) -> None:
    """Rather no backend than one that answers nonsense; what a graph computes of shapes alone is none of that."""
    nodes = [helper.make_node("GatherND", ["table", "i"], ["y"])]
    table = {"table": np.eye(3, dtype=np.float32)}
    spec = graph_of(tmp_path / "m.onnx", nodes, [("i", INT, ["n", 1])], [("y", FLOAT, ["n", 3])], table)
    with pytest.raises(GraphNotLoadable, match="takes indices from the request"):
        OpenVinoBackend().load(spec)
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["y"]),
    ]
    spec = graph_of(
        tmp_path / "s.onnx", nodes, [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n"])], {"zero": np.array([0])}
    )
    (y,) = OpenVinoBackend().load(spec).run({"x": np.ones((3, 2), np.float32)}, ["y"])
    assert y.shape == (3,)


@pytest.mark.parametrize(
    "x", [np.ones((2, 8)), np.ones((2, 9), np.float32), np.ones(8, np.float32), np.ones((1, 2, 8), np.float32)]
)
def test_what_does_not_fit_is_refused(tmp_path: Path, x: Array) -> None:
    """A wrong dtype or shape is the client's error, and the next request is answered."""
    graph = OpenVinoBackend(threads=1).load(dense(tmp_path / "m.onnx"))
    with pytest.raises(InvalidRequest):
        graph.run({"x": x}, ["y"])
    assert graph.run({"x": np.ones((2, 8), np.float32)}, ["y"])[0].shape == (2, 5)


def test_ports_must_be_the_packages(tmp_path: Path) -> None:
    """A manifest that speaks of another graph is noticed at loading."""
    spec = dense(tmp_path / "m.onnx")
    for inputs in ((TensorPort("x", tensor_pb2.DT_INT64),), (TensorPort("z", tensor_pb2.DT_FLOAT),)):
        with pytest.raises(GraphNotLoadable, match="the ONNX file's input"):
            OpenVinoBackend().load(GraphSpec(spec.path, inputs, spec.outputs))
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphNotLoadable, match=r"does not load bad\.onnx"):
        OpenVinoBackend().load(GraphSpec(tmp_path / "bad.onnx", (), ()))


def test_answers_are_the_callers_own(tmp_path: Path) -> None:
    """No later run writes over an answer, whichever thread makes it, and none after closing is answered."""
    graph = OpenVinoBackend(threads=1).load(dense(tmp_path / "m.onnx"))
    wrong: list[Any] = []

    def ask(number: int) -> None:
        x = np.full((2, 8), number, np.float32)
        (first,) = graph.run({"x": x}, ["y"])
        kept = first.copy()
        for _ in range(50):
            graph.run({"x": -x}, ["y"])
        if not np.array_equal(first, kept):
            wrong.append(number)

    with joined(*(threading.Thread(target=ask, args=(number,)) for number in range(1, 7))):
        pass
    assert not wrong
    graph.close()
    with pytest.raises(RunFailed, match="closed"):
        graph.run({"x": np.ones((1, 8), np.float32)}, ["y"])


def test_other_threads_run_meanwhile(tmp_path: Path) -> None:
    """Neither compiling nor running holds the interpreter."""
    width = 1500
    rng = np.random.default_rng(0)
    constants = {f"w{i}": rng.standard_normal((width, width)).astype(np.float32) for i in range(6)}
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(6)]
    spec = graph_of(tmp_path / "m.onnx", nodes, [("h0", FLOAT, ["n", width])], [("h6", FLOAT, ["n", width])], constants)
    gaps: list[float] = []
    over = threading.Event()

    def tick() -> None:
        before = time.monotonic()
        while not over.is_set():
            time.sleep(0.001)
            now = time.monotonic()
            gaps.append(now - before)
            before = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.monotonic()
    graph = OpenVinoBackend().load(spec)
    x = np.ones((512, width), np.float32)
    for _ in range(3):
        graph.run({"h0": x}, ["h6"])
    seconds = time.monotonic() - begin
    over.set()
    ticker.join()
    assert max(gaps) < max(0.2, seconds / 2), "who held the interpreter would have held it for most of the time"
    assert len(gaps) > seconds / 0.02


def test_a_name_for_each_precision() -> None:
    """Metrics tell them apart."""
    assert OpenVinoBackend().name == "openvino-cpu"
    assert OpenVinoBackend(precision=Precision.BF16).name == "openvino-cpu-bf16"
