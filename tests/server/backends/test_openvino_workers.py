"""Promises of server.backends.openvino_workers."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.backends.cores import running_on
from server.backends.interface import LoadedGraph
from server.backends.openvino_workers import Workers
from tests.server.backends.graphs import heavy

EVERY = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
KEPT = frozenset(sorted(EVERY)[1:])
_TASKS = Path("/proc/self/task")

pytestmark = [pytest.mark.alone, pytest.mark.skipif(not KEPT, reason="one core leaves nothing to share")]


class Native(threading.Thread):
    """A thread that Python's list of threads does not show, as a runtime's are not, until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.begun, self.over = threading.Event(), threading.Event()
        self.start()
        self.begun.wait()

    def run(self) -> None:
        """Hide, and wait."""
        hidden = threading._active.pop(threading.get_ident())  # type: ignore[attr-defined]
        self.begun.set()
        self.over.wait()
        threading._active[threading.get_ident()] = hidden  # type: ignore[attr-defined]

    @property
    def cores(self) -> frozenset[int]:
        """Those it may use."""
        assert self.native_id is not None
        return frozenset(os.sched_getaffinity(self.native_id))


@pytest.fixture
def started() -> Iterator[list[Native]]:
    """Threads that a test has started; they end with it."""
    threads: list[Native] = []
    yield threads
    for thread in threads:
        thread.over.set()
        thread.join()


def test_a_thread_that_may_use_every_core_changes_nothing(started: list[Native]) -> None:
    """Requests are answered by such threads: they neither look for workers nor place them."""
    workers = Workers()
    with workers.beside_requests():
        started.append(Native())
    with running_on(KEPT), workers.beside_requests():
        assert started[0].cores == EVERY


def test_workers_of_an_earlier_load_leave_the_cores_of_a_later_one(started: list[Native]) -> None:
    """What the first load has started is kept off the same cores by the second, and free between and after them."""
    workers = Workers()
    older = Native()
    started.append(older)
    with running_on(KEPT), workers.beside_requests():
        assert os.sched_getaffinity(0) == EVERY, "what first computes must see every core"
        started.append(Native())
    assert started[1].cores == EVERY
    with running_on(KEPT), workers.beside_requests():
        assert os.sched_getaffinity(0) == KEPT
        assert started[1].cores == KEPT
        assert older.cores == EVERY
    assert started[1].cores == EVERY


def test_a_worker_that_has_ended_is_forgotten(started: list[Native]) -> None:
    """Its number may be another thread's later."""
    workers = Workers()
    with running_on(KEPT), workers.beside_requests():
        started.append(Native())
    started[0].over.set()
    started[0].join()
    while (_TASKS / str(started[0].native_id)).exists():
        os.sched_yield()
    with running_on(KEPT), workers.beside_requests():
        assert workers._known == set()


def _processor_time() -> dict[int, int]:
    """By thread, in the kernel's ticks."""
    times = {}
    for entry in _TASKS.iterdir():
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        times[int(entry.name)] = int(fields[11]) + int(fields[12])
    return times


def _runs_beside(graph: LoadedGraph, rows: int) -> tuple[dict[int, int], dict[int, frozenset[int]]]:
    """Run for a while in a thread that leaves a core; returns who computed, and where each thread could in between."""
    inputs = {"x": np.ones((rows, 1024), np.float32)}
    over = threading.Event()

    def run() -> None:
        with running_on(KEPT):
            while not over.is_set():
                graph.run(inputs, ["y11"])

    loader = threading.Thread(target=run)
    begin = _processor_time()
    loader.start()
    places: dict[int, frozenset[int]] = {}
    try:
        while sum(_processor_time().values()) - sum(begin.values()) < 50:
            pass
        while frozenset(os.sched_getaffinity(loader.native_id or 0)) != KEPT:
            time.sleep(0)
        places = {thread: frozenset(os.sched_getaffinity(thread)) for thread in _processor_time()}
        used = {thread: ticks - begin.get(thread, 0) for thread, ticks in _processor_time().items()}
    finally:
        over.set()
        loader.join()
    del used[threading.get_native_id()]
    return used, places


def test_openvino_computes_for_a_load_on_the_cores_that_are_left_to_it(tmp_path: Path) -> None:
    """Its workers, which requests have used on every core, and the thread that runs."""
    pytest.importorskip("openvino", reason="an optional install")
    from server.backends.openvino import OpenVinoBackend  # noqa: PLC0415 - the other tests need no OpenVINO

    backend = OpenVinoBackend(threads=2)
    with running_on(KEPT):
        graph = backend.load(heavy(tmp_path))
        graph.run({"x": np.ones((64, 1024), np.float32)}, ["y11"])
    graph.run({"x": np.ones((512, 1024), np.float32)}, ["y11"])
    used, places = _runs_beside(graph, 2048)
    busy = {thread for thread, ticks in used.items() if ticks > 0.2 * sum(used.values())}
    graph.close()
    assert busy
    assert all(places[thread] == KEPT for thread in busy), (used, places)
