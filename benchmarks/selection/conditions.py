"""A scenario as arrays: arrivals, true mean latencies per moment, and the noise of every run that could be made.

Time is divided into CELLS equal cells, within which the truth is constant: these are the time segments of the score.
Everything a policy could not influence is drawn here, before it plays, so every policy meets the same luck.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection.draw import normal, stream
from benchmarks.selection.specification import Backend, Effect, Kind, Scenario, Traffic

CELLS = 1024
WEATHER = 30.0  # seconds over which correlated noise stays alike
ERROR_SHARE = 0.5  # of a run's time passes before it raises
CALIBRATIONS = 4096  # distinct noises for calibrations; then they repeat

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """A scenario's truth and luck. Indices: g cell, k bucket, j backend, i batch, c calibration.

    Attributes:
        scenario: What it was made from.
        arrivals: Seconds [i], ascending.
        buckets: Bucket index [i].
        cells: Cell of the arrival [i]; a batch meets the conditions of its arrival, whenever it starts.
        mean: Expected seconds of a warm run that doesn't fail [g, k, j].
        error: Chance that a run raises [g, k, j].
        not_finite: Chance that a run answers NaN [g, k, j].
        available: Whether the backend is there [g, j].
        noise: Factor on the mean, of mean 1 [i, j].
        luck: Even in [0, 1), compared with the chances [i, j].
        poison: Whether the batch's input fails everywhere [i].
        calibration_noise: As noise [c, j].
        calibration_luck: As luck [c, j].
    """

    scenario: Scenario
    arrivals: Floats
    buckets: NDArray[np.int64]
    cells: NDArray[np.int64]
    mean: Floats
    error: Floats
    not_finite: Floats
    available: NDArray[np.bool_]
    noise: Floats
    luck: Floats
    poison: NDArray[np.bool_]
    calibration_noise: Floats
    calibration_luck: Floats


def realise(scenario: Scenario) -> Conditions:
    """Draw a scenario's arrivals and noise."""
    generator = stream(scenario.family, scenario.seed, "noise")
    shape = scenario.batches, len(scenario.backends)
    arrivals = _arrivals(generator, scenario)
    cells = np.minimum((arrivals / scenario.duration * CELLS).astype(np.int64), CELLS - 1)
    middles = (np.arange(CELLS) + 0.5) / CELLS * scenario.duration
    mean, error, not_finite = _truth(scenario, middles)
    weather = np.stack([_weather(generator, scenario.duration, b) for b in scenario.backends], axis=1)
    later = CALIBRATIONS, shape[1]
    return Conditions(
        scenario=scenario,
        arrivals=arrivals,
        buckets=_buckets(generator, scenario, arrivals),
        cells=cells,
        mean=mean,
        error=error,
        not_finite=not_finite,
        available=np.stack([_within(middles, b.available) for b in scenario.backends], axis=1),
        noise=_noise(generator, scenario, shape) * weather[cells],
        luck=generator.random(shape),
        poison=generator.random(scenario.batches) < scenario.poison_chance,
        calibration_noise=_noise(generator, scenario, later),
        calibration_luck=generator.random(later),
    )


def _within(moments: Floats, spans: tuple[tuple[float, float], ...]) -> NDArray[np.bool_]:
    inside = np.zeros(len(moments), dtype=np.bool_)
    for start, end in spans:
        inside |= (moments >= start) & (moments < end)
    return inside


def _arrivals(generator: np.random.Generator, scenario: Scenario) -> Floats:
    """A Poisson process of the traffic's rate, given its count."""
    edges = np.linspace(0, scenario.duration, CELLS + 1)
    rate = _rate(generator, scenario.traffic, edges)
    passed = np.concatenate(([0.0], np.cumsum(rate)))
    steps = np.cumsum(-np.log1p(-generator.random(scenario.batches + 1)))
    times: Floats = np.interp(steps[:-1] / steps[-1] * passed[-1], passed, edges)
    return times


def _rate(generator: np.random.Generator, traffic: Traffic, edges: Floats) -> Floats:
    share = (np.arange(CELLS) + 0.5) / CELLS
    rate = 1 + traffic.day * np.sin(2 * np.pi * (traffic.days * share + generator.random()))
    count = round(traffic.burst_share * CELLS / 4)
    for start in (generator.random(count) * CELLS).astype(np.int64):
        rate[start : start + 4] *= traffic.burst_factor
    rate[_within(share * edges[-1], traffic.pauses)] = 0
    rate[:4] = 0  # a server starts before its traffic does
    return rate


def _buckets(generator: np.random.Generator, scenario: Scenario, arrivals: Floats) -> NDArray[np.int64]:
    mixes = np.array([np.array(mix) / sum(mix) for mix in scenario.traffic.mixes])
    places = np.linspace(0, scenario.duration, len(mixes))
    weights = np.stack([np.interp(arrivals, places, mixes[:, k]) for k in range(mixes.shape[1])], axis=1)
    bounds = np.cumsum(weights, axis=1)
    drawn = generator.random(len(arrivals))[:, None] * bounds[:, -1:]
    buckets: NDArray[np.int64] = np.minimum((drawn >= bounds).sum(axis=1), mixes.shape[1] - 1).astype(np.int64)
    return buckets


def _truth(scenario: Scenario, moments: Floats) -> tuple[Floats, Floats, Floats]:
    shape = CELLS, len(scenario.buckets), len(scenario.backends)
    mean, fine, finite = np.ones(shape), np.ones(shape), np.ones(shape)
    for j, backend in enumerate(scenario.backends):
        mean[:, :, j] = np.array(backend.latency) * _spike_mean(backend)
        fine[:, :, j] = 1 - backend.failure_chance
    for effect in scenario.effects:
        target = {Kind.FAIL: fine, Kind.NOT_FINITE: finite}.get(effect.kind, mean)
        factor = _factor(effect, moments)
        for j in effect.backends:
            for k in effect.buckets:
                target[:, k, j] *= factor
    return mean, 1 - fine, 1 - finite


def _factor(effect: Effect, moments: Floats) -> Floats:
    """What the effect multiplies at each moment: a latency, or the chance that a run does not fail."""
    if effect.kind is Kind.DRIFT:
        grown: Floats = effect.size ** np.clip((moments - effect.start) / (effect.end - effect.start), 0, 1)
        return grown
    during = effect.size if effect.kind is Kind.SLOW else 1 - effect.size
    return np.where(_within(moments, ((effect.start, effect.end),)), during, 1.0)


def _spike_mean(backend: Backend) -> float:
    return 1 + backend.spike_chance * (sum(backend.spike_size) / 2 - 1)


def _noise(generator: np.random.Generator, scenario: Scenario, shape: tuple[int, int]) -> Floats:
    """Log-normal noise and spikes, together of mean 1."""
    noise = normal(generator, shape)
    spiked, size = generator.random(shape), generator.random(shape)
    for j, backend in enumerate(scenario.backends):
        low, high = backend.spike_size
        spike = np.where(spiked[:, j] < backend.spike_chance, low + (high - low) * size[:, j], 1.0)
        noise[:, j] = np.exp(backend.sigma * noise[:, j] - backend.sigma**2 / 2) * spike / _spike_mean(backend)
    return noise


def _weather(generator: np.random.Generator, duration: float, backend: Backend) -> Floats:
    """Correlated noise per cell, of mean 1: a moving mean of independent numbers."""
    width = max(1, round(WEATHER / duration * CELLS))
    raw = np.concatenate(([0.0], np.cumsum(normal(generator, (CELLS + width,)))))
    walk = (raw[width:] - raw[:-width])[:CELLS] / width**0.5
    return np.asarray(np.exp(backend.weather * walk - backend.weather**2 / 2))
