"""What a queue counts about itself, to be asked for now and then: counting must cost a request next to nothing."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

WAIT_SECONDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the classes that waits are counted in; one more holds the longer ones."""

QUEUING_MICROSECONDS: Final = tuple(100 * 1.2**k for k in range(52))
"""Upper bounds of TensorFlow Serving's classes (batching/batching_session.cc), about a second at the end."""

_BOUNDS: Final = tuple(sorted({*WAIT_SECONDS, *(bound / 1e6 for bound in QUEUING_MICROSECONDS)}))
# The last cell counted by each bound of a set.
_OURS: Final = tuple(_BOUNDS.index(bound) for bound in WAIT_SECONDS)
_THEIRS: Final = tuple(_BOUNDS.index(bound / 1e6) for bound in QUEUING_MICROSECONDS)

RUN_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Likewise of runs, by the requests' rows in them."""


@dataclass(slots=True)
class Statistics:
    """Counted under the queue's lock."""

    runs: list[int] = field(default_factory=lambda: [0] * (len(RUN_ROWS) + 1))
    """Runs, by how many of the requests' rows were in them."""
    rows: int = 0
    """The requests' rows in all runs together."""
    padding: int = 0
    """Rows that were run only to fill batches up."""
    at_once: int = 0
    """Requests that found a place free and never came into the queue."""
    waits: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    """Requests that came into the queue, by how long they waited: classes that both sets of bounds are made of."""
    waited: float = 0.0
    """Seconds, of all of them together."""

    def has_run(self, rows: int, padding: int) -> None:
        """Count a run of requests' rows and of what they were filled up with."""
        self.runs[bisect_left(RUN_ROWS, rows)] += 1
        self.rows += rows
        self.padding += padding

    def has_waited(self, seconds: float) -> None:
        """Count the end of a request's waiting."""
        self.waits[bisect_left(_BOUNDS, seconds)] += 1
        self.waited += seconds

    def snapshot(self, queued_rows: int, joined_rows: int) -> "Snapshot":
        """What was counted so far."""
        waits = Waits(self.at_once, tuple(self.waits), self.waited, sum(self.runs))
        return Snapshot(tuple(self.runs), self.rows, self.padding, waits, queued_rows, joined_rows)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long requests waited, of one queue or of several, and how many runs they waited for."""

    at_once: int = 0
    cells: tuple[int, ...] = (0,) * (len(_BOUNDS) + 1)
    seconds: float = 0.0
    """Of all of them together."""
    runs: int = 0

    def __add__(self, other: "Waits") -> "Waits":
        """Both together."""
        cells = tuple(mine + theirs for mine, theirs in zip(self.cells, other.cells, strict=True))
        return Waits(self.at_once + other.at_once, cells, self.seconds + other.seconds, self.runs + other.runs)

    def by_seconds(self) -> list[tuple[float, int]]:
        """Our bounds, each with those that came into the queue and waited no longer."""
        return self._up_to(WAIT_SECONDS, _OURS)

    def by_microseconds(self) -> list[tuple[float, int]]:
        """TensorFlow Serving's bounds, each with the requests that waited no longer; those at once are among them."""
        return [(bound, self.at_once + count) for bound, count in self._up_to(QUEUING_MICROSECONDS, _THEIRS)]

    def _up_to(self, bounds: Sequence[float], cells: Sequence[int]) -> list[tuple[float, int]]:
        cumulated = list(accumulate(self.cells))
        return [(bound, cumulated[cell]) for bound, cell in zip(bounds, cells, strict=True)]

    @property
    def count(self) -> int:
        """Those that came into the queue."""
        return sum(self.cells)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a queue has counted up to a moment, the rows that wait then, and how many are joined at most."""

    runs: tuple[int, ...]
    rows: int
    padding: int
    waits: Waits
    queued_rows: int
    joined_rows: int
