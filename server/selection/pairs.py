"""What the policy keeps: a pair per backend and bucket, what is selected per bucket. It is chosen elsewhere."""

import math
from collections.abc import Iterator, Sequence

from server.selection.character import Character, Objective
from server.selection.estimates import Estimate
from server.selection.interface import Decision
from server.selection.states import Health, State

# Of how much faster or slower (a logarithm) a backend is in other buckets, what is expected where it wasn't measured.
SHRINK = 0.5
CHURN_SECONDS = 1500.0  # after which a bucket's earlier switches count a third
LATELY = 3600.0  # seconds since its last batch in which a bucket is busy


class Pair:
    """One backend in one bucket.

    Attributes:
        backend: Its name.
        bucket: The bucket.
        character: The backend's, shared by all its pairs.
        estimate: How long it takes.
        health: Its failures.
        loaded: When the backend became available.
        exploring: Exploring batches under way.
        then: What other buckets' estimates of the backend were (level, variance) when it was last seen here.
        decision: To serve from it; `look` is to explore it.
    """

    __slots__ = (
        "backend", "bucket", "character", "decision", "estimate", "exploring", "health", "loaded", "look", "then",
    )  # fmt: skip

    def __init__(self, backend: str, bucket: "Bucket", character: Character, now: float) -> None:
        self.backend, self.bucket, self.character, self.loaded = backend, bucket, character, now
        self.estimate, self.health, self.exploring = Estimate(), Health(), 0
        self.then: dict[int, tuple[float, float]] = {}
        self.decision, self.look = Decision(backend), Decision(backend, is_exploration=True)


class Bucket:
    """One batch size.

    Attributes:
        size: Rows.
        pairs: By backend, those that are away included.
        selected: Where batches go; None before the first and after the selected backend was taken away.
        last: The pair that was selected most recently.
        previous: What a switch that is not confirmed yet left.
        left_to_check: What was left, at `checked_at` in seconds, to find out whether the selected one is well again.
        probe: What the next batch shall explore.
        count: Batches so far; `due` is the one that is considered next.
        has_inputs: Whether there are golden inputs of this size, as far as is known.
        patient_until: The count before which what is tried isn't taken back for being slow, for it may warm up.
        switched_at: The count at the last switch; `alarmed_at` at the last change for the worse.
        asked_at: When its last batch came, in seconds.
        retry_at: When a quarantined pair is due, in seconds.
        released: An operator's preference has ended since the last batch.
    """

    __slots__ = (
        "alarmed_at", "asked_at", "checked_at", "churn", "churned_at", "count", "due", "has_inputs", "last",
        "left_to_check", "pairs", "patient_until", "previous", "probe", "released", "retry_at", "selected", "size",
        "switched_at",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        self.size, self.has_inputs = size, True
        self.pairs: dict[str, Pair] = {}
        self.selected: Pair | None = None
        self.last: Pair | None = None
        self.previous: Pair | None = None
        self.probe: Pair | None = None
        self.left_to_check: Pair | None = None
        self.checked_at = -math.inf
        self.count = self.due = 0
        self.released = False
        self.switched_at = self.alarmed_at = self.patient_until = -100
        self.churn, self.churned_at, self.asked_at, self.retry_at = 0.0, -math.inf, -math.inf, math.inf

    def recent_switches(self, now: float) -> float:
        """Switches, the less the longer ago."""
        return self.churn * math.exp((self.churned_at - now) / CHURN_SECONDS)

    def select(self, pair: Pair) -> None:
        """Serve from a pair from now on."""
        if self.selected is not None:
            self.selected.estimate.leave()
        self.previous, self.selected, self.last, self.probe = self.selected, pair, pair, None
        self.switched_at, self.due = self.count, self.count + 1


class Table:
    """All pairs of a model version."""

    def __init__(self, buckets: Sequence[int], objective: Objective) -> None:
        self.buckets = {size: Bucket(size) for size in sorted(buckets)}
        self.objective = objective
        self.characters: dict[str, Character] = {}
        self.stages: dict[str, tuple[State, str]] = {}  # of backends that are not available
        self.present: list[str] = []

    def add(self, backend: str, now: float) -> None:
        """Make the pairs of a backend if there are none."""
        character = self.characters.setdefault(backend, Character())
        for bucket in self.buckets.values():
            if backend not in bucket.pairs:
                bucket.pairs[backend] = Pair(backend, bucket, character, now)

    def busy(self, now: float) -> int:
        """How many buckets had batches lately."""
        return sum(now - bucket.asked_at < LATELY for bucket in self.buckets.values())

    def usable(self, bucket: Bucket) -> list[Pair]:
        """Available and not quarantined, in the order of their names."""
        return [bucket.pairs[name] for name in self.present if bucket.pairs[name].health.reason is None]

    def siblings(self, pair: Pair) -> Iterator[Pair]:
        """The same backend in the other buckets."""
        for bucket in self.buckets.values():
            if bucket is not pair.bucket:
                yield bucket.pairs[pair.backend]

    def waits_for_smaller(self, pair: Pair) -> bool:
        """Whether the backend is quarantined in a smaller bucket as well, where asking costs less."""
        others = self.siblings(pair)
        return any(other.health.reason is not None and other.bucket.size < pair.bucket.size for other in others)

    def cost(self, pair: Pair) -> float:
        """Logarithm of the objective's seconds; of a pair never measured, what others of its backend suggest."""
        if not pair.estimate.runs:
            return self._infer(pair)
        return pair.estimate.level + pair.character.above_level(self.objective)

    def favourite(self) -> str | None:
        """The best backend of the smallest bucket that was measured."""
        for bucket in self.buckets.values():
            known = [pair for pair in self.usable(bucket) if pair.estimate.runs]
            if known:
                return min(known, key=self.cost).backend
        return None

    def _infer(self, pair: Pair) -> float:
        """Where it isn't measured, a backend is against another as in other buckets, but less so."""
        bucket, other = pair.bucket, pair.bucket.selected
        if other is None or other is pair or not other.estimate.runs:
            other = next((p for p in bucket.pairs.values() if p.estimate.runs), None)
        name = self.favourite() if other is None else other.backend
        found = [
            self.cost(place.pairs[pair.backend]) - self.cost(place.pairs[name])
            for place in self.buckets.values()
            if name is not None and place.pairs[pair.backend].estimate.runs and place.pairs[name].estimate.runs
        ]
        return (self.cost(other) if other else 0.0) + (SHRINK * sum(found) / len(found) if found else 0.0)
