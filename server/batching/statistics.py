"""What a queue counts about itself, to be asked for now and then: counting must cost a request next to nothing."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

WAIT_SECONDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the classes that waits are counted in; one more holds the longer ones."""

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
    waits: list[int] = field(default_factory=lambda: [0] * (len(WAIT_SECONDS) + 1))
    """Requests that waited, by how long."""
    waited: float = 0.0
    """Seconds, of all of them together."""

    def has_run(self, rows: int, padding: int) -> None:
        """Count a run of requests' rows and of what they were filled up with."""
        self.runs[bisect_left(RUN_ROWS, rows)] += 1
        self.rows += rows
        self.padding += padding

    def has_waited(self, seconds: float) -> None:
        """Count the end of a request's waiting."""
        self.waits[bisect_left(WAIT_SECONDS, seconds)] += 1
        self.waited += seconds

    def snapshot(self, queued_rows: int) -> "Snapshot":
        """What was counted so far."""
        return Snapshot(tuple(self.runs), self.rows, self.padding, tuple(self.waits), self.waited, queued_rows)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The same at one moment, and the rows that wait then."""

    runs: tuple[int, ...]
    rows: int
    padding: int
    waits: tuple[int, ...]
    waited: float
    queued_rows: int
