"""What a policy is compared with: fixed choices, textbook bandits, and an oracle that peeks. None is meant to serve."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.selection.conditions import Conditions
from benchmarks.selection.draw import stream
from benchmarks.selection.hindsight import Hindsight
from benchmarks.selection.interface import Calibration, Decision, Outcome
from benchmarks.selection.world import NAMES

PENALTY = 3.0  # a failed run counts as this many times its duration


class Baseline:
    """Knows which backends are there; never calibrates, learns nothing."""

    def __init__(self, buckets: Sequence[int]) -> None:
        self.buckets = tuple(buckets)
        self.present: list[str] = []

    def backend_state(self, backend: str, *, available: bool, now: float) -> None:  # noqa: ARG002 - part of the protocol
        """Keep the list, in order of names."""
        others = [name for name in self.present if name != backend]
        self.present = sorted([*others, backend]) if available else others

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:  # noqa: ARG002 - part of the protocol
        """The first that has not failed."""
        if not failed:
            return Decision(self.present[0])
        return Decision(next(name for name in self.present if name not in failed))

    def observe(self, outcome: Outcome, now: float) -> None:
        """Ignored."""

    def idle(self, now: float) -> Calibration | None:  # noqa: ARG002 - part of the protocol
        """Nothing."""
        return None


class AlwaysB(Baseline):
    """The second backend whenever it can be had. `Baseline` itself is always-A."""

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:
        """B, else the first."""
        if "b" in self.present and "b" not in failed:
            return Decision("b")
        return super().choose(bucket, now, failed)


class AlwaysWorst(Baseline):
    """The slowest at each moment, by peeking: what there is to lose."""

    def __init__(self, conditions: Conditions, hindsight: Hindsight) -> None:
        super().__init__(conditions.scenario.buckets)
        where = conditions.cells, conditions.buckets
        self.order: list[list[int]] = np.argsort(-hindsight.expected[where], axis=1).tolist()
        self.batch = -1

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:  # noqa: ARG002 - part of the protocol
        """The next one in the order of this batch."""
        self.batch += not failed
        names = (NAMES[j] for j in self.order[self.batch])
        return Decision(next(name for name in names if name in self.present and name not in failed))


class Oracle(AlwaysWorst):
    """The fastest at each moment, by peeking; it pays what switching really costs, unlike the yardstick."""

    def __init__(self, conditions: Conditions, hindsight: Hindsight) -> None:
        super().__init__(conditions, hindsight)
        self.order = [row[::-1] for row in self.order]


class Calibrated(Baseline):
    """Measures each backend RUNS times in each bucket when it appears, idle if it can; then keeps the best median."""

    RUNS = 5

    def __init__(self, buckets: Sequence[int]) -> None:
        super().__init__(buckets)
        self.times: dict[tuple[int, str], list[float]] = {}

    def _missing(self, bucket: int, names: Sequence[str]) -> str | None:
        return next((name for name in names if len(self.times.get((bucket, name), ())) < self.RUNS), None)

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:  # noqa: ARG002 - part of the protocol
        """One that isn't measured yet, else the best."""
        names = [name for name in self.present if name not in failed]
        missing = self._missing(bucket, names)
        if missing is not None:
            return Decision(missing, is_exploration=True)
        return Decision(min(names, key=lambda name: sorted(self.times[bucket, name])[self.RUNS // 2]))

    def observe(self, outcome: Outcome, now: float) -> None:  # noqa: ARG002 - part of the protocol
        """Keep the first RUNS."""
        times = self.times.setdefault((outcome.bucket, outcome.backend), [])
        if len(times) < self.RUNS:
            times.append(outcome.seconds * (PENALTY if outcome.failure else 1))

    def idle(self, now: float) -> Calibration | None:  # noqa: ARG002 - part of the protocol
        """What isn't measured yet."""
        for bucket in self.buckets:
            missing = self._missing(bucket, self.present)
            if missing is not None:
                return Calibration(bucket, missing)
        return None


class EpsilonGreedy(Baseline):
    """The best moving average; with a chance of EPSILON any backend. A backend never tried counts as the best."""

    EPSILON = 0.01
    WEIGHT = 0.1

    def __init__(self, buckets: Sequence[int]) -> None:
        super().__init__(buckets)
        self.means: dict[tuple[int, str], float] = {}
        self.random = stream("epsilon-greedy")

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:  # noqa: ARG002 - part of the protocol
        """The best, or any."""
        names = [name for name in self.present if name not in failed]
        best = min(names, key=lambda name: self.means.get((bucket, name), 0.0))
        if (bucket, best) in self.means and self.random.random() >= self.EPSILON:
            return Decision(best)
        name = names[int(self.random.random() * len(names))] if (bucket, best) in self.means else best
        return Decision(name, is_exploration=True)

    def observe(self, outcome: Outcome, now: float) -> None:  # noqa: ARG002 - part of the protocol
        """Move the average."""
        key, seconds = (outcome.bucket, outcome.backend), outcome.seconds * (PENALTY if outcome.failure else 1)
        self.means[key] = self.means.get(key, seconds) * (1 - self.WEIGHT) + seconds * self.WEIGHT


class Ucb(Baseline):
    """UCB on time relative to the bucket's mean, with all memory fading by KEEP per batch (1 is textbook UCB1)."""

    KEEP = 0.998
    WIDTH = 0.3

    def __init__(self, buckets: Sequence[int]) -> None:
        super().__init__(buckets)
        self.counts: dict[int, dict[str, float]] = {bucket: {} for bucket in buckets}
        self.sums: dict[int, dict[str, float]] = {bucket: {} for bucket in buckets}

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:  # noqa: ARG002 - part of the protocol
        """The best in the most favourable case; exploration if another is best on average."""
        names = [name for name in self.present if name not in failed]
        counts, sums = self.counts[bucket], self.sums[bucket]
        new = next((name for name in names if counts.get(name, 0.0) < 0.1), None)
        if new is not None:
            return Decision(new, is_exploration=True)
        total = sum(counts.values())
        scale, logarithm = sum(sums.values()) / total, math.log(total + 1)
        means = {name: sums[name] / counts[name] for name in names}
        bound = {name: means[name] - self.WIDTH * scale * math.sqrt(logarithm / counts[name]) for name in names}
        chosen = min(names, key=lambda name: bound[name])
        return Decision(chosen, is_exploration=means[chosen] > min(means.values()))

    def observe(self, outcome: Outcome, now: float) -> None:  # noqa: ARG002 - part of the protocol
        """Fade, then add."""
        counts, sums = self.counts[outcome.bucket], self.sums[outcome.bucket]
        for name in counts:
            counts[name] *= self.KEEP
            sums[name] *= self.KEEP
        name = outcome.backend
        counts[name] = counts.get(name, 0.0) + 1
        sums[name] = sums.get(name, 0.0) + outcome.seconds * (PENALTY if outcome.failure else 1)
