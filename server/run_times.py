"""How long a signature's runs took of late, so that one that cannot end in time is not begun. Pure.

By the size of the inputs in powers of two: a small request must not be refused because large ones are slow, least of
all by a server that has nothing else to do, which is why a model's pace (see admission.py) is not asked.
"""

import threading
from dataclasses import dataclass

# So many runs must be known before one is refused: the first ones after loading may be slow.
_KNOWN = 5
# What a longer run adds to the estimate: about the last eight count. A shorter one takes its place at once, so that
# only what is clearly too late is refused.
_WEIGHT = 1 / 8
# One of so many that cannot end in time is run all the same: nothing else would show that runs have become shorter.
_TRIED = 8


@dataclass(slots=True)
class _Known:
    """Of one kind of requests."""

    seconds: float
    runs: int = 0
    vain: int = 0


class RunTimes:
    """Of one signature."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._lock = threading.Lock()

    def expected(self, size: int) -> float:
        """Seconds that a run takes with inputs of about so many bytes; 0 if that is not known."""
        known = self._known.get(size.bit_length())
        return known.seconds if known is not None and known.runs >= _KNOWN else 0.0

    def is_vain(self, size: int) -> bool:
        """Whether a run that is expected to end too late should be refused: all but one of eight."""
        with self._lock:
            known = self._known[size.bit_length()]
            known.vain += 1
            return known.vain % _TRIED != 0

    def observe(self, size: int, seconds: float) -> None:
        """Note that a run with inputs of so many bytes took so long."""
        with self._lock:
            known = self._known.setdefault(size.bit_length(), _Known(seconds))
            known.seconds = min(seconds, known.seconds + _WEIGHT * (seconds - known.seconds))
            known.runs += 1
