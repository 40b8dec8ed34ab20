"""Loading beside requests: were it to take every core, each request would wait until the system takes one back."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_TASKS = Path("/proc/self/task")

_T = TypeVar("_T")


def in_own_thread(work: Callable[[], _T]) -> _T:
    """Do work in a new thread, and return or raise what it does.

    OpenMP gives each thread that computes helpers of its own, and keeps them as long as that thread. Those of a thread
    that has loaded before would not be made inside `leaving_cores`, and take every core.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def leaving_cores() -> Iterator[None]:
    """Keep this thread, and those that it starts, off a quarter of the process's cores, and off one at the least.

    Afterwards they may use all of them. A runtime's threads that were made inside keep the restriction until then, so
    what is tried out inside runs on fewer cores than requests will; so that they are made inside, load in a thread of
    its own. OpenVINO's have places of their own for each run, and take every core. Two at once leave the same cores
    free; the first that ends lifts the other's restriction too, so that what serves by then is not slowed.

    Does nothing where there is one core, or where threads cannot be restricted.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    every = os.sched_getaffinity(0)
    kept = set(sorted(every)[max(1, len(every) // 4) :])
    if not kept:
        yield
        return
    before = _threads()
    os.sched_setaffinity(0, kept)
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)
        for thread in _threads() - before:
            _release(thread, kept, every)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()}


def _release(thread: int, kept: set[int], every: set[int]) -> None:
    try:
        if os.sched_getaffinity(thread) == kept:  # a runtime may have given its threads places of its own
            os.sched_setaffinity(thread, every)
    except ProcessLookupError:
        pass  # it has ended
