"""The ground that every family stands on: a model, its buckets, backends and traffic, before anything befalls them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.selection.draw import Draw, rounded
from benchmarks.selection.specification import Backend, Effect, Kind, Scenario, Traffic

BUCKETS = (1, 2, 4, 8, 16, 32)
Bounds = tuple[float, float]
Factors = list[list[float]]  # per backend and bucket, 1 for the fastest
Shape = Callable[[Draw, "Plan", int], Factors]


def one_winner(draw: Draw, plan: "Plan", count: int) -> Factors:
    """One backend is the fastest in every bucket."""
    winner = draw.whole(0, plan.backends - 1)
    return [[1.0 if j == winner else draw.log(*plan.ratio) for _ in range(count)] for j in range(plan.backends)]


@dataclass(frozen=True)
class Plan:
    """What a family asks of its ground; the defaults are an ordinary server.

    Attributes:
        backends: How many.
        buckets: Fewest and most buckets.
        shape: Gives each backend's factor per bucket over the fastest.
        ratio: Bounds of a slower backend's factor.
        sigma: Bounds of the independent noise.
        utilisation: Bounds of the share of time that the fastest backends would be busy.
        workers: One of these.
        cold_runs: Fewest and most.
        cold_factor: Bounds.
    """

    backends: int = 2
    buckets: tuple[int, int] = (1, 4)
    shape: Shape = one_winner
    ratio: Bounds = (1.1, 3.0)
    sigma: Bounds = (0.02, 0.2)
    utilisation: Bounds = (0.08, 0.5)
    workers: Sequence[int] = (1, 1, 1, 2)
    cold_runs: tuple[int, int] = (0, 3)
    cold_factor: Bounds = (1.2, 3.0)


def winner_per_bucket(draw: Draw, plan: Plan, count: int) -> Factors:
    """A backend for small buckets and another for large ones; with more backends any may win a bucket."""
    first = draw.whole(0, plan.backends - 1)
    edge = draw.whole(1, max(1, count - 1))
    second = (first + draw.whole(1, plan.backends - 1)) % plan.backends
    winners = [first if place < edge else second for place in range(count)]
    if plan.backends > 2:
        winners = [draw.whole(0, plan.backends - 1) for _ in range(count)]
    return [[1.0 if j == winner else draw.log(*plan.ratio) for winner in winners] for j in range(plan.backends)]


def lay(draw: Draw, family: str, seed: int, plan: Plan) -> Scenario:
    """Draw a quiet scenario."""
    count = draw.whole(*plan.buckets)
    first = draw.whole(0, len(BUCKETS) - count)
    buckets = BUCKETS[first : first + count]
    duration, batches = draw.log(1800, 7200), draw.whole(3500, 5500)
    factors = plan.shape(draw, plan, count)
    workers = draw.pick(plan.workers)
    traffic = _traffic(draw, count)
    growth = draw.even(0.3, 0.95)  # how latency grows with the batch size
    shares = [sum(mix[k] / sum(mix) for mix in traffic.mixes) / len(traffic.mixes) for k in range(count)]
    mean = sum(share * bucket**growth for share, bucket in zip(shares, buckets, strict=True))
    unit = draw.log(*plan.utilisation) * workers * duration / batches / mean
    return Scenario(
        family=family,
        seed=seed,
        duration=duration,
        batches=batches,
        workers=workers,
        buckets=buckets,
        backends=tuple(
            _backend(draw, plan, duration, [unit * f * b**growth for f, b in zip(row, buckets, strict=True)])
            for row in factors
        ),
        traffic=traffic,
        effects=(),
        poison_chance=0.0,
    )


def _backend(draw: Draw, plan: Plan, duration: float, latency: list[float]) -> Backend:
    return Backend(
        latency=tuple(rounded(seconds) for seconds in latency),
        sigma=draw.log(*plan.sigma),
        weather=draw.even(0, 0.05),
        spike_chance=draw.log(0.0005, 0.005) if draw.chance(0.7) else 0.0,
        spike_size=(2.0, draw.log(3, 10)),
        failure_chance=0.0,
        cold_runs=draw.whole(*plan.cold_runs),
        cold_factor=draw.log(*plan.cold_factor),
        cold_after=draw.log(60, 1200),
        available=((0.0, duration),),
    )


def _traffic(draw: Draw, count: int) -> Traffic:
    mix = tuple(draw.log(0.1, 1) for _ in range(count))
    return Traffic(
        mixes=(mix,),
        day=draw.even(0, 0.7) if draw.chance(0.5) else 0.0,
        days=draw.even(0.5, 2),
        burst_share=draw.even(0.02, 0.15) if draw.chance(0.5) else 0.0,
        burst_factor=draw.log(2, 8),
        pauses=(),
    )


def best(scenario: Scenario, bucket: int) -> int:
    """The undisturbed fastest backend of a bucket (both by index)."""
    return min(range(len(scenario.backends)), key=lambda j: scenario.backends[j].latency[bucket])


def favourite(scenario: Scenario) -> int:
    """The backend that is fastest in most buckets."""
    winners = [best(scenario, bucket) for bucket in range(len(scenario.buckets))]
    return max(range(len(scenario.backends)), key=winners.count)


def every_bucket(scenario: Scenario) -> tuple[int, ...]:
    """The indices of all buckets."""
    return tuple(range(len(scenario.buckets)))


def befall(scenario: Scenario, *effects: Effect) -> Scenario:
    """The scenario with more happening."""
    return replace(scenario, effects=scenario.effects + effects)


def change_backends(scenario: Scenario, change: Callable[[int, Backend], Backend]) -> Scenario:
    """The scenario with each backend changed."""
    return replace(scenario, backends=tuple(change(j, backend) for j, backend in enumerate(scenario.backends)))


def trouble(draw: Draw, scenario: Scenario, kind: Kind, size: float, span: Bounds, *, backend: int) -> Effect:
    """A backend degrades within a span (as shares of the duration) and heals at its end; mostly in every bucket."""
    buckets = every_bucket(scenario)
    if len(buckets) > 1 and draw.chance(0.2):
        buckets = (draw.pick(buckets),)
    start, end = (rounded(share * scenario.duration) for share in span)
    return Effect(kind, (backend,), buckets, start, end, size, is_degradation=True)
