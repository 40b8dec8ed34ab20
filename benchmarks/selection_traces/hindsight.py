"""What the best choices would have cost, known afterwards, and what a policy lost against them.

A policy's own cost is `spent`: seconds per batch, [n], from the first attempt to the answer, failed attempts and
exploration included. Poisoned batches count for nobody.
"""

import numpy as np

from benchmarks.selection_traces.traces import Episode, Floats, Integers, Trace

#: Seconds of the windows within which the best constant choice is taken.
WINDOW = 60.0


def served(trace: Trace) -> Floats:
    """Seconds per batch and first choice, [n, k]: a failed attempt is followed by the quickest backend that answers.

    A backend that is not ready costs nothing more than that: it isn't tried. Poisoned rows are 0.
    """
    answering = np.where(trace.usable, trace.durations, np.inf)
    rescue = answering.min(axis=1)
    rescue[trace.poisoned] = 0.0
    seconds = np.where(trace.usable, trace.durations, trace.elapsed + rescue[:, None])
    seconds[trace.poisoned] = 0.0
    return seconds


def per_batch(trace: Trace) -> Floats:
    """Seconds per batch, [n], of who knows each run's duration before it begins."""
    least: Floats = served(trace).min(axis=1)
    return least


def per_window(trace: Trace, window: float = WINDOW) -> Floats:
    """Seconds per batch, [n], of the best constant choice for each (bucket, window of so many seconds)."""
    windows = (trace.times // window).astype(np.int64)
    return _constant(trace, trace.buckets * (int(windows.max()) + 1) + windows)


def per_bucket(trace: Trace) -> Floats:
    """Seconds per batch, [n], of the best constant choice for each bucket over the whole trace."""
    return _constant(trace, trace.buckets)


def always(trace: Trace, backend: int) -> Floats:
    """Seconds per batch, [n], with one backend for all."""
    return served(trace)[:, backend]


def _constant(trace: Trace, groups: Integers) -> Floats:
    """Seconds per batch when each group keeps the backend with the least sum."""
    seconds = served(trace)
    sums = np.stack([np.bincount(groups, weights=column) for column in seconds.T], axis=1)
    choice: Integers = sums.argmin(axis=1)[groups]
    return seconds[np.arange(len(groups)), choice]


def lost(trace: Trace, spent: Floats, best: Floats) -> float:
    """Share of time lost against `best`: 0.03 is 3 %; below 0 where the policy did better."""
    counted = ~trace.poisoned
    return float(spent[counted].sum() / best[counted].sum() - 1.0)


def switches(trace: Trace, chosen: Integers) -> int:
    """How often two successive batches of a bucket had different first choices; a single exploring run counts twice."""
    return sum(int(np.count_nonzero(np.diff(chosen[trace.buckets == bucket]))) for bucket in range(len(trace.sizes)))


def batches_until_left(trace: Trace, chosen: Integers, episode: Episode, worth: float = 1.25) -> int:
    """How many batches of a bucket a degraded backend still served, from the start of the episode until it was left.

    Args:
        trace: Where the episode is from.
        chosen: First choice for each batch, [n].
        episode: One of the trace's.
        worth: Batches count only where another backend's level is better by this factor at least, or answers at all.

    Returns:
        The most over the buckets; 0 if the backend served none of them when the episode began.
    """
    level = np.where(trace.times[:, None] < trace.ready, np.inf, trace.level)
    others = np.delete(level, episode.backend, axis=1).min(axis=1)
    own = level[:, episode.backend] if np.isfinite(episode.factor) else np.full(len(others), np.inf)
    within = (trace.times >= episode.begin) & (trace.times < episode.end) & ~trace.poisoned & (own > worth * others)
    most = 0
    for bucket in range(len(trace.sizes)):
        left = np.flatnonzero(chosen[within & (trace.buckets == bucket)] != episode.backend)
        count = int(np.count_nonzero(within & (trace.buckets == bucket)))
        most = max(most, int(left[0]) if len(left) else count)
    return most
