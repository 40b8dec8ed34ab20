"""Promises of server.backends.one_thread, in a time of its own; and of ONNX Runtime's sessions that it chooses from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from server.arrays import Array
from server.backends import one_thread
from server.backends.interface import Batch, Tunable
from server.backends.one_thread import MaybeOnOneThread
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import GraphNotLoadable
from tests.server.backends.graphs import heavy, write_graph


class Clock:
    """Time that passes only while graphs run."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """As time.perf_counter."""
        return self.now


class Timed:
    """A graph whose runs take as long as is said, by the number of elements; it answers with its name."""

    def __init__(self, name: str, clock: Clock, microseconds: Callable[[int], float]) -> None:
        self.name = name
        self.runs = 0
        self.closed = False
        self._clock = clock
        self._microseconds = microseconds

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Take that long."""
        self.runs += 1
        self._clock.now += 1e-6 * self._microseconds(inputs["x"].size)
        return [np.array(self.name) for _ in outputs]

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the module reads the time from."""
    made = Clock()
    monkeypatch.setattr(one_thread, "time", made)
    return made


def batches(*sizes: int) -> Iterator[Batch]:
    """Of so many elements each."""
    return (({"x": np.zeros(size)}, ["y"]) for size in sizes)


def pair(clock: Clock) -> tuple[MaybeOnOneThread, Timed]:
    """One thread is faster up to eight elements; also the graph on it."""
    alone, together = Timed("alone", clock, lambda n: 10 + n), Timed("together", clock, lambda n: 20 + n / 2)
    return MaybeOnOneThread(together, lambda: alone), alone


def answered_by(graph: MaybeOnOneThread, size: int) -> str:
    """Which of the two runs such a batch."""
    return str(graph.run({"x": np.zeros(size)}, ["y"])[0])


def test_one_thread_runs_batches_up_to_the_largest_for_which_it_is_faster(clock: Clock) -> None:
    """Larger ones have enough to do for all threads; those beyond what was tried, too, for nobody knows."""
    graph, _ = pair(clock)
    assert answered_by(graph, 1) == "together"
    assert graph.tune(batches(1, 4, 8, 16, 32))
    assert [answered_by(graph, size) for size in (1, 8, 9, 16, 64)] == ["alone"] * 2 + ["together"] * 3
    always = MaybeOnOneThread(Timed("together", clock, lambda _: 20), lambda: Timed("alone", clock, lambda _: 1))
    assert always.tune(batches(2, 4))
    assert [answered_by(always, size) for size in (4, 5)] == ["alone", "together"]


def test_what_gains_next_to_nothing_changes_nothing(clock: Clock) -> None:
    """A gain that noise could have made is none; the second session is freed, and is not tried again."""
    alone, together = Timed("alone", clock, lambda _: 20), Timed("together", clock, lambda _: 21)
    graph = MaybeOnOneThread(together, lambda: alone)
    assert not graph.tune(batches(1, 2))
    assert (answered_by(graph, 1), alone.closed) == ("together", True)
    tried = alone.runs
    assert not graph.tune(batches(1, 2))
    assert alone.runs == tried


def test_a_graph_with_enough_to_do_is_neither_loaded_twice_nor_tried_for_long(clock: Clock) -> None:
    """One run of the smallest batch tells; and one batch is never tried for longer than 20 ms and a run of each."""

    def unwanted() -> NoReturn:
        raise AssertionError

    together = Timed("together", clock, lambda _: 2000)
    assert not MaybeOnOneThread(together, unwanted).tune(batches(1, 2))
    assert together.runs == 1
    small = MaybeOnOneThread(
        Timed("together", clock, lambda n: 9e9 if n > 1 else 20), lambda: Timed("alone", clock, lambda _: 10)
    )
    before = clock.now
    assert small.tune(batches(1, 1000))
    assert clock.now - before < 9.1e3
    assert [answered_by(small, size) for size in (1, 2)] == ["alone", "together"]


def test_every_signature_must_gain(clock: Clock) -> None:
    """The smaller limit of two holds; where one gains nothing, all threads run both."""
    for sizes, by in (((1, 2), ["alone", "together"]), ((64,), ["together", "together"])):
        graph, alone = pair(clock)
        assert graph.tune(batches(1, 4, 8))
        assert graph.tune(batches(*sizes)) == (by[0] == "alone")
        assert [answered_by(graph, size) for size in (2, 8)] == by
        assert alone.closed == (by[0] == "together")


def test_without_anything_to_try_or_memory_for_it_all_threads_serve(clock: Clock) -> None:
    """A choice that cannot be made costs no model its place; batches without elements tell nothing."""

    def full() -> NoReturn:
        raise GraphNotLoadable("no memory")

    graph = MaybeOnOneThread(Timed("together", clock, lambda _: 20), full)
    assert not graph.tune(batches(1))
    assert answered_by(graph, 1) == "together"
    assert not MaybeOnOneThread(Timed("together", clock, lambda _: 20), full).tune(batches(0))


def test_both_are_closed(clock: Clock) -> None:
    """None holds memory afterwards."""
    alone, together = Timed("alone", clock, lambda _: 10), Timed("together", clock, lambda _: 20)
    graph = MaybeOnOneThread(together, lambda: alone)
    assert graph.tune(batches(1))
    graph.close()
    assert (alone.closed, together.closed) == (True, True)


def test_a_small_graph_answers_the_same_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever session runs a batch of a real graph."""
    monkeypatch.setattr("server.backends.onnx_runtime.physical_cores", lambda: 2)
    monkeypatch.setattr(one_thread, "_GAIN", 0.0)  # as if it were faster whatever this machine does meanwhile
    monkeypatch.setattr(one_thread, "_SECONDS", 60.0)
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("u", (64, 256)), ("w", (256, 9)))
    }
    text = "g (float[B,64] x) => (float[B,9] y) {a = MatMul(x, u) b = Relu(a) y = MatMul(b, w)}"
    spec = write_graph(tmp_path, text, weights)
    x = rng.standard_normal((64, 64)).astype(np.float32)
    expected = np.maximum(x @ weights["u"], 0) @ weights["w"]
    graph = OnnxRuntimeBackend().load(spec)
    assert isinstance(graph, Tunable)
    assert graph.tune(({"x": x[:rows]}, ["y"]) for rows in (1, 4, 16))
    for rows in (1, 16, 17, 64):
        assert np.allclose(graph.run({"x": x[:rows]}, ["y"])[0], expected[:rows], rtol=1e-4, atol=1e-3)
    graph.close()


def test_a_large_graph_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are never loaded twice; and threads that the operator has named are not questioned."""
    monkeypatch.setattr("server.backends.onnx_runtime.physical_cores", lambda: 2)
    small = write_graph(tmp_path, "g (float[B] x) => (float[B] y) {y = Neg(x)}")
    assert isinstance(OnnxRuntimeBackend().load(small), Tunable)
    assert not isinstance(OnnxRuntimeBackend(threads=2).load(small), Tunable)
    assert not isinstance(OnnxRuntimeBackend().load(heavy(tmp_path)), Tunable)
