"""Families in which something breaks: failures in runs, poisoned inputs, degradation that heals, all at once."""

import numpy as np

from benchmarks.selection_traces.processes import inside, intervals, staircase
from benchmarks.selection_traces.scene import Scene, ordinary, rivals


def _break_down(scene: Scene, gap: tuple[float, float], length: tuple[float, float]) -> None:
    """Let the good backend fail in one of four manners: at once, after a time-out, with NaN, or now and then."""
    stretches = intervals(scene.rng, scene.seconds, gap, length)
    manner = int(scene.rng.integers(4))
    share = float(scene.rng.uniform(0.3, 0.7)) if manner == 3 else 1.0
    scene.break_down(0, stretches, share=share, nan=manner == 2, cost=(0.05, 5.0, 1.0, 0.5)[manner])


def failing_runs(rng: np.random.Generator) -> Scene:
    """The good backend fails for seconds or a minute at a time, and heals each time."""
    scene = ordinary(rng, rivals(rng, 3))
    _break_down(scene, (100, 500), (5, 60))
    return scene


def poisoned(rng: np.random.Generator) -> Scene:
    """Inputs that no backend can answer, single or sent again and again; in a third a backend fails on its own too."""
    scene = ordinary(rng, rivals(rng, 2))
    if rng.random() < 0.33:
        _break_down(scene, (200, 600), (10, 40))
    count = len(scene.times)
    where = rng.random(count) < rng.uniform(0.002, 0.01)
    for begin in rng.integers(0, count, int(rng.integers(1, 6))):
        where[begin : begin + int(rng.integers(5, 30))] = True
    scene.poison(where, nan=bool(rng.random() < 0.4))
    return scene


def healing(rng: np.random.Generator) -> Scene:
    """The good backend is 2 to 10 times slower for minutes, and then as good as ever."""
    scene = ordinary(rng, rivals(rng, 2, 1.2, 1.8), minutes=(20, 60))
    scene.degrade(0, intervals(rng, scene.seconds, (150, 500), (60, 240)), 2.0, 10.0)
    return scene


def everything(rng: np.random.Generator) -> Scene:
    """Four backends, six buckets, and a bit of all of it on one bad day."""
    ratio = np.stack([rivals(rng, 4, 1.05, 1.7)[rng.permutation(4)] for _ in range(6)])
    scene = ordinary(rng, ratio, (1, 2, 4, 8, 16, 32), (30, 60))
    clock = staircase(rng, scene.times, (120, 900), 1.0, 1.6)
    for backend in range(4):
        scene.slow(backend, clock)
        stretches = intervals(rng, scene.seconds, (300, 1500), (30, 200))
        scene.slow(backend, float(rng.uniform(1.2, 2.5)), inside(scene.times, stretches))
    scene.spike(1, float(rng.uniform(4, 10)), np.mod(scene.times, 7.0) < 0.05)
    scene.slow(2, 1.0 + 0.001 * scene.times / 60)
    scene.join(3, scene.seconds * float(rng.uniform(0.1, 0.4)))
    _break_down(scene, (400, 1500), (5, 60))
    scene.poison(rng.random(len(scene.times)) < 0.002, nan=False)
    return scene
