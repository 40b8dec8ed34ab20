"""Random processes in time: when batches arrive, when something is going on, how strongly.

They know nothing of backends. All draw from the generator given, in a fixed order.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.selection_traces.traces import Booleans, Floats, Integers

Intervals = list[tuple[float, float]]


def poisson(rng: np.random.Generator, count: int, seconds: float) -> Floats:
    """`count` independent arrivals in [0, seconds)."""
    return np.sort(rng.random(count)) * seconds


def metronome(rng: np.random.Generator, period: float, seconds: float, jitter: float = 0.01) -> Floats:
    """One arrival per period, each up to `jitter` periods late."""
    count = int(seconds / period)
    return (np.arange(count) + rng.random(count) * jitter) * period


def bursts(rng: np.random.Generator, count: int, seconds: float, on: float, off: float) -> Floats:
    """`count` arrivals, all inside busy stretches of `on` seconds with `off` seconds of silence between, on average."""
    rounds = max(1, int(seconds / (on + off)))
    busy = rng.uniform(0.5, 1.5, rounds)
    idle = rng.uniform(0.5, 1.5, rounds)
    scale = seconds / (on * busy.sum() + off * idle.sum())
    busy, idle = busy * on * scale, idle * off * scale
    ends = np.cumsum(busy)
    moments = np.sort(rng.random(count)) * ends[-1]
    stretch = np.searchsorted(ends, moments, side="right").clip(max=rounds - 1)
    times: Floats = moments + np.concatenate(([0.0], np.cumsum(idle)[:-1]))[stretch]
    return times


def mix(rng: np.random.Generator, count: int, weights: Sequence[float] | Floats) -> Integers:
    """Bucket indexes drawn by weight."""
    edges = np.cumsum(np.asarray(weights, np.float64))
    return np.searchsorted(edges[:-1] / edges[-1], rng.random(count), side="right").astype(np.int64)


def intervals(
    rng: np.random.Generator, seconds: float, gap: tuple[float, float], length: tuple[float, float]
) -> Intervals:
    """Stretches of `length` seconds apart by `gap` seconds, each uniform between its bounds, the first after a gap."""
    found: Intervals = []
    begin = float(rng.uniform(*gap))
    while begin < seconds:
        end = begin + float(rng.uniform(*length))
        found.append((begin, end))
        begin = end + float(rng.uniform(*gap))
    return found


def inside(times: Floats, stretches: Intervals) -> Booleans:
    """Whether each moment lies within one of the stretches, which are in order and apart."""
    edges = np.array([edge for stretch in stretches for edge in stretch])
    within: Booleans = np.searchsorted(edges, times, side="right") % 2 == 1
    return within


def staircase(rng: np.random.Generator, times: Floats, dwell: tuple[float, float], low: float, high: float) -> Floats:
    """A level uniform in [low, high) at each moment that stays for a while and then jumps to another."""
    edges = [0.0]
    while edges[-1] < times[-1]:
        edges.append(edges[-1] + float(rng.uniform(*dwell)))
    levels = rng.uniform(low, high, len(edges))
    return levels[np.searchsorted(edges, times, side="right") - 1]


def toggles(rng: np.random.Generator, times: Floats, dwell: float) -> Booleans:
    """A two-state Markov chain in continuous time: the second state, whose mean stay is that of the first."""
    stays = rng.standard_exponential(int(3 * times[-1] / dwell) + 8) * dwell
    second: Booleans = np.searchsorted(np.cumsum(stays), times) % 2 == 1
    return second


def recent(times: Floats, within: float) -> Integers:
    """How many arrivals each arrival has in the `within` seconds before it."""
    return (np.arange(len(times)) - np.searchsorted(times, times - within)).astype(np.int64)


def since_idle(times: Floats, idle: float) -> Integers:
    """How many arrivals there were since the last silence of at least `idle` seconds: 0 for the first after it."""
    order = np.arange(len(times))
    starts = np.diff(times, prepend=times[0]) >= idle
    return order - np.maximum.accumulate(np.where(starts, order, 0))
