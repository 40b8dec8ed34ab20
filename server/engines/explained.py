"""What a policy says of its own choices, for people: how each backend stands, and the switches that were made.

A policy need not explain itself; one that does is recognised by its form. Nothing here chooses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class Standing(Protocol):
    """How one backend stands in one bucket."""

    @property
    def bucket(self) -> int:
        """The bucket's batch size."""

    @property
    def backend(self) -> str:
        """Its name."""

    @property
    def state(self) -> str:
        """Such as "calibrating", "eligible", "quarantined"."""

    @property
    def reason(self) -> str:
        """Why, in words; empty if there is nothing to say."""

    @property
    def estimate(self) -> float | None:
        """Seconds that a run takes at present, None if that is not known."""

    @property
    def samples(self) -> int:
        """Runs that the estimate rests on."""

    @property
    def last_seen(self) -> float | None:
        """When it ran last, by the policy's clock; None if it has not."""


class Snapshot(Protocol):
    """How everything stands at one moment."""

    @property
    def standings(self) -> Sequence[Standing]:
        """Of every backend in every bucket that is known."""

    @property
    def selected(self) -> Mapping[int, str]:
        """The backend that is chosen, by bucket."""


class Switch(Protocol):
    """A change of mind."""

    @property
    def time(self) -> float:
        """By the policy's clock."""

    @property
    def bucket(self) -> int:
        """The bucket's batch size."""

    @property
    def before(self) -> str:
        """The backend that was chosen."""

    @property
    def after(self) -> str:
        """The backend that is chosen since."""

    @property
    def reason(self) -> str:
        """In words, with figures."""


@runtime_checkable
class Explaining(Protocol):
    """A policy that explains itself. Called with the lane's lock held, as a policy is for everything else."""

    @property
    def history(self) -> Iterable[Switch]:
        """The last switches, the oldest first; bounded."""

    def snapshot(self) -> Snapshot:
        """How everything stands now; not changed by what happens later."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy said.

    Attributes:
        snapshot: How everything stands.
        history: The last switches, the oldest first.
        now: The moment, by the policy's clock.
    """

    snapshot: Snapshot
    history: tuple[Switch, ...]
    now: float
