"""The families of scenarios: each a function from random draws to what can happen to a server's backends."""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.selection.draw import Draw, rounded
from benchmarks.selection.ground import (
    Plan,
    befall,
    best,
    change_backends,
    every_bucket,
    favourite,
    lay,
    trouble,
    winner_per_bucket,
)
from benchmarks.selection.specification import Effect, Kind, Scenario

Family = Callable[[Draw, str, int], Scenario]


def steady(draw: Draw, family: str, seed: int) -> Scenario:
    """One backend is the fastest, always."""
    return lay(draw, family, seed, Plan())


def crossover(draw: Draw, family: str, seed: int) -> Scenario:
    """Which backend is the fastest depends on the bucket."""
    return lay(draw, family, seed, Plan(buckets=(2, 5), shape=winner_per_bucket))


def twins(draw: Draw, family: str, seed: int) -> Scenario:
    """The backends are within 1 % of each other: the choice is worth nothing, changing it costs."""
    return lay(draw, family, seed, Plan(ratio=(1.0, 1.01), cold_runs=(2, 6)))


def spikes(draw: Draw, family: str, seed: int) -> Scenario:
    """Runs now and then take several times as long, and noise is wide."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.15, 2.5), sigma=(0.1, 0.3)))
    return change_backends(
        scenario,
        lambda _, backend: replace(
            backend, spike_chance=draw.log(0.003, 0.02), spike_size=(2.0, draw.log(5, 15)), weather=draw.even(0, 0.1)
        ),
    )


def drift(draw: Draw, family: str, seed: int) -> Scenario:
    """The fastest backend grows slower, or another faster, until their order turns; perhaps it turns back."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 1.5)))
    buckets, leader = every_bucket(scenario), favourite(scenario)
    others = tuple(j for j in range(len(scenario.backends)) if j != leader)
    size = draw.log(1.6, 2.8)
    hit: tuple[int, ...] = (leader,)
    if draw.chance(0.5):
        hit, size = others, rounded(1 / size)
    start, length = draw.even(0.1, 0.4) * scenario.duration, draw.even(0.1, 0.4) * scenario.duration
    scenario = befall(scenario, Effect(Kind.DRIFT, hit, buckets, rounded(start), rounded(start + length), size))
    if draw.chance(0.4):
        back = start + length + draw.even(0.05, 0.15) * scenario.duration
        end = rounded(back + length * 0.5)
        scenario = befall(scenario, Effect(Kind.DRIFT, hit, buckets, rounded(back), end, rounded(1 / size)))
    return scenario


def degradation(draw: Draw, family: str, seed: int) -> Scenario:
    """The backend that serves becomes slower at a stroke, and heals later; perhaps twice."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 2.0)))
    leader = favourite(scenario)
    span = draw.even(0.15, 0.3), draw.even(0.4, 0.55)
    scenario = befall(scenario, trouble(draw, scenario, Kind.SLOW, draw.log(1.3, 10), span, backend=leader))
    if draw.chance(0.4):
        again = draw.even(0.65, 0.75), draw.even(0.8, 0.95)
        scenario = befall(scenario, trouble(draw, scenario, Kind.SLOW, draw.log(1.3, 10), again, backend=leader))
    return scenario


def relay(draw: Draw, family: str, seed: int) -> Scenario:
    """The fastest degrades for good or long; later the one that took over degrades as well."""
    scenario = lay(draw, family, seed, Plan(backends=draw.whole(2, 3), ratio=(1.05, 1.5)))
    leader = favourite(scenario)
    second = (leader + 1) % len(scenario.backends)
    first_span, second_span = (draw.even(0.1, 0.25), draw.even(0.5, 1.0)), (draw.even(0.55, 0.7), draw.even(0.8, 1.0))
    return befall(
        scenario,
        trouble(draw, scenario, Kind.SLOW, draw.log(1.5, 6), first_span, backend=leader),
        trouble(draw, scenario, Kind.SLOW, draw.log(2, 10), second_span, backend=second),
    )


def cold_caches(draw: Draw, family: str, seed: int) -> Scenario:
    """The first runs are slow, and the first after each pause, on some backends more than on others."""
    plan = Plan(ratio=(1.05, 2.0), shape=winner_per_bucket, cold_runs=(2, 8), cold_factor=(1.5, 6.0))
    scenario = lay(draw, family, seed, plan)
    scenario = change_backends(scenario, lambda _, backend: replace(backend, cold_after=draw.log(20, 300)))
    return _with_pauses(draw, scenario, draw.whole(1, 4), (0.02, 0.08))


def rare_failures(draw: Draw, family: str, seed: int) -> Scenario:
    """Single runs fail, on one backend more than on others; some inputs fail everywhere: the client's error."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 2.0)))
    scenario = replace(scenario, poison_chance=draw.log(0.0005, 0.01))
    return change_backends(scenario, lambda _, backend: replace(backend, failure_chance=draw.log(0.0002, 0.01)))


def failure_storm(draw: Draw, family: str, seed: int) -> Scenario:
    """The fastest backend fails often for minutes, once or twice."""
    return _storms(draw, lay(draw, family, seed, Plan(ratio=(1.1, 2.0))), Kind.FAIL)


def not_finite(draw: Draw, family: str, seed: int) -> Scenario:
    """The fastest backend answers NaN for a while: each run costs its whole time and another one."""
    return _storms(draw, lay(draw, family, seed, Plan(ratio=(1.1, 2.0))), Kind.NOT_FINITE)


def noisy_neighbour(draw: Draw, family: str, seed: int) -> Scenario:
    """Something else on the machine slows every backend alike, again and again: no reason to change."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 1.6)))
    everyone = tuple(range(len(scenario.backends)))
    for _ in range(draw.whole(2, 8)):
        start = draw.even(0.02, 0.95) * scenario.duration
        end = rounded(start + draw.log(20, 600))
        effect = Effect(Kind.SLOW, everyone, every_bucket(scenario), rounded(start), end, draw.log(1.3, 4))
        scenario = befall(scenario, effect)
    return scenario


def late_arrival(draw: Draw, family: str, seed: int) -> Scenario:
    """All backends but one become available only after minutes of building and proving."""
    plan = Plan(backends=draw.pick((2, 2, 3)), shape=winner_per_bucket, ratio=(1.1, 2.5))
    scenario = lay(draw, family, seed, plan)
    present = draw.whole(0, plan.backends - 1)

    def arrives(j: int) -> tuple[tuple[float, float], ...]:
        return ((0.0 if j == present else draw.even(120, 900), scenario.duration),)

    return change_backends(scenario, lambda j, backend: replace(backend, available=arrives(j)))


def comes_and_goes(draw: Draw, family: str, seed: int) -> Scenario:
    """The fastest backend is taken away (unloaded, crashed) and comes back, perhaps another one than before."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 2.0)))
    leader = favourite(scenario)
    gone, back = (rounded(draw.even(*b) * scenario.duration) for b in ((0.2, 0.4), (0.45, 0.7)))
    spans = ((0.0, gone), (back, scenario.duration))
    scenario = change_backends(scenario, lambda j, b: replace(b, available=spans) if j == leader else b)
    if draw.chance(0.5):
        changed = Effect(Kind.SLOW, (leader,), every_bucket(scenario), back, scenario.duration, draw.log(0.6, 2.5))
        scenario = befall(scenario, changed)
    return scenario


def mix_shift(draw: Draw, family: str, seed: int) -> Scenario:
    """Which buckets are busy changes over the day, and each has its own fastest backend."""
    scenario = lay(draw, family, seed, Plan(buckets=(3, 6), shape=winner_per_bucket))
    mixes = tuple(tuple(draw.log(0.02, 1) for _ in scenario.buckets) for _ in range(draw.whole(2, 4)))
    return replace(scenario, traffic=replace(scenario.traffic, mixes=mixes, day=draw.even(0.3, 0.95)))


def sparse(draw: Draw, family: str, seed: int) -> Scenario:
    """Long silences and sudden bursts; while nothing runs, the fastest backend may degrade or heal."""
    scenario = lay(draw, family, seed, Plan(ratio=(1.1, 2.0), utilisation=(0.02, 0.1)))
    traffic = replace(scenario.traffic, burst_share=draw.even(0.03, 0.1), burst_factor=draw.log(8, 30))
    scenario = _with_pauses(draw, replace(scenario, traffic=traffic), draw.whole(2, 5), (0.05, 0.12))
    pause = draw.pick(scenario.traffic.pauses)
    middle = (pause[0] + pause[1]) / 2 / scenario.duration
    span = (middle, rounded(middle + draw.even(0.1, 0.3)))
    size = draw.log(1.3, 5)
    return befall(scenario, trouble(draw, scenario, Kind.SLOW, size, span, backend=favourite(scenario)))


def saturated(draw: Draw, family: str, seed: int) -> Scenario:
    """Hardly ever idle, several workers: learning has to come from served batches."""
    plan = Plan(ratio=(1.05, 1.3), utilisation=(0.75, 0.95), workers=(1, 2, 4))
    scenario = lay(draw, family, seed, plan)
    span = draw.even(0.2, 0.4), draw.even(0.5, 0.8)
    size = draw.log(1.3, 3)
    return befall(scenario, trouble(draw, scenario, Kind.SLOW, size, span, backend=favourite(scenario)))


def many_backends(draw: Draw, family: str, seed: int) -> Scenario:
    """Three or four backends, each the fastest somewhere, one of them degrading, one hopeless."""
    plan = Plan(backends=draw.whole(3, 4), buckets=(2, 4), shape=winner_per_bucket, ratio=(1.05, 2.5))
    scenario = lay(draw, family, seed, plan)
    leader = favourite(scenario)
    hopeless = (leader + 1) % plan.backends
    worse = draw.log(1.5, 4)
    scenario = change_backends(
        scenario,
        lambda j, b: replace(b, latency=tuple(rounded(s * worse) for s in b.latency)) if j == hopeless else b,
    )
    span = draw.even(0.2, 0.4), draw.even(0.5, 0.9)
    return befall(scenario, trouble(draw, scenario, Kind.SLOW, draw.log(1.3, 6), span, backend=leader))


def everything(draw: Draw, family: str, seed: int) -> Scenario:
    """Several of the above at once."""
    plan = Plan(backends=draw.whole(2, 4), shape=winner_per_bucket, ratio=(1.05, 2.0), utilisation=(0.05, 0.8))
    scenario = lay(draw, family, seed, plan)
    everyone = tuple(range(plan.backends))
    scenario = replace(scenario, poison_chance=draw.log(0.0005, 0.005) if draw.chance(0.5) else 0.0)
    scenario = change_backends(
        scenario,
        lambda _, b: replace(b, failure_chance=draw.log(0.0002, 0.003) if draw.chance(0.5) else 0.0),
    )
    for _ in range(draw.whole(1, 3)):
        hit = best(scenario, draw.whole(0, len(scenario.buckets) - 1))
        start = draw.even(0.1, 0.8)
        span = start, rounded(start + draw.even(0.08, 0.3))
        kind = draw.pick((Kind.SLOW, Kind.SLOW, Kind.FAIL, Kind.NOT_FINITE))
        size = draw.log(1.3, 10) if kind is Kind.SLOW else draw.even(0.3, 1)
        scenario = befall(scenario, trouble(draw, scenario, kind, size, span, backend=hit))
    if draw.chance(0.6):
        start = draw.even(0.02, 0.9) * scenario.duration
        end = rounded(start + draw.log(20, 600))
        effect = Effect(Kind.SLOW, everyone, every_bucket(scenario), rounded(start), end, draw.log(1.3, 3))
        scenario = befall(scenario, effect)
    return scenario


def _storms(draw: Draw, scenario: Scenario, kind: Kind) -> Scenario:
    leader = favourite(scenario)
    for low in (0.1, 0.55)[: draw.whole(1, 2)]:
        start = draw.even(low, low + 0.2)
        span = start, rounded(start + draw.even(0.05, 0.2))
        scenario = befall(scenario, trouble(draw, scenario, kind, draw.even(0.3, 1), span, backend=leader))
    return scenario


def _with_pauses(draw: Draw, scenario: Scenario, count: int, length: tuple[float, float]) -> Scenario:
    spans = []
    for place in range(count):
        start = (place + draw.even(0.2, 0.7)) / count * scenario.duration
        spans.append((rounded(start), rounded(start + draw.even(*length) * scenario.duration)))
    return replace(scenario, traffic=replace(scenario.traffic, pauses=tuple(spans)))
