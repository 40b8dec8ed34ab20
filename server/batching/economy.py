"""How many rows are joined: no more than make a row cheaper. Pure; a queue uses it under its lock.

A graphics card runs sixteen rows in the time of one. A processor that one row keeps busy does not, and it takes longer
for each where a batch's arrays no longer fit its caches: joining would then keep requests waiting and gain nothing.
Such requests run beside each other, as where rows are never joined, which also fills the pauses in which a run's
threads wait for each other.

What a row costs is known by sizes of batches, those allowed or powers of two, from the runs themselves. Runs beside
each other share the machine: each is charged its part of the time. What has not been run for long is looked at again,
with real batches, the more seldom the dearer it was.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

SHORT_SECONDS: Final = 1e-3
"""Runs below say nothing: there it is the requests' handling that joining saves."""
UNLIMITED: Final = 2**31
"""Runs at once where no request waits for another; how many there may be is for admission to say."""
_WORTH: Final = 1.02  # a row must become cheaper by so much for requests to wait for each other
_KEPT, _KNOWN = 5, 3  # runs of a size, and how few tell; by their median, so one that was disturbed does no harm
_RUNS: Final = 32  # before anything is looked at only to learn
_LOOK_BATCHES: Final = 32  # a look at something equally dear is one in so many; at twice as dear, in 3,232
_SELDOM: Final = 100
_MOST: Final = 0.25  # larger batches are rarely dearer by more; if they were, something has become otherwise since
_MISSED: Final = 3  # times that a look found too little to join
_APART: Final = 16  # runs of a look at requests by themselves: beside each other they cost something else than alone


class Economy:
    """Of one signature."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Make one that joins all it may, and runs one batch at a time, until it knows better.

        Args:
            sizes: Of batches, ascending: what is known of one is what is known of all above the size before.
        """
        self._sizes, self._largest = tuple(sizes), sizes[-1]
        self._seconds: dict[int, deque[float]] = {}  # for each row, by size
        self._costs: dict[int, float] = {}
        self._rows_since = dict.fromkeys(self._sizes, 0)
        self._best, self._runs, self._single, self._apart = self._largest, 0, 1, 0
        self._missed = 0
        self._running, self._shared, self._at = 0, 0.0, 0.0

    @property
    def best(self) -> int:
        """Rows joined at most, but for looks."""
        return self._best

    def begin(self, request_rows: int, now: float) -> float:
        """A run begins; returns what `end` wants to have.

        Args:
            request_rows: Of the (first) request in it.
            now: Seconds.
        """
        self._share(now)
        self._running += 1
        self._single = min(max(1, request_rows), self._largest)
        return self._shared

    def end(self, begun: float, rows: int, now: float) -> None:
        """A run of so many rows has ended; of none if it failed, which says nothing."""
        self._share(now)
        self._running -= 1
        self._apart = max(0, self._apart - 1)
        self._observe(rows, self._shared - begun)

    def places(self, queued_rows: int) -> int:
        """How many batches may run at once, while so many rows wait."""
        rows = queued_rows + self._running * self._single
        look = self._look(rows)
        if look is not None and self._is_single(look):
            self._apart, self._rows_since[look] = _APART, 0
            return UNLIMITED
        if look is not None and not self._running:
            self._missed += 1  # until `limit` is asked
            if self._missed > _MISSED:  # what waits cannot be joined
                self._rows_since[look], self._missed = -_SELDOM * _APART * self._single, 0
        if self._apart or (look is None and self._is_single(self._best) and self._best < self._largest):
            return UNLIMITED
        return 1

    def limit(self, rows: int) -> int:
        """Rows of the next batch at most.

        Args:
            rows: So many could be in it.
        """
        if self._apart:
            return self._single
        look = self._look(rows)
        if look is not None:
            self._rows_since[look] = self._missed = 0
        return look or self._best

    def _share(self, now: float) -> None:
        """Of the time since the last call, each run that is under way is charged as much."""
        if self._running:
            self._shared += (now - self._at) / self._running
        self._at = now

    def _is_single(self, size: int) -> bool:
        """Whether no two requests fit into a batch of a size."""
        return size < 2 * self._single

    def _next(self, rows: int) -> int:
        """The size that so many rows count as."""
        return next((size for size in self._sizes if size >= rows), self._largest)

    def _look(self, rows: int) -> int | None:
        """A size that should be seen again and so many rows suffice for, if there is one."""
        if self._runs < _RUNS or rows < 2:
            return None
        least, most = self._next(self._single), self._next(rows)
        own = self._next(min(rows, max(self._best, self._single)))
        for size, since in self._rows_since.items():
            if least <= size <= most and size != own and since >= self._due(size):
                return size
        return None

    def _due(self, size: int) -> float:
        """Rows after which a size is looked at again."""
        if size not in self._costs:
            return _LOOK_BATCHES * size
        excess = self._costs[size] / min(self._costs.values()) - 1
        if size > self._best:
            excess = min(excess, _MOST)
        # What runs apart must end before a batch can be run, and the other way round.
        return _LOOK_BATCHES * (1 + _SELDOM * excess) * max(size, _APART * self._single)

    def _observe(self, rows: int, seconds: float) -> None:
        if not rows or rows > self._largest or seconds < SHORT_SECONDS:
            return
        self._runs += 1
        for size in self._sizes:
            self._rows_since[size] += rows
        own = self._next(rows)
        self._rows_since[own] = 0
        seen = self._seconds.setdefault(own, deque(maxlen=_KEPT))
        if seconds / rows < self._costs.get(own, 0.0) / 2:  # no luck makes a run so short: what was known is over
            seen.clear()
            del self._costs[own]
        seen.append(seconds / rows)
        if len(seen) >= _KNOWN:
            self._costs[own] = median(seen)
            self._decide()

    def _decide(self) -> None:
        """The fewest rows that are cheap enough; of the largest batches that were seen, however many there are."""
        worth = _WORTH * min(self._costs.values())
        best = min(size for size, cost in self._costs.items() if cost <= worth)
        self._best = self._largest if best == max(self._costs) else best
