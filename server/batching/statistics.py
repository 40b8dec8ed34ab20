"""What a queue counts about itself, to be asked for now and then: counting must cost a request next to nothing."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WAIT_SECONDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the classes that waits are counted in; one more holds the longer ones."""


@dataclass(slots=True)
class Statistics:
    """Counted under the queue's lock."""

    runs: Counter[int] = field(default_factory=Counter)
    """Runs by the requests' rows in them."""
    padding: int = 0
    """Rows that were run only to fill batches up."""
    waits: list[int] = field(default_factory=lambda: [0] * (len(WAIT_SECONDS) + 1))
    """Requests that waited, by how long."""
    waited: float = 0.0
    """Seconds, of all of them together."""

    def has_waited(self, seconds: float) -> None:
        """Count the end of a request's waiting."""
        self.waits[bisect_left(WAIT_SECONDS, seconds)] += 1
        self.waited += seconds


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The same at one moment, and the rows that wait then."""

    runs: Mapping[int, int]
    padding: int
    waits: tuple[int, ...]
    waited: float
    queued_rows: int
