"""Families made to punish one habit each: exploring by count, confidence bounds, the last sample, long means, haste."""

import numpy as np

from benchmarks.selection_traces.processes import Intervals
from benchmarks.selection_traces.scene import Scene, ordinary, rivals


def costly_rivals(rng: np.random.Generator) -> Scene:
    """Against exploring a share of the batches: each look at one of three hopeless rivals costs 10 to 100 good runs."""
    ratio = np.concatenate(([1.0, rng.uniform(1.1, 1.3)], rng.uniform(10, 100, 2)))
    return ordinary(rng, ratio)


def late_reversal(rng: np.random.Generator) -> Scene:
    """Against confidence bounds on means of all time: after a long calm the ranking turns, for good."""
    scene = ordinary(rng, rivals(rng, 3, 1.2, 1.4), minutes=(30, 60))
    turn = scene.seconds * float(rng.uniform(0.5, 0.65))
    scene.degrade(0, [(turn, scene.seconds + 1.0)], 1.8, 2.6)
    return scene


def misleading_last(rng: np.random.Generator) -> Scene:
    """Against the last sample: the good backend's runs are quick or slow in turn, or by lot; the other's are even."""
    scene = ordinary(rng, np.array([0.5, rng.uniform(1.12, 1.25)]))
    count = len(scene.times)
    slow = np.arange(count) % 2 == 0 if rng.random() < 0.5 else rng.random(count) < 0.5
    scene.spike(0, 2.8, slow)
    scene.sigma = np.full(2, 0.03)
    return scene


def seesaw(rng: np.random.Generator) -> Scene:
    """Against long means: two backends change places every few minutes, and over the hour they are alike."""
    scene = ordinary(rng, np.array([1.0, 1.0, 1.9]), minutes=(25, 60))
    dwell, factor = float(rng.uniform(120, 400)), float(rng.uniform(1.4, 2.2))
    edges = np.arange(0.0, scene.seconds + dwell, dwell)
    turns: tuple[Intervals, Intervals] = ([], [])
    for index, begin in enumerate(edges.tolist()):
        turns[index % 2].append((begin, begin + dwell))
    for backend, stretches in enumerate(turns):
        scene.degrade(backend, stretches, factor, factor + 1e-9)
    return scene


def decoys(rng: np.random.Generator) -> Scene:
    """Against haste: for a few batches the backends are slow in turn, always the one to which the last run drives."""
    scene = ordinary(rng, rivals(rng, 2, 1.05, 1.15), sizes=(1, 4))
    length, factor = int(rng.integers(8, 17)), float(rng.uniform(3.0, 5.0))
    phase = np.zeros(len(scene.times), np.int64)
    for bucket in range(2):
        own = scene.buckets == bucket
        phase[own] = np.mod(np.arange(int(own.sum())), int(rng.integers(35, 70)))
    for backend in range(2):
        scene.spike(backend, factor, (phase < length) & (phase % 2 == backend))
    return scene
