"""Simple players: those whose habits the adversarial families punish, and the informed one that the bounds stand on.

None is a policy to be used. They show that a family bites, and that its bound can be kept.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from benchmarks.selection_traces.traces import Booleans, Floats, Integers, Trace


@dataclasses.dataclass(frozen=True, eq=False)
class Play:
    """What a player did: its first choice for each batch, [n], and the seconds until the answer, [n]."""

    chosen: Integers
    spent: Floats


class Player(Protocol):
    """Chooses by what it has seen in the bucket."""

    def choose(self, bucket: int, ready: list[int]) -> int:
        """One of the ready backends."""

    def observe(self, bucket: int, backend: int, seconds: float) -> None:
        """A run that took so many seconds, failed ones included."""


def play(trace: Trace, player: Player) -> Play:
    """Run the trace through; a failed batch goes to the other backends in the order of calibration."""
    fallback = np.argsort(np.median(trace.calibration, axis=0), axis=1).tolist()
    usable, elapsed = trace.usable.tolist(), trace.elapsed.tolist()
    ready_from = trace.ready.tolist()
    chosen, spent = np.zeros(len(trace.times), np.int64), np.zeros(len(trace.times))
    for i, (time, bucket) in enumerate(zip(trace.times.tolist(), trace.buckets.tolist(), strict=True)):
        ready = [backend for backend in fallback[bucket] if ready_from[backend] <= time]
        first = player.choose(bucket, ready)
        chosen[i] = first
        for backend in (first, *(other for other in ready if other != first)):
            spent[i] += elapsed[i][backend]
            player.observe(bucket, backend, elapsed[i][backend])
            if usable[i][backend]:
                break
    return Play(chosen, spent)


class Running:
    """Keeps one estimate per bucket and backend, begun by calibration, and goes for the least.

    Args:
        trace: Gives the calibration, nothing else.
        weight: What the newest of so many runs counts: 1 / runs is the mean of all time, 1 is the last sample.
        explore: Share of the batches given to a backend drawn by lot.
        bonus: Scale of the confidence bound, as a share of the estimate; 0 for none.
    """

    def __init__(
        self, trace: Trace, weight: Callable[[int], float], *, explore: float = 0.0, bonus: float = 0.0
    ) -> None:
        self.estimates = np.median(trace.calibration, axis=0).tolist()
        self.runs = [[1] * trace.backends for _ in trace.sizes]
        self.weight, self.explore, self.bonus = weight, explore, bonus
        self.rng = np.random.default_rng(0)

    def choose(self, bucket: int, ready: list[int]) -> int:
        """The least estimate, or least bound, or now and then any."""
        if self.explore and self.rng.random() < self.explore:
            return ready[int(self.rng.integers(len(ready)))]
        estimates, runs = self.estimates[bucket], self.runs[bucket]
        wide = self.bonus * np.sqrt(2.0 * np.log(sum(runs))) if self.bonus else 0.0
        return min(ready, key=lambda backend: estimates[backend] * (1.0 - wide * runs[backend] ** -0.5))

    def observe(self, bucket: int, backend: int, seconds: float) -> None:
        """Move the estimate towards the sample."""
        self.runs[bucket][backend] += 1
        share = self.weight(self.runs[bucket][backend])
        self.estimates[bucket][backend] += share * (seconds - self.estimates[bucket][backend])


def epsilon_greedy(trace: Trace) -> Running:
    """Means of all time; every hundredth batch by lot."""
    return Running(trace, lambda runs: 1.0 / runs, explore=0.01)


def confidence_bound(trace: Trace) -> Running:
    """UCB1 turned to durations, with a quarter of its usual width: the full one explores all the time."""
    return Running(trace, lambda runs: 1.0 / runs, bonus=0.25)


def last_sample(trace: Trace) -> Running:
    """Believes the last run of each; every hundredth batch by lot."""
    return Running(trace, lambda _: 1.0, explore=0.01)


def long_means(trace: Trace) -> Running:
    """Means over about a thousand runs; every hundredth batch by lot."""
    return Running(trace, lambda runs: max(1.0 / runs, 0.001), explore=0.01)


def hasty(trace: Trace) -> Running:
    """Half the weight on the last run; every twentieth batch by lot; switches for any gain."""
    return Running(trace, lambda _: 0.5, explore=0.05)


def informed(trace: Trace, *, others: float = 20.0, quiet: float = 30.0, gain: float = 0.97) -> Play:
    """Sees levels without noise, but late: what a good policy can hope for.

    It notices that the serving backend became half as slow again after 5 batches of the bucket, and any other change
    after 15. A backend that failed on any bucket is left alone until it would have answered for `quiet` seconds.

    Args:
        trace: Played through; its `level` is looked at.
        others: Seconds after which a change in a backend that does not serve is noticed.
        quiet: Seconds without failures after which a backend is tried again.
        gain: A switch is worth it when the other's level is below this share of the own.
    """
    absent = trace.times[:, None] < trace.ready
    failing = ~trace.usable & ~trace.poisoned[:, None] & ~absent
    broken = np.stack([_since(column, trace.times) < quiet for column in failing.T], axis=1)
    level = np.where(absent, np.inf, trace.level)
    chosen = np.zeros(len(trace.times), np.int64)
    for bucket, calibrated in enumerate(np.median(trace.calibration, axis=0)):
        of = np.flatnonzero(trace.buckets == bucket)
        if len(of):
            before = np.where(trace.ready > 0, np.inf, calibrated)
            late = np.searchsorted(trace.times[of], trace.times[of] - others, side="right") - 1
            own = np.where(broken[of], np.inf, _noticed(level[of], before))
            chosen[of] = _follow(own, np.where(broken[of], np.inf, _earlier(level[of], late, before)), late, gain)
    rows = np.arange(len(chosen))
    rescue = np.where(trace.usable, trace.durations, np.inf).min(axis=1)
    return Play(chosen, trace.elapsed[rows, chosen] + np.where(failing[rows, chosen], rescue, 0.0))


def _earlier(values: Floats, rows: Integers, before: Floats) -> Floats:
    """Those rows of values; `before` where the row is negative."""
    return np.where((rows < 0)[:, None], before, values[np.maximum(rows, 0)])


def _since(failing: Booleans, times: Floats) -> Floats:
    """Seconds since the last failure before each batch, infinite where there was none."""
    failures = np.flatnonzero(failing)
    before = np.searchsorted(failures, np.arange(len(times)))
    last = np.concatenate(([-np.inf], times[failures]))[before]
    since: Floats = times - last
    return since


def _noticed(level: Floats, before: Floats) -> Floats:
    """What is known of each backend while it serves."""
    order = np.arange(len(level))
    slowly, soon = _earlier(level, order - 15, before), _earlier(level, order - 5, before)
    return np.where(soon > 1.5 * slowly, soon, slowly)


def _follow(serving: Floats, resting: Floats, late: Integers, gain: float) -> Integers:
    """Stay, unless another is seen to be worth the switch; what is known of one just left stays valid for a while."""
    own, others, known_until = serving.tolist(), resting.tolist(), late.tolist()
    left: dict[int, tuple[int, float]] = {}
    now, choices = int(resting[0].argmin()), []
    for i, row in enumerate(others):
        for backend, (moment, seconds) in left.items():
            if moment > known_until[i]:
                row[backend] = seconds
        row[now] = own[i][now]
        best = row.index(min(row))
        if row[best] < gain * row[now]:
            left[now] = i, row[now]
            now = best
        choices.append(now)
    return np.array(choices, np.int64)
