"""What a lane has chosen: who answers in each bucket, how often that changed and why, and what trying others took.

Counted under the lane's lock, from what the policy decides; nothing here chooses.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.histograms import Snapshot
from server.selection.history import OTHER

SERVE: Final = "serve"
EXPLORE: Final = "explore"
CALIBRATE: Final = "calibrate"
TELL_SECONDS: Final = 60.0
PURPOSES: Final = (SERVE, EXPLORE, CALIBRATE)
"""What a run is for: an answer of the backend that was chosen; an answer, to learn; golden inputs, when idle."""


@dataclass(frozen=True, slots=True)
class Switched:
    """A bucket's batches go to another backend than before.

    Attributes:
        bucket: The bucket's batch size.
        before: The backend that answered.
        after: The backend that answers since.
        kind: One of selection.history.KINDS.
        reason: In words; empty if the policy has none.
    """

    bucket: int
    before: str
    after: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class SteppedIn:
    """A backend answered a batch that another had failed, or left to it.

    Attributes:
        bucket: The bucket's batch size.
        backend: The one that did not answer.
        after: The one that did.
        kind: The kind of failure, as selection.interface.Failure says it.
        reason: In the words of the backend; empty if it has said nothing.
    """

    bucket: int
    backend: str
    after: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a lane has counted up to a moment.

    Attributes:
        selected: The backend that answers, by bucket; only buckets that had batches.
        switches: By bucket, backend before, backend after and kind.
        failures: Runs that failed, by backend and kind of failure.
        seconds: Time of runs, by backend and purpose.
        runs: Durations of batches by backend and bucket.
    """

    selected: Mapping[int, str]
    switches: Mapping[tuple[int, str, str, str], int]
    failures: Mapping[tuple[str, str], int]
    seconds: Mapping[tuple[str, str], float]
    runs: Mapping[tuple[str, int], Snapshot]


class Choices:
    """One lane's."""

    __slots__ = ("_told_at", "seconds", "selected", "switches")

    def __init__(self) -> None:
        self.selected: dict[int, str] = {}
        self.switches: Counter[tuple[int, str, str, str]] = Counter()
        self.seconds: dict[tuple[str, str], float] = {}
        self._told_at: dict[tuple[str, str], float] = {}

    def is_news(self, backend: str, kind: str, now: float) -> bool:
        """Whether a failure is to be told: one of a backend and kind in a while, however many there are."""
        if now - self._told_at.get((backend, kind), -math.inf) < TELL_SECONDS:
            return False
        self._told_at[backend, kind] = now
        return True

    def spent(self, backend: str, purpose: str, seconds: float) -> None:
        """Note a run."""
        of = backend, purpose
        self.seconds[of] = self.seconds.get(of, 0.0) + seconds

    def move(self, bucket: int, after: str, said: Iterable[Mapping[str, Any]]) -> Switched | None:
        """Note that a bucket's batches go to a backend from now on; None if they went to no other before.

        Args:
            bucket: The bucket's batch size.
            after: The backend.
            said: The policy's switches, the oldest first, as its snapshot has them.
        """
        before = self.selected.get(bucket)
        self.selected[bucket] = after
        if before is None:
            return None
        mine = [switch for switch in said if (switch["bucket"], switch["to"]) == (bucket, after)]
        kind, reason = (mine[-1]["kind"], mine[-1]["reason"]) if mine else (OTHER, "")
        self.switches[bucket, before, after, kind] += 1
        return Switched(bucket, before, after, kind, reason)
