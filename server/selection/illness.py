"""Whether a backend that became slower, and was left, is well again. Everything is in natural logarithms of seconds.

A look at it now and then is one run, and the first after a silence may be slow for the caches' sake: of a backend that
was three times slower and warms up by as much, no single run tells. So what it was while it served for long is kept,
and it is tried once more, for some batches in a row, the more seldom the longer it has been ill.
"""

import math

from server.selection.character import Character

STEADY = 12  # runs in a row after which a level is one that was served at
FORGOTTEN = 30  # runs in a row without a change after which it is as it is, and not ill
MEMORY = 50.0  # runs from which that level is taken: what grows slower bit by bit isn't ill
MATERIAL = 0.1  # of a growth that is an illness
SOONEST = 900.0  # seconds after which it is as likely as not that one is over that has just begun
FAR, BLUR = (
    3.0,
    0.003,
)  # standard deviations, and variance beside the noise's, beyond which a run denies that it is well
TRIED_ROUGHLY = 0.01  # variance of a level that is only hoped for


class Illness:
    """Of one backend in one bucket.

    Attributes:
        well: The level before it became slower; None if it isn't ill.
        denied_at: When a run last showed it to be ill, in seconds.
        hopes: Whether it is tried as one that is well, and no run has told.
    """

    __slots__ = ("_normal", "_sick", "_since", "denied_at", "well")

    def __init__(self) -> None:
        self.well: float | None = None
        self._normal: float | None = None
        self._sick: float | None = None
        self._since = self.denied_at = -math.inf

    @property
    def hopes(self) -> bool:
        """See the class."""
        return self._sick is not None

    def steady(self, level: float) -> None:
        """A run of many in a row, between which nothing changed."""
        self._normal = level if self._normal is None else self._normal + (level - self._normal) / MEMORY

    def left(self, level: float, row: int, now: float) -> None:
        """It is no longer served from, after so many runs in a row."""
        if self._normal is None or row < STEADY:
            return
        if level - self._normal > MATERIAL:
            if self.well is None:
                self._since = now
            self.well, self.denied_at = self._normal, now
        elif row >= FORGOTTEN:
            self.well = None

    def is_over(self, now: float) -> float:
        """The chance that it is: what has lasted for long will last for long."""
        passed = now - self.denied_at
        return passed / (passed + self.denied_at - self._since + SOONEST)

    def hope(self, level: float) -> float:
        """It is tried; returns the level that is hoped for."""
        assert self.well is not None  # noqa: S101 - only what is ill is tried as if it were well
        self._sick = level
        return self.well

    def tell(self, value: float, row: int, now: float, character: Character) -> float | None:
        """A run of an ill one: the level that it has after all if that ends a hope, else None."""
        assert self.well is not None  # noqa: S101 - see the name
        cold = character.cold if row <= character.cold_runs else 0.0
        sick = self._sick
        if value - self.well > cold + FAR * math.sqrt(character.spread + BLUR):
            self.denied_at, self._sick = now, None
            return sick
        if not cold:
            self._sick = None
        return None
