"""What a scenario is: plain facts, in full, from which `conditions` makes arrays. No random numbers here."""

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What befalls a backend."""

    SLOW = "slow"  # latency times `size` from start to end
    DRIFT = "drift"  # latency grows geometrically to `size` times from start to end, and stays
    FAIL = "fail"  # a run raises with the chance `size`
    NOT_FINITE = "not finite"  # a run answers NaN with the chance `size`


@dataclass(frozen=True)
class Effect:
    """Something that happens to backends for a while.

    Attributes:
        kind: What.
        backends: Indices of the backends that it hits; for a noisy neighbour, all.
        buckets: Indices of the buckets that it hits.
        start: Seconds.
        end: Seconds.
        size: A factor or a chance, see `Kind`.
        is_degradation: Counted by the score: a backend that is served from should be left.
    """

    kind: Kind
    backends: tuple[int, ...]
    buckets: tuple[int, ...]
    start: float
    end: float
    size: float
    is_degradation: bool = False


@dataclass(frozen=True)
class Backend:
    """One backend, undisturbed.

    Attributes:
        latency: Mean seconds of a warm run without spikes, per bucket.
        sigma: Standard deviation of the logarithm of independent noise, whose mean is 1.
        weather: The same for noise that stays alike for some 30 seconds; it is noise to the score, too.
        spike_chance: Of a run that takes `spike_size` times as long.
        spike_size: The bounds between which a spike's factor lies, evenly.
        failure_chance: Of a run that raises.
        cold_runs: So many runs in a bucket are slow, at first and after a pause.
        cold_factor: How many times slower.
        cold_after: Seconds without a run in a bucket that make it cold.
        available: Spans of seconds, [start, end).
    """

    latency: tuple[float, ...]
    sigma: float
    weather: float
    spike_chance: float
    spike_size: tuple[float, float]
    failure_chance: float
    cold_runs: int
    cold_factor: float
    cold_after: float
    available: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Traffic:
    """When batches come and how large they are.

    Attributes:
        mixes: Bucket weights at moments evenly spread from first to last; in between they are mixed.
        day: How much the rate swings (0 not, 1 down to nothing) over `days` periods.
        days: Periods within the scenario.
        burst_share: Share of time in bursts.
        burst_factor: How many times the rate is in a burst.
        pauses: Spans of seconds without traffic.
    """

    mixes: tuple[tuple[float, ...], ...]
    day: float
    days: float
    burst_share: float
    burst_factor: float
    pauses: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scenario:
    """One world. Its family and seed determine everything, the noise included.

    Attributes:
        family: A name in `scenarios.FAMILIES`.
        seed: Within the family.
        duration: Seconds.
        batches: How many arrive.
        workers: How many batches run at once.
        buckets: Batch sizes, ascending.
        backends: Two to four; the order is that of their names a, b, c, d.
        traffic: Arrivals.
        effects: What happens.
        poison_chance: Of a batch whose input fails on every backend: the client's error.
    """

    family: str
    seed: int
    duration: float
    batches: int
    workers: int
    buckets: tuple[int, ...]
    backends: tuple[Backend, ...]
    traffic: Traffic
    effects: tuple[Effect, ...]
    poison_chance: float
