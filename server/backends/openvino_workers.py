"""Keeping OpenVINO off the cores that whoever loads leaves to requests.

A thread that loads may be kept off some cores (see `engines.elbow_room`), and the threads it starts with it. OpenVINO
computes on workers of oneTBB, which the whole process shares and which stay: those that an earlier load has started
know nothing of a later one's bounds, and would take every core. So they are kept where the thread is that loads.

For that, oneTBB must leave threads where they are. It would give each the places of its arena at every run, through
hwloc, unless hwloc is told that it is not this machine's topology that it sees; then what it binds is ignored
(hwloc's documentation, environment variables). What it reads of the machine stays the same. Nothing here imports
openvino.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.backends.cores import affinity, running_on

_TASKS = Path("/proc/self/task")

os.environ.setdefault("HWLOC_THISSYSTEM", "0")  # read when OpenVINO first computes


class Workers:
    """Those threads of the process that were started while OpenVINO computed for a load."""

    def __init__(self) -> None:
        """Make it before anything loads: the cores of the thread that does are the process's."""
        self._every = affinity()
        self._known: set[int] = set()
        self._has_begun = False

    @contextmanager
    def beside_requests(self) -> Iterator[None]:
        """If this thread is kept off some cores, keep the workers off them too, for the length of the block.

        The first block is not bounded: what first computes in a process, reading a file included, fixes how many
        workers there may ever be. Only one at a time has an effect; where two overlap, the first that ends lifts the
        other's bounds. Threads that others start meanwhile are taken for workers, and are bounded in later loads.
        """
        mine = affinity()
        if mine == self._every:
            yield
            return
        before = _threads()
        first, self._has_begun = not self._has_begun, True
        try:
            self._place(mine)
            with running_on(self._every if first else mine):
                yield
        finally:
            self._known |= _threads() - before - {thread.native_id for thread in threading.enumerate()}
            self._place(self._every)

    def _place(self, cores: frozenset[int]) -> None:
        for worker in tuple(self._known):
            try:
                os.sched_setaffinity(worker, cores)
            except ProcessLookupError:
                self._known.discard(worker)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()}
