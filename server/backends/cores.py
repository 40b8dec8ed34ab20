"""How many threads a run may use: the physical cores that this process has, by its affinity and its container's quota.

Runtimes that are left to count for themselves count the machine's, and some pin a thread to each: then the threads of
every model lie on the same cores.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Cores without their second hardware threads, which add nothing to matrix products; at least 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    cores = {_siblings(number) for number in mine}
    return max(1, min(len(cores), _quota()))


def affinity() -> frozenset[int]:
    """The processors that this thread may run on; empty where threads cannot be told."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


@contextmanager
def running_on(processors: frozenset[int]) -> Iterator[None]:
    """Let this thread run on these for the length of the block: for a runtime that sizes its pools by that."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _siblings(number: int) -> str:
    """The hardware threads of the core that one belongs to; equal texts, equal cores."""
    try:
        return (_TOPOLOGY / f"cpu{number}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(number)


def _quota() -> int:
    """Cores that the container may keep busy, rounded up, by the kernel's cgroup v2 interface; many without a limit."""
    try:
        most, period = _QUOTA.read_text().split()
        return math.ceil(int(most) / int(period))
    except (OSError, ValueError):  # no such interface, or "max"
        return 1 << 16
