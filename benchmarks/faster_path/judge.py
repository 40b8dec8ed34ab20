"""What counts as the faster path. Pure: times in, verdicts out.

The rule was written down before anything was measured with it. In one run every backend answers alone in turn, pinned,
and the server answers by its own choice in between; what is compared is the median time that the client waits, taken
within rounds, for a machine that others use too slows down alike what runs together.

- The *fastest* backend of a batch size is the one with the least median over the rounds.
- Another one is *as fast* if the 95 % interval of the ratio of both, paired by rounds, has a value from 0.97 to 1.03.
- A backend *wins* a batch size if it is the fastest and none is as fast.
- The choice is *right* if the selected backend is the fastest, or as fast.
- It is *quick* if the median ratio of its times to the fastest backend's, paired by rounds, is at most 1.05.
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
"""Times the fastest backend's time that a choice may take."""
ALIKE: Final = (0.97, 1.03)
"""Ratios that are no difference."""

Times = Sequence[float]
"""Median seconds of a request, by round."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch size of one model.

    Attributes:
        alone: By backend, the times with that backend pinned.
        chosen: The times with what is judged.
        selected: The backend that was selected meanwhile, by round.
    """

    alone: Mapping[str, Times]
    chosen: Times
    selected: Sequence[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of it.

    Attributes:
        fastest: The fastest backend.
        as_fast: Those that are as fast, without the fastest.
        selected: The backend that was selected in most rounds.
        ratio: Of the choice's times to the fastest backend's.
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
    """Measurements of the same batch size one after the other as one of all their rounds."""
    alone = {name: [time for part in parts for time in part.alone[name]] for name in parts[0].alone}
    chosen = [time for part in parts for time in part.chosen]
    return Measured(alone, chosen, [name for part in parts for name in part.selected])


def judge(measured: Measured, limit: float = LIMIT) -> Verdict:
    """Judge a choice.

    Args:
        measured: The times of the same rounds.
        limit: See LIMIT; short runs on busy machines need more room.

    Raises:
        ValueError: The times are not of the same rounds.
    """
    alone = measured.alone
    fastest = min(alone, key=lambda name: median(alone[name]))
    ratios = {name: paired_ratio(alone[name], alone[fastest]) for name in alone if name != fastest}
    as_fast = tuple(name for name, ratio in ratios.items() if ratio.low <= ALIKE[1] and ratio.high >= ALIKE[0])
    selected = max(measured.selected, key=list(measured.selected).count)
    ratio = paired_ratio(measured.chosen, alone[fastest])
    return Verdict(
        fastest, as_fast, selected, ratio, right=selected in {fastest, *as_fast}, quick=ratio.median <= limit
    )


def always(name: str, measured: Measured, limit: float = LIMIT) -> Verdict:
    """Judge the policy that always answers by one backend, as if it had been the choice in the same run."""
    return judge(Measured(measured.alone, measured.alone[name], [name]), limit)
