"""One thread for small batches of small graphs, whose runs take less time than handing their work out does. Pure.

Which batches those are is tried where a version loads, never where requests are answered.
"""

import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from server.arrays import Array
from server.backends.interface import Batch, LoadedGraph
from server.errors import GraphNotLoadable

_GAIN: Final = 1.1
"""How many times faster one thread must be. Less is within what such short runs vary by."""
_ROUNDS: Final = 100
_FEWEST: Final = 25
_WARM: Final = 3
_SECONDS: Final = 0.02
"""What trying one batch may take: a graph that is not run so often by then has enough to do for several threads."""


class MaybeOnOneThread:
    """A graph on all threads and, if that is faster for its smaller batches, the same once more on one thread."""

    def __init__(self, together: LoadedGraph, open_alone: Callable[[], LoadedGraph]) -> None:
        """Make it; before it is tuned every batch is run on all threads.

        Args:
            together: On all threads.
            open_alone: Loads the same on one thread; raises GraphNotLoadable.
        """
        self._together = together
        self._open_alone: Callable[[], LoadedGraph] | None = open_alone
        self._alone: LoadedGraph | None = None
        self._largest = sys.maxsize

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run."""
        alone = self._alone
        if alone is not None and _size(inputs) <= self._largest:
            return alone.run(inputs, outputs)
        return self._together.run(inputs, outputs)

    def tune(self, batches: Iterable[Batch]) -> bool:
        """Find the largest batch for one thread, which has to be faster for every signature; see Tunable.tune."""
        if self._open_alone is None:
            return False
        some = (batch for batch in batches if _size(batch[0]))
        first, largest = next(some, None), 0
        # One run tells whether it is worth loading it once more, which takes memory.
        if first is not None and _seconds(self._together, first) * _FEWEST < _SECONDS:
            with contextlib.suppress(GraphNotLoadable):  # for want of memory, say
                self._alone = self._alone or self._open_alone()
                largest = _faster_up_to(itertools.chain([first], some), self._alone, self._together)
        self._largest = min(self._largest, largest)
        if not self._largest:
            self._open_alone = None
            self._close_alone()
        return self._largest > 0

    def close(self) -> None:
        """Free both; see LoadedGraph.close."""
        try:
            self._close_alone()
        finally:
            self._together.close()

    def _close_alone(self) -> None:
        alone, self._alone = self._alone, None
        if alone is not None:
            alone.close()


def _faster_up_to(batches: Iterable[Batch], alone: LoadedGraph, together: LoadedGraph) -> int:
    """The size of the largest batch that `alone` answers clearly faster, as it does all before it; 0 if none."""
    size = 0
    for batch in batches:
        if not _is_faster(alone, together, batch):
            break
        size = max(size, _size(batch[0]))
    return size


def _is_faster(alone: LoadedGraph, together: LoadedGraph, batch: Batch) -> bool:
    """Timed by turns, so that what else the machine does befalls both."""
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + _SECONDS
    while len(pairs) < _WARM + _ROUNDS and time.perf_counter() < end:
        pairs.append((_seconds(alone, batch), _seconds(together, batch)))
    warm = pairs[_WARM:]
    if len(warm) < _FEWEST:
        return False
    return statistics.median(pair[1] for pair in warm) >= _GAIN * statistics.median(pair[0] for pair in warm)


def _seconds(graph: LoadedGraph, batch: Batch) -> float:
    begin = time.perf_counter()
    graph.run(*batch)
    return time.perf_counter() - begin


def _size(inputs: Mapping[str, Array]) -> int:
    """How many elements a batch has."""
    return sum(array.size for array in inputs.values())
