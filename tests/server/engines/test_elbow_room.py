"""Promises of server.engines.elbow_room."""

import os
import threading

import pytest

from server.engines.elbow_room import in_own_thread, leaving_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core leaves nothing to share"
)


class Idler(threading.Thread):
    """A thread that waits until it is told to end, as those of a runtime's pool do."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        """Wait."""
        self.over.wait()

    @property
    def cores(self) -> set[int]:
        """Those it may use."""
        assert self.native_id is not None
        return os.sched_getaffinity(self.native_id)

    def end(self) -> None:
        """End it."""
        self.over.set()
        self.join()


def test_whoever_loads_leaves_a_core_and_gets_it_back() -> None:
    """Inside, the thread is off one core at least; afterwards it may use all, even if the load failed."""
    every = os.sched_getaffinity(0)
    inside = []

    def load() -> None:
        inside.append(os.sched_getaffinity(0))
        raise ValueError("it does not load")

    with pytest.raises(ValueError, match="it does not load"), leaving_cores():
        load()
    assert inside[0] < every
    assert os.sched_getaffinity(0) == every


def test_threads_made_while_loading_are_free_afterwards() -> None:
    """A runtime's pool that was made inside is restricted inside and free afterwards; older threads never change."""
    every = os.sched_getaffinity(0)
    older = Idler()
    with leaving_cores():
        pool = Idler()
        assert pool.cores < every
        assert older.cores == every
    assert pool.cores == every
    for thread in (older, pool):
        thread.end()


def test_two_loads_at_once_end_without_restrictions() -> None:
    """Whichever ends first, no thread stays restricted after both."""
    every = os.sched_getaffinity(0)
    first, second = leaving_cores(), leaving_cores()
    pools: list[Idler] = []

    def load_beside() -> None:
        with second:
            pools.append(Idler())

    with first:
        beside = threading.Thread(target=load_beside)
        beside.start()
        beside.join()
        pools.append(Idler())
    assert all(pool.cores == every for pool in pools)
    for pool in pools:
        pool.end()


def test_what_is_done_in_a_thread_of_its_own_ends_there() -> None:
    """The helpers that OpenMP gives a thread end with it; what it returns or raises arrives."""

    def fail() -> None:
        raise ValueError("it does not load")

    thread = in_own_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    with pytest.raises(ValueError, match="it does not load"):
        in_own_thread(fail)
