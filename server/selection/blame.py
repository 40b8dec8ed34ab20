"""Whose fault a failure is. Who is quarantined for it is decided elsewhere.

A batch that fails on one backend and is answered by another was the first one's fault; one that fails on every backend
was the client's. A backend that left an answered batch to another is told so in the same way; that is no fault.
"""

from collections.abc import Collection

from server.selection.interface import Failure
from server.selection.pairs import Pair

OPEN = 256  # batches that failed and are neither answered nor failed everywhere yet


class Court:
    """Failed batches until it is known whose fault it was."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[bool, list[tuple[Pair, Failure]]]] = {}

    def failed(self, batch: int, pair: Pair, failure: Failure, present: Collection[str], *, exploring: bool) -> None:
        """A batch failed on a backend; if on all that are there, it's closed: the input's fault."""
        _, failures = self._open.setdefault(batch, (exploring, []))
        failures.append((pair, failure))
        if {one.backend for one, _ in failures}.issuperset(present):
            del self._open[batch]
        elif len(self._open) > OPEN:
            del self._open[next(iter(self._open))]

    def is_exploring(self, batch: int) -> bool | None:
        """Whether the batch's first run explored; None if it hasn't failed."""
        entry = self._open.get(batch) if self._open else None
        return None if entry is None else entry[0]

    def answered(self, batch: int) -> list[tuple[Pair, Failure]]:
        """A batch was answered: those that failed it are to blame."""
        return self._open.pop(batch, (False, []))[1]
