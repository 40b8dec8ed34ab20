"""Families in which the work moves: mixes, crossovers, late and lying candidates, ties, thin and thick traffic."""

import numpy as np

from benchmarks.selection_traces.processes import bursts, intervals, metronome, mix, poisson, staircase
from benchmarks.selection_traces.scene import Scene, ordinary, rivals


def hot_bucket(rng: np.random.Generator) -> Scene:
    """A bucket that nobody asked for becomes the hot one; in half of the traces its calibration has grown stale."""
    count, seconds = int(rng.integers(2500, 6000)), float(rng.uniform(20, 60)) * 60
    times = poisson(rng, count, seconds)
    turn = float(rng.uniform(0.6, 0.8)) * seconds
    early, late = mix(rng, count, (3, 1, 0)), mix(rng, count, (1, 1, 8))
    ratio = np.array([[1.0, 1.3], [1.0, 1.2], [1.0, rng.uniform(1.2, 1.8)]])
    scene = Scene(rng, times, (1, 4, 16), np.where(times < turn, early, late), ratio)
    if rng.random() < 0.5:
        scene.slow(0, float(ratio[2, 1] * rng.uniform(1.2, 1.6)), scene.buckets == 2)
    return scene


def moving_crossover(rng: np.random.Generator) -> Scene:
    """One backend is better below a batch size, the other above it, and the boundary wanders over the buckets."""
    scene = ordinary(rng, np.ones(2), (1, 2, 4, 8, 16, 32))
    boundary = staircase(rng, scene.times, (150, 600), 0.0, 6.0)
    gain = float(rng.uniform(1.15, 1.6))
    small = scene.buckets < np.floor(boundary)
    scene.slow(0, gain, ~small)
    scene.slow(1, gain, small)
    return scene


def late_compiled(rng: np.random.Generator) -> Scene:
    """A compiled backend joins in mid-traffic, stutters while it warms up, and is faster for large batches only."""
    compiled = np.array([rng.uniform(1.2, 1.6), rng.uniform(1.02, 1.15), rng.uniform(0.6, 0.8), rng.uniform(0.4, 0.6)])
    ratio = np.stack([np.ones(4), np.full(4, rng.uniform(1.1, 1.5)), compiled], axis=1)
    scene = ordinary(rng, ratio, (1, 4, 16, 64), (20, 60))
    moment = scene.seconds * float(rng.uniform(0.1, 0.5))
    scene.join(2, moment)
    fresh = (scene.times >= moment) & (scene.times < moment + rng.uniform(5, 30))
    scene.slow(2, float(rng.uniform(3, 10)), fresh)
    return scene


def calibration_liar(rng: np.random.Generator) -> Scene:
    """One candidate (sometimes two) is the fastest on golden inputs when idle, always, and slow on what is served."""
    scene = ordinary(rng, rivals(rng, 3))
    for backend in range(1, 2 + int(rng.random() < 0.35)):
        lie = float(rng.uniform(0.55, 0.85)) / (scene.level[0, backend] / scene.level[0, 0])
        scene.golden[:, backend] *= lie
        scene.calibrated[:, backend] *= lie
    return scene


def near_ties(rng: np.random.Generator) -> Scene:
    """Backends differ by 1.5 % at the most, under noise many times that: it matters little who serves."""
    backends = int(rng.integers(2, 5))
    scene = ordinary(rng, 1.0 + rng.uniform(0.0, 0.015, (3, backends)))
    scene.sigma = np.full(backends, rng.uniform(0.08, 0.25))
    return scene


def sparse(rng: np.random.Generator) -> Scene:
    """One batch a minute, for an hour or two; the good backend is degraded for a third of it."""
    seconds = float(rng.uniform(60, 120)) * 60
    times = metronome(rng, 60.0, seconds, 0.9) if rng.random() < 0.5 else poisson(rng, int(seconds / 60), seconds)
    scene = Scene(rng, times, (1, 4), mix(rng, len(times), (3, 1)), rivals(rng, 2, 1.2, 1.5))
    begin = seconds * float(rng.uniform(0.25, 0.5))
    scene.degrade(0, [(begin, begin + seconds / 3)], 1.8, 4.0)
    return scene


def dense(rng: np.random.Generator) -> Scene:
    """200 to 400 batches a second while it lasts; the good backend is degraded for seconds at a time."""
    on, off = float(rng.uniform(8, 15)), float(rng.uniform(60, 100))
    count = int(rng.uniform(200, 400) * 600 * on / (on + off))
    times = bursts(rng, count, 600.0, on, off)
    scene = Scene(rng, times, (1, 4), mix(rng, count, (6, 1)), rivals(rng, 3))
    scene.degrade(0, intervals(rng, 600.0, (20, 90), (4, 30)), 1.6, 4.0)
    return scene
