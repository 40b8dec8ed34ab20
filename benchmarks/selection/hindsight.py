"""What the best choice would have cost: the yardstick. No policy here.

The expected time of serving a batch with backend j first is its mean run, or, when it fails (chance p), what the failed
run takes before that shows and then the fastest other backend's run. The oracle takes the least at every batch, knows
these expectations, pays nothing for changing backends, and finds a backend cold only where one that ran all of the
bucket's batches would: at the first ones and after a pause of the bucket's traffic.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection.conditions import ERROR_SHARE, Conditions, Floats

MATERIAL = 1.05  # a backend this many times slower than another is worth leaving


@dataclass(frozen=True)
class Hindsight:
    """The yardstick of one scenario.

    Attributes:
        expected: Expected seconds of serving with j first, warm, failover included [g, k, j]; infinite where j is away.
        best: The oracle's choice [i].
        cost: The oracle's expected seconds [i]; 0 for a batch that fails everywhere.
        needed: How often, over all buckets, the best choice in use became at least MATERIAL times worse than another.
    """

    expected: Floats
    best: NDArray[np.int64]
    cost: Floats
    needed: int


def look_back(conditions: Conditions) -> Hindsight:
    """Compute the yardstick."""
    expected = _expected(conditions)
    cells, buckets = conditions.cells, conditions.buckets
    cost = expected[cells, buckets] + conditions.mean[cells, buckets] * _cold(conditions)
    cost = np.where(np.isfinite(expected[cells, buckets]), cost, np.inf)
    best = cost.argmin(axis=1)
    least = np.where(conditions.poison, 0.0, cost.min(axis=1))
    return Hindsight(expected, best, least, _needed(conditions, expected))


def _expected(conditions: Conditions) -> Floats:
    mean = conditions.mean
    present = np.where(np.broadcast_to(conditions.available[:, None, :], mean.shape), mean, np.inf)
    runs = np.empty_like(mean)
    for j in range(mean.shape[2]):
        other = np.delete(present, j, axis=2).min(axis=2)
        other = np.where(np.isfinite(other), other, 0.0)
        error = conditions.error[:, :, j]
        late = (1 - error) * conditions.not_finite[:, :, j]
        runs[:, :, j] = mean[:, :, j] * (1 - error + error * ERROR_SHARE) + (error + late) * other
    return np.where(np.isfinite(present), runs, np.inf)


def _cold(conditions: Conditions) -> Floats:
    """By how much of its mean a cold run is longer, had the backend run all of its bucket's batches [i, j]."""
    extra = np.zeros_like(conditions.noise)
    for k in range(len(conditions.scenario.buckets)):
        rows = np.flatnonzero(conditions.buckets == k)
        gaps = np.diff(conditions.arrivals[rows], prepend=-np.inf)
        order = np.arange(len(rows))
        for j, backend in enumerate(conditions.scenario.backends):
            since = order - np.maximum.accumulate(np.where(gaps > backend.cold_after, order, 0))
            extra[rows, j] = np.where(since < backend.cold_runs, backend.cold_factor - 1, 0.0)
    return extra


def _needed(conditions: Conditions, expected: Floats) -> int:
    count = 0
    for k in range(len(conditions.scenario.buckets)):
        cells = np.unique(conditions.cells[conditions.buckets == k])
        table = expected[cells, k]
        least, fastest = table.min(axis=1), table.argmin(axis=1)
        place, used = 0, int(fastest[0]) if len(cells) else 0
        while place < len(cells):
            worse = np.flatnonzero(table[place:, used] > MATERIAL * least[place:])
            if not len(worse):
                break
            place += int(worse[0])
            used = int(fastest[place])
            count += 1
    return count
