"""Tests of compiled models in this process: their answers, what they refuse, threads and memory."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.aot_abi import AbiError
from server.backends.aot_inductor import AotInductorBackend, AotInductorGraph, map_run_error
from server.backends.interface import GraphSpec, LoadedGraph, Precision, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers, OutOfMemory, RunFailed
from tests.conftest import ROOT
from tests.server.backends.compiled import spec, workbench, workbench_feeds
from tests.server.lowering.graphs import model, numbers

_OUTPUTS = ["y", "j", "a", "h2", "total", "positive", "rows"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def graph(cache: Path, bench: GraphSpec) -> Iterator[AotInductorGraph]:
    """The workbench, loaded."""
    loaded = AotInductorBackend(cache).load(bench)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> LoadedGraph:
    """The workbench in ONNX Runtime, without its bfloat16 part."""
    path = tmp_path_factory.mktemp("reference") / "model.onnx"
    return OnnxRuntimeBackend().load(spec(workbench(bfloat16=False), path))


def expected(reference: LoadedGraph, feeds: dict[str, Array]) -> list[Array]:
    """What ONNX Runtime answers."""
    return reference.run({name: array for name, array in feeds.items() if name != "b"}, _OUTPUTS)


@pytest.mark.parametrize(("batch", "length"), [(3, 4), (1, 7), (7, 1), (1, 1), (64, 33)])
def test_it_answers_as_onnx_runtime_does(
    graph: AotInductorGraph, reference: LoadedGraph, batch: int, length: int
) -> None:
    """One compiled form serves every batch and length, one among them, for every kind of port."""
    feeds = workbench_feeds(batch, length)
    answers = graph.run(feeds, [*_OUTPUTS, "b2"])
    for got, want in zip(answers, [*expected(reference, feeds), feeds["b"] * feeds["b"]], strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_empty_inputs_are_left_to_others(graph: AotInductorGraph) -> None:
    """An error, where torch's own kernels for attention would divide by zero and end the process."""
    with pytest.raises(LeftToOthers, match="no empty input"):
        graph.run(workbench_feeds(0, 5), _OUTPUTS)


def test_a_request_that_compiled_code_would_die_of_is_refused(cache: Path, tmp_path: Path) -> None:
    """A position outside of a table, a division by zero: the client's error, and the next request is answered."""
    proto = model(
        """g (int64[n] i, int32[n] a, int32[n] b) => (float[n,3] y, int32[n] q, int32[n] same) {
            y = Gather(w, i) q = Div(a, b) same = Identity(q) }""",
        w=numbers(50, 3),
    )
    described, backend = spec(proto, tmp_path / "model.onnx"), AotInductorBackend(cache)
    backend.prepare(described, threading.Event())
    graph = backend.load(described)
    good = {"i": np.array([0, -50, 49]), "a": np.full(3, 7, np.int32), "b": np.array([2, -2, 7], np.int32)}
    for bad in ({"i": np.array([0, 50, 1])}, {"i": np.array([-51, 0, 1])}, {"b": np.array([1, 0, 1], np.int32)}):
        with pytest.raises(InvalidRequest, match=r"outside of the table.* divided by zero"):
            graph.run(good | bad, ["y", "q"])
        rows, quotients, same = graph.run(good, ["y", "q", "same"])
        np.testing.assert_array_equal(rows, numbers(50, 3)[[0, 0, 49]])
        assert quotients.tolist() == same.tolist() == [3, -3, 1]
    graph.close()


def test_answers_come_in_the_order_asked_for(graph: AotInductorGraph) -> None:
    """Some outputs, in another order, or the same twice."""
    feeds = workbench_feeds(2, 3)
    j, y, again = graph.run(feeds, ["j", "y", "j"])
    np.testing.assert_array_equal(j, feeds["i"] * 2)
    np.testing.assert_array_equal(again, j)
    assert y.shape == (2, 4)


def test_any_layout_of_memory_is_taken(graph: AotInductorGraph) -> None:
    """Views, backward strides, read-only and unaligned arrays give what their copies give."""
    feeds = workbench_feeds(4, 3)
    unaligned = np.frombuffer(b"\0" + feeds["x"].tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 3)
    assert not unaligned.flags.aligned
    turned = np.asfortranarray(feeds["q"])[::-1]
    readonly = feeds["i"].copy()
    readonly.flags.writeable = False
    odd = feeds | {"x": unaligned, "q": turned, "i": readonly}
    plain = feeds | {"q": np.ascontiguousarray(turned)}
    for got, want in zip(graph.run(odd, _OUTPUTS), graph.run(plain, _OUTPUTS), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.ones((2, 3), np.float64)),
        ("x", np.ones((2, 3), ">f4")),
        ("x", np.ones((2, 4), np.float32)),
        ("x", np.ones((2,), np.float32)),
        ("x", np.ones((2, 3, 1), np.float32)),
        ("s", np.ones((1,), np.float32)),
        ("i", np.ones((2,), np.int32)),
        ("h", np.ones((2, 2), np.float32)),
        ("x", np.array([[b"a", b"b", b"c"]], object)),
    ],
)
def test_what_does_not_fit_is_refused(graph: AotInductorGraph, name: str, value: Array) -> None:
    """The compiled code would read past the end of it."""
    with pytest.raises(InvalidRequest, match=f"input '{name}'"):
        graph.run(workbench_feeds(2, 3) | {name: value}, _OUTPUTS)


def test_a_missing_input_is_refused(graph: AotInductorGraph) -> None:
    """It has no defaults."""
    feeds = workbench_feeds(2, 3)
    del feeds["q"]
    with pytest.raises(InvalidRequest, match="input 'q' is missing"):
        graph.run(feeds, _OUTPUTS)


def test_sizes_that_it_was_not_compiled_for_are_refused(graph: AotInductorGraph) -> None:
    """Another runtime may have an answer, or the right words for the client: so it is no fault of the request."""
    feeds = workbench_feeds(2, 3)
    with pytest.raises(LeftToOthers, match=r"holds only where .*d\[6\]\[0\].* z \(6,\)"):
        graph.run(feeds | {"z": np.ones(6, np.float32)}, _OUTPUTS)
    assert graph.run(feeds | {"z": np.ones(12, np.float32)}, ["rows"])[0].shape == (3, 4)


def test_threads_run_at_once(graph: AotInductorGraph, reference: LoadedGraph) -> None:
    """More threads than instances, each with its own batch size, all get their own answers."""
    cases = [workbench_feeds(batch, 5, seed=batch) for batch in range(1, 25)]
    wanted = [expected(reference, feeds) for feeds in cases]

    def repeat(index: int) -> bool:
        for _ in range(20):
            for got, want in zip(graph.run(cases[index], _OUTPUTS), wanted[index], strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
        return True

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(repeat, range(24)))


def longest_gap(work: Callable[[], object]) -> tuple[float, float]:
    """How long work takes, and the longest time for which a thread that wakes each millisecond did not run."""
    done, gaps, ready = threading.Event(), [0.0], threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not done.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
            ready.set()

    ticker = threading.Thread(target=tick)
    ticker.start()
    ready.wait(10)
    begin = time.perf_counter()
    work()
    took = time.perf_counter() - begin
    done.set()
    ticker.join()
    return took, max(gaps)


def test_a_run_holds_nobody_up(graph: AotInductorGraph) -> None:
    """Python goes on while it computes: were the GIL held, the gap would be the whole run."""
    feeds = workbench_feeds(64, 2000)
    took, gap = longest_gap(lambda: graph.run(feeds, _OUTPUTS))
    assert took > 0.1
    assert gap < took / 3


def test_memory_does_not_grow(cache: Path, bench: GraphSpec) -> None:
    """2,000 runs: no tensor is left behind, though each makes thirteen."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    feeds = workbench_feeds(16, 16)
    loaded = AotInductorBackend(cache, threads=1).load(bench)
    for _ in range(300):
        loaded.run(feeds, _OUTPUTS)
    before = resident()
    for _ in range(2000):
        loaded.run(feeds, _OUTPUTS)
    assert resident() - before < 4 << 20  # the q and a of all runs alone would be 32 MiB
    loaded.close()


def test_failed_runs_leave_nothing_behind_either(graph: AotInductorGraph) -> None:
    """A model that cannot allocate says so, and answers the next request."""
    feeds = workbench_feeds(1, 1)
    wide = np.zeros((1, 700_000, 8), np.float32)  # its scores would take 2 TB
    for _ in range(3):
        with pytest.raises(OutOfMemory):
            graph.run(feeds | {"q": wide}, _OUTPUTS)
    assert len(graph.run(feeds, _OUTPUTS)) == len(_OUTPUTS)


def test_a_closed_graph_fails(cache: Path, bench: GraphSpec) -> None:
    """Another close does nothing."""
    loaded = AotInductorBackend(cache).load(bench)
    loaded.close()
    loaded.close()
    with pytest.raises(RunFailed, match="closed"):
        loaded.run(workbench_feeds(1, 1), _OUTPUTS)


def test_closing_frees_the_graph(cache: Path, bench: GraphSpec, tmp_path: Path) -> None:
    """Its file leaves the process as well, when the threads that called it have ended and another one is closed."""
    copy, other, seen = tmp_path / "cache", tmp_path / "other", []
    shutil.copytree(cache, copy)
    shutil.copytree(cache, other)

    def mapped() -> bool:
        return str(copy) in Path("/proc/self/maps").read_text()

    def use() -> None:
        loaded = AotInductorBackend(copy).load(bench)
        loaded.run(workbench_feeds(1, 1), _OUTPUTS)
        seen.append(mapped())
        loaded.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    for _ in range(100):  # OpenMP's own threads end some time after the one that they helped
        AotInductorBackend(other).load(bench).close()  # the loader looks then for what nobody needs any more
        if not mapped():
            break
        threading.Event().wait(0.05)
    assert seen == [True]
    assert not mapped()


def test_threads_can_be_limited(cache: Path, bench: GraphSpec) -> None:
    """With one thread per run the answers are the same."""
    feeds = workbench_feeds(3, 4)
    loaded = AotInductorBackend(cache, threads=1).load(bench)
    assert loaded.run(feeds, ["j"])[0].tolist() == (feeds["i"] * 2).tolist()
    loaded.close()


def test_ports_must_be_the_manifests(cache: Path, bench: GraphSpec) -> None:
    """A package whose manifest and graph differ is not served."""
    other = replace(bench, outputs=(TensorPort("y", tensor_pb2.DT_INT64),))
    with pytest.raises(GraphNotLoadable, match="output 'y' should be int64 but is float32"):
        AotInductorBackend(cache).load(other)
    fewer = replace(bench, inputs=bench.inputs[1:])
    with pytest.raises(GraphNotLoadable, match="does not bind: x"):
        AotInductorBackend(cache).load(fewer)


def test_names_and_precisions(tmp_path: Path) -> None:
    """The names are metric labels."""
    assert AotInductorBackend(tmp_path).name == "torch-cpu"
    assert AotInductorBackend(tmp_path, precision=Precision.BF16).name == "torch-cpu-bf16"
    assert AotInductorBackend(tmp_path, device="cuda", precision=Precision.FP16).name == "torch-cuda-fp16"
    assert AotInductorBackend(tmp_path, precision=Precision.BF16).precision is Precision.BF16


def test_errors_are_mapped_in_one_place() -> None:
    """What speaks of memory is OutOfMemory, everything else a failure."""
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes."
    assert isinstance(map_run_error(AbiError(said)), OutOfMemory)
    assert isinstance(map_run_error(AbiError("CUDA error: an illegal memory access")), RunFailed)


def test_the_server_never_imports_torch(cache: Path, bench: GraphSpec) -> None:
    """Loading and running use libtorch alone: Python's torch takes two seconds to import, and holds the GIL."""
    script = f"""
import sys, threading, pathlib
import numpy as np
from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import GraphSpec, TensorPort
graph = {bench!r}
loaded = AotInductorBackend(pathlib.Path({str(cache)!r})).load(graph)
loaded.run(workbench_feeds(2, 2), ["y"])
loaded.close()
print([name for name in sys.modules if name == "torch"])
""".replace("PosixPath", "pathlib.PosixPath")
    feeds = "{" + ", ".join(f"{k!r}: {_source(v)}" for k, v in workbench_feeds(2, 2).items()) + "}"
    script = script.replace("workbench_feeds(2, 2)", feeds)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def _source(array: Array) -> str:
    kind = "__import__('ml_dtypes').bfloat16" if array.dtype.name == "bfloat16" else f"np.{array.dtype.name}"
    return f"np.zeros({array.shape}, {kind})"
