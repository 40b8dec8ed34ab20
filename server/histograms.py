"""Counting durations cheaply: one observation, from which several sets of buckets can be told exactly. Pure.

The bounds of every set are bounds of the one list that is counted by, so each set is a sum of its cells.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SECONDS = (
    *(1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2, 1.5e-2, 2e-2, 3e-2, 5e-2, 7e-2),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Ours: from 100 microseconds, below which no request over gRPC ends, to 30 seconds."""

RUN_SECONDS = (1e-5, 2e-5, 3e-5, 5e-5, 7e-5, *SECONDS)
"""Ours for runs alone, which small models end sooner."""

STAGE_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Ours for parts of requests, which may be short: fewer, for there are many parts."""

MICROSECONDS = tuple(10 * 1.8**k for k in range(33))
"""TensorFlow Serving's for latencies (servables/tensorflow/util.cc): about 20 minutes at the upper end."""

_SECONDS_OF_MICROSECONDS = tuple(bound / 1e6 for bound in MICROSECONDS)
_BOUNDS = tuple(sorted({*RUN_SECONDS, *STAGE_SECONDS, *_SECONDS_OF_MICROSECONDS}))
# The last cell counted by each bound of a set.
_OURS = tuple(_BOUNDS.index(bound) for bound in SECONDS)
_RUNS = tuple(_BOUNDS.index(bound) for bound in RUN_SECONDS)
_STAGES = tuple(_BOUNDS.index(bound) for bound in STAGE_SECONDS)
_THEIRS = tuple(_BOUNDS.index(bound) for bound in _SECONDS_OF_MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was counted up to a moment: observations by cell, and their sum in seconds."""

    cells: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.cells)

    def quantile(self, share: float) -> float | None:
        """The duration that this share of the observations does not exceed, in seconds; None if there are none.

        Exact to the cell, evened out within it: a cell is at most 1.8 times as long at its end as at its beginning.
        """
        wanted = share * self.count
        below = 0
        for index, cell in enumerate(self.cells):
            if cell and below + cell >= wanted:
                lower = _BOUNDS[index - 1] if index else 0.0
                upper = _BOUNDS[min(index, len(_BOUNDS) - 1)]
                return lower + (upper - lower) * max(0.0, wanted - below) / cell
            below += cell
        return None

    def by_seconds(self) -> list[tuple[float, int]]:
        """Our bounds, each with the observations that are not greater."""
        return self._cumulated(SECONDS, _OURS)

    def by_run_seconds(self) -> list[tuple[float, int]]:
        """Our bounds for runs, each with the observations that are not greater."""
        return self._cumulated(RUN_SECONDS, _RUNS)

    def by_stage_seconds(self) -> list[tuple[float, int]]:
        """Our bounds for parts of requests, each with the observations that are not greater."""
        return self._cumulated(STAGE_SECONDS, _STAGES)

    def by_microseconds(self) -> list[tuple[float, int]]:
        """TensorFlow Serving's bounds, each with the observations that are not greater."""
        return self._cumulated(MICROSECONDS, _THEIRS)

    def _cumulated(self, bounds: Sequence[float], cells: Sequence[int]) -> list[tuple[float, int]]:
        result, total, done = [], 0, 0
        for bound, cell in zip(bounds, cells, strict=True):
            total += sum(self.cells[done : cell + 1])
            done = cell + 1
            result.append((bound, total))
        return result


class Durations:
    """Counts durations; any thread may observe."""

    __slots__ = ("_cells", "_lock", "_sum")

    def __init__(self) -> None:
        self._cells = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one."""
        cell = bisect_left(_BOUNDS, seconds)
        with self._lock:
            self._cells[cell] += 1
            self._sum += seconds

    def add(self, other: Snapshot) -> None:
        """Count what another has counted."""
        with self._lock:
            self._cells = [mine + theirs for mine, theirs in zip(self._cells, other.cells, strict=True)]
            self._sum += other.sum

    def snapshot(self) -> Snapshot:
        """What has been counted so far."""
        with self._lock:
            return Snapshot(tuple(self._cells), self._sum)


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Several together."""
    durations = Durations()
    for snapshot in snapshots:
        durations.add(snapshot)
    return durations.snapshot()
