"""Families in which the machine moves: contention, frequency, caches, collections, memory bandwidth, modes, leaks."""

import numpy as np

from benchmarks.selection_traces.processes import (
    bursts,
    inside,
    intervals,
    metronome,
    mix,
    recent,
    since_idle,
    staircase,
    toggles,
)
from benchmarks.selection_traces.scene import Scene, ordinary, rivals


def contention(rng: np.random.Generator) -> Scene:
    """Neighbours take the processor now and then: the good backend, which uses every core, suffers most."""
    scene = ordinary(rng, rivals(rng, 3))
    stretches = intervals(rng, scene.seconds, (90, 400), (20, 120))
    scene.degrade(0, stretches, 1.8, 4.0)
    for backend in (1, 2):
        scene.slow(backend, float(rng.uniform(1.0, 1.25)), inside(scene.times, stretches))
    return scene


def thermal_steps(rng: np.random.Generator) -> Scene:
    """The clock steps up and down for all; in half of the traces one backend, bound by memory, feels only a part."""
    scene = ordinary(rng, rivals(rng, 3))
    clock = staircase(rng, scene.times, (30, 240), 1.0, 2.2)
    parts = [1.0, float(rng.choice([1.0, 0.2])), 1.0]
    for backend, part in enumerate(parts):
        scene.slow(backend, 1.0 + (clock - 1.0) * part)
    return scene


def common_stalls(rng: np.random.Generator) -> Scene:
    """The host takes the machine away for seconds at a time: all backends are slower by the same factor."""
    scene = ordinary(rng, rivals(rng, 2, 1.08, 1.3))
    factor = np.ones(len(scene.times))
    for stretch in intervals(rng, scene.seconds, (10, 60), (0.5, 8)):
        factor[inside(scene.times, [stretch])] = rng.uniform(2.0, 8.0)
    for backend in range(2):
        scene.slow(backend, factor)
    return scene


def cold_after_idle(rng: np.random.Generator) -> Scene:
    """Bursts after silence: the first batches find caches cold, which costs the good backend far more."""
    count, seconds = int(rng.integers(800, 2500)), float(rng.uniform(20, 60)) * 60
    times = bursts(rng, count, seconds, float(rng.uniform(5, 20)), float(rng.uniform(20, 90)))
    scene = Scene(rng, times, (1, 4, 16), mix(rng, count, (3, 2, 1)), rivals(rng, 2))
    cold = since_idle(times, 8.0) < int(rng.integers(1, 4))
    scene.spike(0, float(rng.uniform(3, 10)), cold)
    scene.spike(1, float(rng.uniform(1.0, 1.6)), cold)
    return scene


def collector_spikes(rng: np.random.Generator) -> Scene:
    """Periodic pauses hit the backend that is otherwise faster; in a third of the traces they outweigh its speed."""
    scene = ordinary(rng, rivals(rng, 2, 1.25, 1.45))
    factor = float(rng.uniform(5, 20))
    burden = 0.9 if rng.random() < 0.33 else float(rng.uniform(0.03, 0.12))
    share, period = min(0.3, burden / (factor - 1)), float(rng.uniform(3, 20))
    scene.spike(0, factor, np.mod(scene.times, period) < share * period)
    return scene


def bandwidth(rng: np.random.Generator) -> Scene:
    """Batches close together fight for memory; the good backend loses speed with company, golden runs have none."""
    count, seconds = int(rng.integers(2500, 6000)), float(rng.uniform(10, 25)) * 60
    times = bursts(rng, count, seconds, float(rng.uniform(10, 60)), float(rng.uniform(5, 30)))
    scene = Scene(rng, times, (1, 8, 32), mix(rng, count, (2, 2, 1)), rivals(rng, 2, 1.15, 1.35))
    company = np.minimum(recent(times, float(3 * np.median(np.diff(times)))), 5)
    big = np.array([0.2, 0.6, 1.0])[scene.buckets]
    scene.spike(0, 1.0 + company * big * float(rng.uniform(0.1, 0.6)), company > 0)
    scene.spike(1, 1.0 + company * big * 0.03, company > 0)
    return scene


def two_modes(rng: np.random.Generator) -> Scene:
    """The good backend has a mode 1.8 times as slow; it stays in a mode for minutes, or for moments."""
    scene = ordinary(rng, np.array([1.0, rng.uniform(1.2, 1.32)]))
    if rng.random() < 0.6:
        scene.slow(0, 1.8, toggles(rng, scene.times, float(rng.uniform(90, 400))))
    else:
        scene.spike(0, 1.8, toggles(rng, scene.times, float(rng.uniform(0.2, 3))))
    return scene


def leak(rng: np.random.Generator) -> Scene:
    """The good backend slows by 0.1 to 2 % a minute until the other is better; in half, a restart heals it."""
    pace = float(np.exp(rng.uniform(np.log(0.001), np.log(0.02))))
    minutes = float(rng.uniform(40, 60))
    crossing = float(rng.uniform(0.3, 0.6))
    scene = ordinary(rng, np.array([1.0, 1.0 + pace * minutes * crossing]), minutes=(minutes, minutes + 1e-9))
    age = scene.times / 60
    restart = minutes * float(rng.uniform(0.75, 0.9))
    if rng.random() < 0.5:
        age = np.where(age < restart, age, age - restart)
    scene.slow(0, 1.0 + pace * age)
    return scene


def clockwork(rng: np.random.Generator) -> Scene:
    """A task runs on each full minute for some seconds and slows the good backend; batches come on a beat as well."""
    times = metronome(rng, float(rng.choice([0.25, 0.5, 1.0])), float(rng.uniform(20, 50)) * 60)
    scene = Scene(rng, times, (1, 4), mix(rng, len(times), (2, 1)), np.array([1.0, rng.uniform(1.5, 1.7)]))
    scene.slow(0, float(rng.uniform(2.0, 2.8)), np.mod(times, 60.0) < rng.uniform(6, 14))
    return scene
