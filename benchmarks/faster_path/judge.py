"""What counts as the faster path. Pure: times in, verdicts out.

In one run the server settles on a choice by itself; that one is judged. Only then every backend answers alone in turn,
pinned, and the server answers by its own choice in between; what is compared is the median time that the client waits,
taken within rounds, for a machine that others use too slows down alike what runs together. What the server selects in
the rounds is not judged: it has learnt from the pinned runs by then.

- The *fastest* backend of a batch size is the one with the least median over the rounds.
- Another one is *as fast* if the 95 % interval of the ratio of both, paired by rounds, has a value from 0.97 to 1.03,
  and the median ratio is at most 1.05: however wide the interval, who is slower by more is not as fast.
- A backend *wins* a batch size if it is the fastest and none is as fast.
- The choice is *right* if the backend that was selected before the first pin is the fastest, or as fast. If the choice
  had not settled by then, only the fastest is right.
- It is *quick* if the median ratio of the times served in the rounds to the fastest backend's is at most 1.05.
- It *holds* if it is right and quick.

A policy that always answers by one backend is judged by the same rule: it selects that one, and its times are that
one's times alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.backends.figures import Ratio, paired_ratio

LIMIT: Final = 1.05
"""Times the fastest backend's time that a choice may take, and that a backend takes which is as fast, by the median."""
ALIKE: Final = (0.97, 1.03)
"""Ratios that are no difference."""

Times = Sequence[float]
"""Median seconds of a request, by round."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch size of one model.

    Attributes:
        alone: By backend, the times with that backend pinned.
        chosen: The times served by what is judged.
        selected: The backend that was selected before anything was pinned: the choice.
        settled: Whether that was the choice of the last batches too.
    """

    alone: Mapping[str, Times]
    chosen: Times
    selected: str
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of it.

    Attributes:
        fastest: The fastest backend.
        as_fast: Those that are as fast, without the fastest.
        selected: The choice.
        ratio: Of the served times to the fastest backend's.
        right: Whether a fastest backend is selected.
        quick: Whether the ratio is within the limit.
    """

    fastest: str
    as_fast: tuple[str, ...]
    selected: str
    ratio: Ratio
    right: bool
    quick: bool

    @property
    def holds(self) -> bool:
        """Whether it is right and quick."""
        return self.right and self.quick

    @property
    def winner(self) -> str | None:
        """The fastest, if none is as fast."""
        return None if self.as_fast else self.fastest


def joined(parts: Sequence[Measured]) -> Measured:
    """Measurements of the same choice one after the other as one of all their rounds."""
    first = parts[0]
    alone = {name: [time for part in parts for time in part.alone[name]] for name in first.alone}
    chosen = [time for part in parts for time in part.chosen]
    return Measured(alone, chosen, first.selected, first.settled)


def judge(measured: Measured, limit: float = LIMIT) -> Verdict:
    """Judge a choice.

    Args:
        measured: The times of the same rounds.
        limit: Of the served times; short runs on busy machines need more room.

    Raises:
        ValueError: The times are not of the same rounds.
    """
    alone = measured.alone
    fastest = min(alone, key=lambda name: median(alone[name]))
    ratios = {name: paired_ratio(alone[name], alone[fastest]) for name in alone if name != fastest}
    as_fast = tuple(name for name, ratio in ratios.items() if _is_alike(ratio))
    right = {fastest, *(as_fast if measured.settled else ())}
    ratio = paired_ratio(measured.chosen, alone[fastest])
    return Verdict(
        fastest, as_fast, measured.selected, ratio, right=measured.selected in right, quick=ratio.median <= limit
    )


def always(name: str, measured: Measured, limit: float = LIMIT) -> Verdict:
    """Judge the policy that always answers by one backend, as if it had been the choice in the same run."""
    return judge(Measured(measured.alone, measured.alone[name], name), limit)


def _is_alike(ratio: Ratio) -> bool:
    return ratio.low <= ALIKE[1] and ratio.high >= ALIKE[0] and ratio.median <= LIMIT
