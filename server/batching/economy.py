"""How many rows are joined: no more than make a row cheaper. Pure; a queue uses it under its lock.

A graphics card runs sixteen rows in the time of one. A processor that one row keeps busy does not, and it takes longer
for each where a batch's arrays no longer fit its caches: joining would then keep requests waiting and gain nothing.

What a row costs is known by classes of batch sizes, powers of two, from the runs themselves. What has not been run for
long is looked at again: with a real batch, the more seldom the dearer it was.
"""

from collections import deque
from statistics import median
from typing import Final

SHORT_SECONDS: Final = 1e-3
"""Runs below say nothing: there it is the requests' handling that joining saves."""
_WORTH: Final = 1.02  # a row must become cheaper by so much for requests to wait for each other
_KEPT: Final = 5  # runs of a class; their median tells, so two that were disturbed do no harm
_RUNS: Final = 32  # before anything is looked at only to learn
_LOOK_BATCHES: Final = 8  # a look at something equally dear is one batch in so many; at twice as dear, in 808
_SELDOM: Final = 100
_MOST: Final = 1.0


class Economy:
    """Of one signature."""

    def __init__(self, largest: int) -> None:
        """Make one that joins up to `largest` rows until it knows better."""
        self._largest = largest
        self._seconds: dict[int, deque[float]] = {}  # for each row, by class
        self._rows_since = dict.fromkeys(range(_class(largest) + 1), 0)
        self._best, self._runs = largest, 0
        self._costs: dict[int, float] = {}

    @property
    def best(self) -> int:
        """Rows joined at most, but for looks."""
        return self._best

    def limit(self, rows: int) -> int:
        """Rows of the next batch at most.

        Args:
            rows: So many could be in it.
        """
        if self._runs < _RUNS or rows < 2:
            return self._best
        cheapest = min(self._costs.values(), default=0.0)
        own = _class(min(rows, self._best))
        for size in range(_class(min(rows, self._largest)) + 1):
            if size == own:
                continue
            excess = self._costs[size] / cheapest - 1 if size in self._costs else 0.0
            if size > own:  # there it is rarely more; if it is, then something has become otherwise since
                excess = min(excess, _MOST)
            if self._rows_since[size] >= _LOOK_BATCHES * (1 + _SELDOM * excess) * (1 << size):
                return min(1 << size, self._largest)
        return self._best

    def observe(self, rows: int, seconds: float) -> None:
        """Note that a run of so many rows took so long, while no other of the signature was under way."""
        if not rows or rows > self._largest or seconds < SHORT_SECONDS:
            return
        self._runs += 1
        for size in self._rows_since:
            self._rows_since[size] += rows
        own = _class(rows)
        self._rows_since[own] = 0
        seen = self._seconds.setdefault(own, deque(maxlen=_KEPT))
        if seconds / rows < self._costs.get(own, 0.0) / 2:  # no luck makes a run so short: what was known is over
            seen.clear()
            del self._costs[own]
        seen.append(seconds / rows)
        if len(seen) == _KEPT:
            self._costs[own] = median(seen)
            self._decide()

    def _decide(self) -> None:
        """The fewest rows that are cheap enough; of the largest batches that were seen, however many there are."""
        worth = _WORTH * min(self._costs.values())
        best = min(size for size, cost in self._costs.items() if cost <= worth)
        self._best = self._largest if best == max(self._costs) else min(1 << best, self._largest)


def _class(rows: int) -> int:
    """The power of two that so many rows fit into: 0 for 1, 1 for 2, 2 for 3 and 4."""
    return (rows - 1).bit_length()
