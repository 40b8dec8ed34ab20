"""OpenVINO as a backend: right, or refused."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from server.arrays import Array
from server.backends.cores import physical_cores
from server.backends.interface import GraphSpec, LoadedGraph, Precision, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers, OutOfMemory, RunFailed
from tests.e2e.processes import ROOT
from tests.server.backends.graphs import heavy, spec_of, ticking, write_graph

pytest.importorskip("openvino", reason="an optional install")

import openvino as ov

from server.backends.openvino import OpenVinoBackend, _Compiled, map_run_error

CALLERS = 16

BACKEND = OpenVinoBackend(threads=2)

pytestmark = pytest.mark.skipif(physical_cores() < 2, reason="it needs two cores")

NUMPY_TYPES = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8,
    "int16": np.int16, "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "uint16": np.uint16,
    "uint32": np.uint32, "uint64": np.uint64, "bool": np.bool_,
}  # fmt: skip


def _one(graph: LoadedGraph, **inputs: Array) -> Array:
    return graph.run(inputs, ["y"])[0]


@pytest.mark.parametrize("kind", NUMPY_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)], ids=str)
def test_every_type_goes_through_unchanged(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    """Scalars, empty tensors and full ones of every type but strings come back bit for bit."""
    dims = f"[{','.join('AB'[: len(shape)])}]" if shape else ""
    graph = BACKEND.load(write_graph(tmp_path, f"g ({kind}{dims} x) => ({kind}{dims} y) {{y = Identity(x)}}"))
    sent = np.asarray(np.random.default_rng(0).integers(0, 100, shape)).astype(NUMPY_TYPES[kind])
    answer = _one(graph, x=sent)
    assert (answer.dtype, answer.shape, answer.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


def test_arrays_of_any_layout_are_taken(tmp_path: Path) -> None:
    """What is read-only, a view, or not contiguous is read right, and never written to."""
    graph = BACKEND.load(write_graph(tmp_path, "g (float[A,B] x) => (float[A,B] y) {y = Neg(x)}"))
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    frozen = np.frombuffer(base.tobytes(), np.float32).reshape(3, 4)
    for sent in (base, base.T, base[:, ::2], base[::-1], frozen):
        before = sent.copy()
        np.testing.assert_array_equal(_one(graph, x=sent), -before)
        np.testing.assert_array_equal(sent, before)


def test_an_answer_is_nobody_elses_memory(tmp_path: Path) -> None:
    """Later runs leave earlier answers as they were, and answers do not share memory with inputs."""
    graph = BACKEND.load(write_graph(tmp_path, "g (float[A] x) => (float[A] y) {y = Identity(x)}"))
    sent = [np.full(1000, i, np.float32) for i in range(8)]
    answers = [_one(graph, x=x) for x in sent]
    for x in sent:
        x[:] = -1
    _one(graph, x=np.full(1000, 99, np.float32))
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, np.full(1000, i, np.float32))
        assert answer.flags.owndata or answer.base is not None
        assert not any(np.shares_memory(answer, other) for other in (*sent, *answers[:i]))


def test_many_threads_are_all_answered(tmp_path: Path) -> None:
    """Threads that run at once get each its own answer."""
    graph = BACKEND.load(write_graph(tmp_path, "g (float[A,B] x) => (float[A,B] y) {y = Mul(x, two)}",
                                     {"two": np.array(2, np.float32)}))  # fmt: skip
    barrier = threading.Barrier(CALLERS)

    def call(number: int) -> bool:
        barrier.wait()
        rows = [np.full((1 + (number + turn) % 5, 7), number, np.float32) for turn in range(20)]
        return all(np.array_equal(_one(graph, x=x), 2 * x) for x in rows)

    with ThreadPoolExecutor(CALLERS) as pool:
        assert all(pool.map(call, range(CALLERS)))


def test_others_run_python_while_it_loads_and_runs(tmp_path: Path) -> None:
    """Loading and running let the GIL go: another thread goes on all the while."""
    spec = heavy(tmp_path)
    begin = time.perf_counter()
    with ticking() as gap:
        graph = BACKEND.load(spec)
    loading = time.perf_counter() - begin
    assert gap.longest < max(0.5 * loading, 0.1)
    x = np.zeros((1024, 1024), np.float32)
    graph.run({"x": x}, ["y11"])
    begin = time.perf_counter()
    with ticking() as gap:
        graph.run({"x": x}, ["y11"])
    running = time.perf_counter() - begin
    assert gap.ticks >= 3
    assert gap.longest < 0.5 * running


def test_any_batch_size_is_taken_by_one_graph(tmp_path: Path) -> None:
    """Batches of any size, none included, are answered by what was compiled once."""
    weights = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    graph = BACKEND.load(write_graph(tmp_path, "g (float[B,8] x) => (float[B,3] y) {y = MatMul(x, w)}", {"w": weights}))
    for rows in (4, 1, 0, 33, 4, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)
        np.testing.assert_allclose(_one(graph, x=x), x @ weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("g (float[B,8] x, float[B,8] z) => (float[B,8] y) {y = Add(x, z)}", [(2, 7), (2, 8)]),
        ("g (float[B,8] x, float[B,8] z) => (float[B,8] y) {y = Add(x, z)}", [(8,), (2, 8)]),
        ("g (float[A] x, float[B] z) => (float[C] y) {y = Add(x, z)}", [(2,), (3,)]),
        ("g (float[A,B] x, float[C,D] z) => (float[A,D] y) {y = MatMul(x, z)}", [(2, 3), (2, 3)]),
        ("g (float[A,B] x, float[C,D] z) => (float[E,F] y) {y = Concat<axis=1>(x, z)}", [(2, 3), (4, 3)]),
    ],
)
def test_shapes_that_do_not_fit_are_the_requests_fault(
    tmp_path: Path, text: str, shapes: list[tuple[int, ...]]
) -> None:
    """A shape that the graph refuses is an invalid request, told without places in OpenVINO's source."""
    graph = BACKEND.load(write_graph(tmp_path, text))
    x, z = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(InvalidRequest, match="cannot compute this input") as caught:
        _one(graph, x=x, z=z)
    assert ".cpp" not in caught.value.message
    assert ".hpp" not in caught.value.message


def test_shapes_that_do_not_fit_spoil_no_other_answer(tmp_path: Path) -> None:
    """Requests that are refused, from many threads, leave every other request right: the plug-in never sees them."""
    weights = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    text = (
        "g (float[A,16] x, float[B,16] z) => (float[C,16] y) {"
        "a = Neg(x) m = MatMul(a, w) q = Add(m, z) r = Relu(q) t = MatMul(r, w) y = Add(t, z)}"
    )
    graph = BACKEND.load(write_graph(tmp_path, text, {"w": weights}))

    def call(seed: int) -> str:
        rng = np.random.default_rng(seed)
        rows, others = int(rng.integers(2, 40)), int(rng.integers(2, 40))
        others = rows if seed % 3 else others
        x, z = (rng.integers(-4, 5, (count, 16)).astype(np.float32) for count in (rows, others))
        try:
            answer = _one(graph, x=x, z=z)
        except InvalidRequest:
            return "wrongly refused" if rows == others else "right"
        expected = np.maximum(-x @ weights + z, 0) @ weights + z if rows == others else np.zeros(0)
        close = answer.shape == expected.shape and np.allclose(answer, expected, rtol=1e-3, atol=1e-2)
        return "right" if close else "wrong"

    with ThreadPoolExecutor(CALLERS) as pool:
        assert set(pool.map(call, range(3000))) == {"right"}


def test_one_thread_is_refused(tmp_path: Path) -> None:
    """With one thread OpenVINO would compute with shapes that do not fit, out of bounds, instead of refusing them."""
    spec = write_graph(tmp_path, "g (float[A] x) => (float[A] y) {y = Neg(x)}")
    with pytest.raises(GraphNotLoadable, match="loses its own errors"):
        OpenVinoBackend(threads=1).load(spec)


def test_an_empty_batch_is_answered_or_left_to_others(tmp_path: Path) -> None:
    """No rows are no rows; where OpenVINO cannot say so, another may, and it is not called the request's fault."""
    graph = BACKEND.load(
        write_graph(tmp_path, "g (float[B,2,8] x) => (float[B,2,4] y) {y = MaxPool<kernel_shape=[2], strides=[2]>(x)}")
    )
    x = np.arange(16, dtype=np.float32).reshape(1, 2, 8)
    for _ in range(2):
        np.testing.assert_array_equal(_one(graph, x=x), x[..., 1::2])
        try:
            outcome: object = _one(graph, x=x[:0]).shape
        except LeftToOthers as error:
            outcome = "empty" in error.message
        assert outcome in {(0, 2, 4), True}


def test_too_large_for_memory_is_out_of_memory(tmp_path: Path) -> None:
    """An allocation beyond any address space (256 TiB) is told as such, and the graph goes on answering."""
    graph = BACKEND.load(write_graph(tmp_path, "g (float[A,1] x, float[1,B] z) => (float[A,B] y) {y = Mul(x, z)}"))
    large = np.ones(1 << 23, np.float32)
    with pytest.raises(OutOfMemory, match="Failed to allocate"):
        _one(graph, x=large[:, None], z=large[None, :])
    for rows in (1 << 10, 3, 1):
        x, z = np.arange(rows, dtype=np.float32), np.arange(2, dtype=np.float32)
        np.testing.assert_array_equal(_one(graph, x=x[:, None], z=z[None, :]), np.outer(x, z))


def _too_large(graph: LoadedGraph) -> None:
    """A run that fails in its middle."""
    large = np.ones(1 << 23, np.float32)
    with pytest.raises(OutOfMemory):
        _one(graph, x=large[:, None], z=large[None, :])


@pytest.mark.skipif(physical_cores() < 2, reason="one core is too few for OpenVINO")
def test_a_load_that_leaves_cores_to_others_loses_no_error(tmp_path: Path) -> None:
    """The first load in a process may run on one core alone: errors of later runs are told all the same.

    OpenVINO's scheduler looks once at the cores that it has; with one it answers garbage where it should fail.
    """
    script = (
        "import sys; from pathlib import Path; import tests.server.backends.test_openvino as t\n"
        "from server.engines.elbow_room import leaving_cores\n"
        "spec = t._outer(Path(sys.argv[1]))\n"
        "ones = t.np.ones((2, 1), 'f4')\n"
        "with leaving_cores():\n"
        "    graph = t.BACKEND.load(spec)\n"
        "    t._one(graph, x=ones, z=ones.T)\n"
        "t._too_large(graph)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)


def _outer(folder: Path) -> GraphSpec:
    return write_graph(folder, "g (float[A,1] x, float[1,B] z) => (float[A,B] y) {y = Mul(x, z)}")


def test_a_failed_batch_does_not_wait_for_the_graph_to_be_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch that failed goes on to another backend at once; loading again is the next run's."""
    graph = BACKEND.load(_outer(tmp_path))
    loads: list[str] = []
    compile_graph = OpenVinoBackend._compile

    def counted(backend: OpenVinoBackend, core: ov.Core, model: ov.Model, spec: GraphSpec, threads: int) -> _Compiled:
        loads.append(spec.path.name)
        return compile_graph(backend, core, model, spec, threads)

    monkeypatch.setattr(OpenVinoBackend, "_compile", counted)
    _too_large(graph)
    assert loads == []
    two = np.full((1, 1), 2, np.float32)
    assert [_one(graph, x=two, z=two).tolist() for _ in range(2)] == [[[4]], [[4]]]
    assert len(loads) == 1


def test_what_is_in_the_folder_by_now_is_not_loaded_in_a_graphs_place(tmp_path: Path) -> None:
    """After an error nothing is loaded that was not proved: another package may have been copied there meanwhile."""
    spec = _outer(tmp_path)
    graph = BACKEND.load(spec)
    other = tmp_path / "other"
    other.mkdir()
    mine = spec.path.with_name("mine.onnx")
    text = "g (float[A,1] x, float[1,B] z) => (float[A,B] y) {y = Add(x, z)}"
    spec.path.rename(mine)
    write_graph(other, text).path.rename(spec.path)
    other.rmdir()
    _too_large(graph)
    two = np.full((1, 1), 3, np.float32)
    with pytest.raises(RunFailed, match="its files are others by now"):
        _one(graph, x=two, z=two)
    mine.rename(spec.path)
    assert _one(graph, x=two, z=two).tolist() == [[9]]


def test_other_errors_are_failures_of_the_runtime() -> None:
    """What has no word of shapes or memory is not put on the request."""
    assert isinstance(map_run_error(RuntimeError("Exception from src/a.cpp:1:\nodd")), RunFailed)
    assert isinstance(map_run_error(MemoryError()), OutOfMemory)


def test_a_closed_graph_does_not_run(tmp_path: Path) -> None:
    """After `close` a run fails in words."""
    graph = BACKEND.load(write_graph(tmp_path, "g (float[A] x) => (float[A] y) {y = Neg(x)}"))
    _one(graph, x=np.zeros(1, np.float32))
    graph.close()
    with pytest.raises(RunFailed, match="closed"):
        _one(graph, x=np.zeros(1, np.float32))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_closing_frees_the_memory(tmp_path: Path) -> None:
    """Loading and closing ten times 50 MB of weights does not add up."""
    spec = heavy(tmp_path)
    x = np.zeros((1, 1024), np.float32)

    def turn() -> None:
        graph = BACKEND.load(spec)
        graph.run({"x": x}, ["y11"])
        graph.close()

    turn()
    before = _resident()
    for _ in range(10):
        turn()
    assert _resident() - before < 200 << 20


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (TensorPort("x", 2), "input 'x' should be f64 but is f32"),
        (TensorPort("other", 1), "input 'other' should be f32 but is not there"),
        (TensorPort("x", 7), "no strings"),
    ],
)
def test_a_file_that_is_not_the_packages_is_refused(tmp_path: Path, port: TensorPort, words: str) -> None:
    """Names and types must be what the manifest says."""
    spec = write_graph(tmp_path, "g (float[A] x) => (float[A] y) {y = Neg(x)}")
    with pytest.raises(GraphNotLoadable, match=words):
        BACKEND.load(GraphSpec(spec.path, (port,), spec.outputs))


def test_an_input_that_is_not_bound_is_refused(tmp_path: Path) -> None:
    """A graph that wants more than the manifest gives could never run."""
    spec = write_graph(tmp_path, "g (float[A] x, float[A] z) => (float[A] y) {y = Add(x, z)}")
    with pytest.raises(GraphNotLoadable, match="does not bind: z"):
        BACKEND.load(GraphSpec(spec.path, spec.inputs[:1], spec.outputs))


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """What cannot be read is told without places in OpenVINO's source."""
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    ports = (TensorPort("x", 1),)
    with pytest.raises(GraphNotLoadable, match=r"does not load model\.onnx") as caught:
        BACKEND.load(GraphSpec(tmp_path / "model.onnx", ports, ports))
    assert "\n" not in caught.value.message
    assert ".cpp" not in caught.value.message


def test_the_name_says_the_precision() -> None:
    """The metric label is the device and what is not float32."""
    assert OpenVinoBackend().name == "openvino-cpu"
    assert OpenVinoBackend(precision=Precision.BF16).name == "openvino-cpu-bf16"
    assert OpenVinoBackend(precision=Precision.BF16).precision is Precision.BF16


def test_a_precision_that_the_processor_lacks_is_refused(tmp_path: Path) -> None:
    """float16 (or bfloat16) without instructions for it would be float32 under a wrong name."""
    flags = Path("/proc/cpuinfo").read_text()
    spec = write_graph(tmp_path, "g (float[A] x) => (float[A] y) {y = Neg(x)}")
    for precision, words in ((Precision.FP16, ("avx512_fp16", "amx_fp16")), (Precision.BF16, ("avx512_bf16",))):
        backend = OpenVinoBackend(precision=precision)
        if any(word in flags for word in words):
            assert _one(backend.load(spec), x=np.ones(1, np.float32)).tolist() == [-1]
        else:
            with pytest.raises(GraphNotLoadable, match="no instructions"):
                backend.load(spec)


@pytest.mark.skipif("avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="no bfloat16 here")
def test_bf16_computes_in_bf16_and_fp32_does_not(tmp_path: Path) -> None:
    """The precision asked for is the one computed in: neither more nor less."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((256, 64)).astype(np.float32)
    spec = write_graph(tmp_path, "g (float[B,256] x) => (float[B,64] y) {y = MatMul(x, w)}", {"w": weights})
    x = rng.standard_normal((16, 256)).astype(np.float32)
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    errors = [
        np.abs(_one(OpenVinoBackend(precision=p).load(spec), x=x) - exact).max() / np.abs(exact).max()
        for p in (Precision.FP32, Precision.BF16)
    ]
    assert errors[0] < 2**-18
    assert 2**-13 < errors[1] < 2**-6


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (20, "g (float[B,S,32] x) => (float[B,S,32] y) {y = Gelu(x)}"),
        (20, 'g (float[B,S,32] x) => (float[B,S,32] y) {y = Gelu<approximate="tanh">(x)}'),
        (18, "g (float[B,S,32] x) => (float[B,S,32] y) {y = LayerNormalization<axis=-1, epsilon=1e-6>(x, a, b)}"),
        (23, "g (float[B,S,32] x) => (float[B,S,32] y) {y = Attention<q_num_heads=4, kv_num_heads=4>(x, x, x)}"),
        (23, "g (float[B,4,S,8] x) => (float[B,4,S,8] y) {y = Attention<scale=0.3>(x, x, x)}"),
    ],
)
def test_what_our_rewrites_emit_is_read_and_right(tmp_path: Path, opset: int, text: str) -> None:
    """The operators that bring back what TensorFlow took apart answer as in ONNX Runtime."""
    rng = np.random.default_rng(0)
    constants = {"a": rng.standard_normal(32).astype(np.float32), "b": rng.standard_normal(32).astype(np.float32)}
    constants = constants if "LayerNorm" in text else {}
    spec = write_graph(tmp_path, text, constants, opset=opset)
    shape = (2, 4, 5, 8) if "4,S" in text else (2, 5, 32)
    x = rng.standard_normal(shape).astype(np.float32)
    expected = _one(OnnxRuntimeBackend("cpu", threads=1).load(spec), x=x)
    np.testing.assert_allclose(_one(BACKEND.load(spec), x=x), expected, rtol=1e-4, atol=1e-5)


def test_it_does_not_report_its_use(tmp_path: Path) -> None:
    """Loading our backend leaves none of the files in which its converter keeps what it reports, and reads no more."""
    script = "import sys, server.backends.openvino as b; b.ov.Core(); assert not sys.modules.get('openvino_telemetry')"
    home = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-B", "-c", script], cwd=ROOT, env=home, timeout=60, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_ports_are_read_from_the_file(tmp_path: Path) -> None:
    """The helper of these tests sees what the backend sees."""
    spec = write_graph(tmp_path, "g (int64[A] x) => (int64[A] y) {y = Identity(x)}")
    assert spec_of(spec.path).inputs == (TensorPort("x", 9),)
