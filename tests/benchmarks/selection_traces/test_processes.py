"""Tests of `benchmarks.selection_traces.processes`."""

import numpy as np
import pytest

from benchmarks.selection_traces import processes


def test_arrivals_are_ordered_and_in_time() -> None:
    """Each kind of arrival keeps its count, its order and its end."""
    rng = np.random.default_rng(1)
    for times in (
        processes.poisson(rng, 500, 100.0),
        processes.bursts(rng, 500, 100.0, 2.0, 8.0),
        processes.metronome(rng, 0.2, 100.0),
    ):
        assert len(times) == 500
        assert (np.diff(times) >= 0).all()
        assert times[0] >= 0
        assert times[-1] <= 100


def test_bursts_leave_silence() -> None:
    """Arrivals within bursts leave out about the share of time asked for."""
    times = processes.bursts(np.random.default_rng(2), 20_000, 1000.0, 2.0, 8.0)
    silence = np.diff(times)[np.diff(times) > 1.0]
    assert silence.sum() == pytest.approx(800, rel=0.1)


def test_mix_keeps_its_weights() -> None:
    """A bucket of weight 0 never comes."""
    counts = np.bincount(processes.mix(np.random.default_rng(3), 10_000, (3, 0, 1)), minlength=3)
    assert counts[1] == 0
    assert counts[0] / counts[2] == pytest.approx(3, rel=0.1)


def test_intervals_are_apart_and_inside_tells_them() -> None:
    """A moment is inside from the begin of a stretch to before its end."""
    stretches = processes.intervals(np.random.default_rng(4), 1000.0, (10, 20), (5, 6))
    edges = [edge for stretch in stretches for edge in stretch]
    assert edges == sorted(edges)
    begin, end = stretches[0]
    assert processes.inside(np.array([0.0, begin, end - 1e-9, end]), stretches).tolist() == [False, True, True, False]


def test_recent_and_since_idle_count_by_hand() -> None:
    """Neighbours before an arrival, and place after a silence."""
    times = np.array([0.0, 0.5, 1.0, 9.0, 9.1])
    assert processes.recent(times, 0.6).tolist() == [0, 1, 1, 0, 1]
    assert processes.since_idle(times, 5.0).tolist() == [0, 1, 2, 0, 1]


def test_toggles_and_staircase_stay_as_long_as_asked() -> None:
    """Over long times both states are as frequent; levels keep within their bounds."""
    rng = np.random.default_rng(5)
    times = np.arange(100_000.0)
    state = processes.toggles(rng, times, 50.0)
    assert state.mean() == pytest.approx(0.5, abs=0.1)
    assert 100_000 / np.count_nonzero(np.diff(state)) == pytest.approx(50, rel=0.2)
    level = processes.staircase(rng, times, (100, 200), 1.0, 2.0)
    assert level.min() >= 1
    assert level.max() < 2
    assert 100_000 / np.count_nonzero(np.diff(level)) == pytest.approx(150, rel=0.1)
