"""What a policy says of its own choices, with a type: how each backend stands, and the switches that were made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.selection.history import OTHER


@dataclass(frozen=True, slots=True)
class Standing:
    """How one backend stands in one bucket.

    Attributes:
        bucket: The bucket's batch size.
        backend: Its name.
        state: Such as "calibrating", "eligible", "quarantined".
        reason: Why, in words; empty if there is nothing to say.
        estimate: Seconds that a run takes at present, None if that is not known.
        samples: Runs that the estimate rests on.
        last_seen: When it ran last, by the policy's clock; None if it has not.
    """

    bucket: int
    backend: str
    state: str = "eligible"
    reason: str = ""
    estimate: float | None = None
    samples: int = 0
    last_seen: float | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of mind.

    Attributes:
        time: By the policy's clock.
        bucket: The bucket's batch size.
        before: The backend that was chosen.
        after: The backend that is chosen since.
        reason: In words, with figures.
        kind: The reason in one word, one of selection.history.KINDS.
    """

    time: float
    bucket: int
    before: str
    after: str
    reason: str
    kind: str = OTHER


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How everything stands at one moment.

    Attributes:
        standings: Of every backend in every bucket.
        selected: The backend that is chosen, by bucket.
        exploration_share: Of the time that runs took, what was spent on those made to learn.
    """

    standings: tuple[Standing, ...]
    selected: Mapping[int, str]
    exploration_share: float


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


def explained(said: Mapping[str, Any], now: float) -> Explanation:
    """Give a type to what `selection.policy.Selector.snapshot` says."""
    standings = tuple(
        Standing(
            *(pair["bucket"], pair["backend"], pair["state"], pair["reason"], pair["seconds"], pair["samples"]),
            last_seen=None if pair["last_seen"] is None else now - pair["last_seen"],
        )
        for pair in said["pairs"]
    )
    switches = tuple(
        Switch(s["time"], s["bucket"], s["from"], s["to"], s["reason"], s["kind"]) for s in said["switches"]
    )
    selected = {bucket: backend for bucket, backend in said["selected"].items() if backend is not None}
    return Explanation(Snapshot(standings, selected, said["exploration_share"]), switches, now)
