"""What a backend is like in all its buckets together: its noise, its rare slow runs, how it warms up.

Everything is in natural logarithms of seconds, for noise is a share of the time: 0.1 is about 10 %. Nothing is chosen.
"""

import enum
import math
from collections.abc import Sequence

# Runs after loading and after a silence may be slow for the caches' sake. Until a backend's own way is known:
SILENCE = 20.0  # seconds without a run in a bucket that may make it cold
COLD_RUNS = 3  # so many runs may be cold
COLD = 0.7  # and so much slower (twice)
LONGEST_SILENCE = 300.0  # seconds: having stayed warm for longer once doesn't promise it
LONGEST_WARMING = 8  # runs in a row after which no backend is still warming up
STEP_SEEN = 0.15  # the least drop among a bucket's first runs that is taken for warming up
SPREAD, SPREAD_RUNS, SPREAD_MEMORY = 0.0144, 8, 100  # variance of noise: 12 % until about 8 runs say otherwise
SMALLEST_SPREAD = 1e-4  # 1 %: a clock's and a scheduler's own noise
SHAPE_RUNS, SHAPE_MEMORY = 60, 500  # runs before what is rare shows in the mean, and how many are remembered
LARGEST_RESIDUAL = 3.5  # a run 33 times slower than usual counts as that
TAIL = 0.25  # the 95th percentile over the level until runs say otherwise
TAIL_STEP = 20.0  # a thousand runs find a tail of several times the level


class Objective(enum.Enum):
    """What of the time a batch takes shall be least, in a bucket.

    Throughput is rows over mean time: in one bucket the order is that of the mean.
    """

    MEAN = "mean"
    P50 = "p50"
    P95 = "p95"
    THROUGHPUT = "throughput"


class Character:
    """How a backend's runs scatter.

    Attributes:
        spread: Variance of ordinary noise.
        mean: Mean time of answered runs over the typical time; rare slow ones make it large.
        waste: What failed runs cost on average, over the typical time.
        tail: The 95th percentile over the typical time, a logarithm.
        runs: How many this comes from.
        cold_runs: So many runs after loading or a silence are slow.
        cold: By how much.
        silence: Seconds without a run that may make a bucket cold.
        warmed: Whether the three are known rather than assumed.
        longest: The most runs in a row that were seen of it in a bucket.
    """

    __slots__ = ("cold", "cold_runs", "longest", "mean", "runs", "silence", "spread", "tail", "warmed", "waste")

    def __init__(self) -> None:
        self.spread, self.mean, self.waste, self.tail, self.runs = SPREAD, 1.0, 0.0, TAIL, 0
        self.longest = 0
        self.cold_runs, self.cold, self.silence, self.warmed = COLD_RUNS, COLD, SILENCE, False

    def above_level(self, objective: Objective) -> float:
        """What the objective's figure is above the typical time.

        What failed runs cost is in each: a backend that is quick when it answers, and seldom does, isn't quick.
        """
        if objective is Objective.P50:
            return math.log1p(self.waste)
        if objective is Objective.P95:
            return self.tail + math.log1p(self.waste)
        return math.log(self.mean + self.waste)

    def warm_up(self, first: Sequence[float]) -> int:
        """Learn from a bucket's first runs; returns how many of them were cold.

        They are cut in two where the means differ most clearly. A drop from the first part to the second is warming up.
        """
        clearest, place, drop, count = 0.0, 0, 0.0, len(first)
        for cut in range(1, count - 1):
            fall = sum(first[:cut]) / cut - sum(first[cut:]) / (count - cut)
            clarity = fall * fall * cut * (count - cut) / count
            if fall > STEP_SEEN and clarity > clearest:
                clearest, place, drop = clarity, cut, fall
        if drop <= 3 * math.sqrt(self.spread / min(max(place, 1), 3)):
            place = 0
        if place and (not self.warmed or drop > self.cold):
            self.cold_runs, self.cold, self.warmed = place, drop, True
        elif not self.warmed and count > COLD_RUNS:
            self.cold_runs, self.cold, self.warmed = 0, 0.0, count > COLD_RUNS + 1
        return place

    def learn(self, residual: float) -> None:
        """Take in an ordinary run's distance from its level."""
        runs = self.runs = self.runs + 1
        squared, limit = residual * residual, 9 * self.spread
        step = ((squared if squared < limit else limit) - self.spread) / min(runs + SPREAD_RUNS, SPREAD_MEMORY)
        self.spread = max(self.spread + step, SMALLEST_SPREAD)
        weight = 1 / min(runs + SHAPE_RUNS, SHAPE_MEMORY)
        self.mean += weight * (math.exp(min(residual, LARGEST_RESIDUAL)) - self.mean)
        self.waste -= weight * self.waste
        # Robbins and Monro's: 19 steps up for a run above, one down for a run below.
        self.tail += TAIL_STEP * weight * (0.95 if residual > self.tail else -0.05)

    def fail(self, wasted: float) -> None:
        """Take in that a run failed and cost so many typical times for nothing."""
        self.waste += wasted / min(self.runs + SHAPE_RUNS, SHAPE_MEMORY)
