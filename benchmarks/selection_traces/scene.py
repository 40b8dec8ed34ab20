"""A trace in the making: families start from a `Scene`, let things happen to it, and have it finished.

Durations are a table (bucket, backend) times what happens in time (`slow`, predictable while it lasts) times what
happens to single batches (`spike`, noise). A scene knows backends by position; `finish` deals the positions anew, so
that no fixed position is the good one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from benchmarks.selection_traces.processes import Intervals, bursts, inside, mix, poisson
from benchmarks.selection_traces.traces import TICK, Booleans, Episode, Floats, Integers, Trace

_ROUNDS = 12  # golden runs per backend and bucket before the first arrival
_WORKS, _RAISES, _GIVES_NAN = 0, 1, 2


def _whole(seconds: Floats) -> Floats:
    """Rounded to ticks, none less than one."""
    return np.maximum(np.rint(seconds / TICK), 1.0) * TICK


class Scene:
    """Times, buckets and what each backend takes for each batch.

    Args:
        rng: The only source of chance.
        times: Seconds of arrival, [n].
        sizes: Batch size of each bucket.
        buckets: Bucket of each batch, [n].
        ratio: What backends take against each other, [buckets, backends] or [backends].
    """

    def __init__(
        self, rng: np.random.Generator, times: Floats, sizes: Sequence[int], buckets: Integers, ratio: Floats
    ) -> None:
        self.rng, self.times, self.sizes, self.buckets = rng, times, tuple(sizes), buckets
        work = 0.5 + 0.5 * np.array(sizes, np.float64)
        share = rng.uniform(0.03, 0.45)  # of one worker's time, that the traffic takes while there is any
        unit = np.clip(share * np.median(np.diff(times)) / work[buckets].mean(), 3e-4, 0.15)
        table = (unit * work)[:, None] * np.broadcast_to(ratio, (len(sizes), ratio.shape[-1]))
        self.level = table[buckets]
        self.golden = self.level.copy()
        self.calibrated = table.copy()
        shape = self.level.shape
        self.noise = np.ones(shape)
        self.sigma = rng.uniform(0.03, 0.12, shape[1])
        self.outcome = np.zeros(shape, np.int8)
        self.failing_cost = np.ones(shape)
        self.ready = np.zeros(shape[1])
        self.poisoned = np.zeros(shape[0], np.bool_)
        self.episodes: list[Episode] = []

    @property
    def backends(self) -> int:
        """Number of backends."""
        return int(self.level.shape[1])

    @property
    def seconds(self) -> float:
        """The last arrival."""
        return float(self.times[-1])

    def slow(self, backend: int, factor: Floats | float, where: Booleans | None = None, *, golden: bool = True) -> None:
        """Runs take longer by `factor` (per batch or for all); golden runs too, unless told otherwise."""
        multiplier = np.broadcast_to(np.asarray(factor, np.float64), len(self.times))
        if where is not None:
            multiplier = np.where(where, multiplier, 1.0)
        self.level[:, backend] *= multiplier
        if golden:
            self.golden[:, backend] *= multiplier

    def spike(self, backend: int, factor: Floats | float, where: Booleans) -> None:
        """Single batches take longer, which nobody could know before; `level` takes the mean of it in the bucket."""
        multiplier = np.where(where, factor, 1.0)
        batches = np.bincount(self.buckets, minlength=len(self.sizes))
        mean = (np.bincount(self.buckets, weights=multiplier) / np.maximum(batches[: self.buckets.max() + 1], 1))[
            self.buckets
        ]
        self.level[:, backend] *= mean
        self.noise[:, backend] *= multiplier / mean

    def degrade(self, backend: int, stretches: Intervals, low: float, high: float) -> None:
        """In each stretch the backend is slower by a factor between `low` and `high`."""
        for begin, end in stretches:
            factor = float(self.rng.uniform(low, high))
            self.slow(backend, factor, inside(self.times, [(begin, end)]))
            self.episodes.append(Episode(backend, begin, end, factor))

    def break_down(
        self, backend: int, stretches: Intervals, *, share: float = 1.0, nan: bool = False, cost: float = 0.1
    ) -> None:
        """In the stretches a share of the runs fails, after `cost` times the seconds of a good run."""
        failing = inside(self.times, stretches) & (self.rng.random(len(self.times)) < share)
        self.outcome[failing, backend] = _GIVES_NAN if nan else _RAISES
        self.failing_cost[failing, backend] = 1.0 if nan else cost
        self.episodes.extend(Episode(backend, begin, end, np.inf) for begin, end in stretches)

    def poison(self, where: Booleans, *, nan: bool) -> None:
        """These batches fail everywhere; each backend takes its own time to find out."""
        self.poisoned |= where
        self.outcome[where] = _GIVES_NAN if nan else _RAISES
        self.failing_cost[where] = 1.0 if nan else self.rng.uniform(0.05, 1.0, self.backends)

    def join(self, backend: int, moment: float) -> None:
        """The backend is built only at that second."""
        self.ready[backend] = moment

    def finish(self, family: str, seed: int) -> Trace:
        """The trace, with the backends in an order drawn by lot."""
        rng, shape = self.rng, self.level.shape
        # Means of one, so that `level` stays what a run takes on average.
        spread = rng.lognormal(-0.5 * self.sigma**2, self.sigma, shape)
        hiccup = np.where(rng.random(shape) < 0.002, rng.uniform(2.0, 5.0), 1.0)
        seconds = self.level * self.noise * spread * hiccup
        golden = _whole(self.golden * rng.lognormal(-0.5 * self.sigma**2, self.sigma, shape))
        calibration = _whole(self.calibrated * rng.lognormal(0.0, self.sigma, (_ROUNDS, *self.calibrated.shape)))
        elapsed = _whole(np.where(self.outcome == _WORKS, seconds, seconds * self.failing_cost))
        absent = self.times[:, None] < self.ready
        order = rng.permutation(shape[1])
        place = np.argsort(order)
        own = np.where(self.poisoned[:, None], _WORKS, self.outcome)  # golden inputs are never the poisoned one
        return Trace(
            family=family,
            seed=seed,
            sizes=self.sizes,
            times=np.rint(self.times / TICK) * TICK,
            buckets=self.buckets,
            durations=_answers(elapsed, self.outcome, absent)[:, order],
            elapsed=np.where(absent, 0.0, elapsed)[:, order],
            level=self.level[:, order],
            golden=_answers(golden, own, absent)[:, order],
            calibration=calibration[:, :, order],
            ready=(np.rint(self.ready / TICK) * TICK)[order],
            poisoned=self.poisoned,
            episodes=tuple(dataclasses.replace(each, backend=int(place[each.backend])) for each in self.episodes),
        )


def _answers(seconds: Floats, outcome: np.typing.NDArray[np.int8], absent: Booleans) -> Floats:
    """Seconds, but for what did not come out."""
    answers = np.where(outcome == _GIVES_NAN, np.nan, seconds)
    return np.where((outcome == _RAISES) | absent, np.inf, answers)


def rivals(rng: np.random.Generator, backends: int, low: float = 1.15, high: float = 1.6) -> Floats:
    """Ratios [backends]: the first backend is the good one, each other takes `low` to `high` times as long."""
    return np.concatenate(([1.0], rng.uniform(low, high, backends - 1)))


def ordinary(
    rng: np.random.Generator, ratio: Floats, sizes: Sequence[int] = (1, 4, 16), minutes: tuple[float, float] = (10, 60)
) -> Scene:
    """1,500 to 6,000 batches, spread evenly or in bursts, of a steady mix of sizes."""
    seconds = float(rng.uniform(*minutes)) * 60
    count = int(rng.integers(1500, 6000))
    if rng.random() < 0.5:
        times = poisson(rng, count, seconds)
    else:
        times = bursts(rng, count, seconds, float(rng.uniform(2, 30)), float(rng.uniform(2, 15)))
    return Scene(rng, times, sizes, mix(rng, count, rng.uniform(0.2, 1.0, len(sizes))), ratio)
