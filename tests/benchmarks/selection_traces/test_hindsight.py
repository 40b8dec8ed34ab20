"""Tests of `benchmarks.selection_traces.hindsight`."""

import numpy as np
import pytest

from benchmarks.selection_traces import hindsight
from benchmarks.selection_traces.families import FAMILIES, Family
from benchmarks.selection_traces.traces import Episode, Floats, Trace

INF, NAN = float("inf"), float("nan")


def small(durations: Floats, times: list[float], elapsed: Floats | None = None, **facts: object) -> Trace:
    """A trace of one bucket, its levels the durations."""
    cost = durations if elapsed is None else elapsed
    trace = Trace(
        family="small",
        seed=0,
        sizes=(1,),
        times=np.array(times),
        buckets=np.zeros(len(times), np.int64),
        durations=durations,
        elapsed=cost,
        level=cost,
        golden=durations,
        calibration=cost[None, :1],
        ready=np.zeros(durations.shape[1]),
        poisoned=np.zeros(len(times), np.bool_),
        episodes=(),
    )
    for name, value in facts.items():
        object.__setattr__(trace, name, value)
    return trace


def test_three_hindsights_of_a_trace_counted_by_hand() -> None:
    """The best per batch, per minute and per bucket are what a person finds."""
    trace = small(np.array([[1.0, 2.0], [4.0, 2.0], [5.0, 1.0], [5.0, 6.0]]), [0.0, 59.0, 60.0, 100.0])
    assert hindsight.per_batch(trace).tolist() == [1.0, 2.0, 1.0, 5.0]
    assert hindsight.per_window(trace).tolist() == [2.0, 2.0, 1.0, 6.0]
    assert hindsight.per_bucket(trace).tolist() == [2.0, 2.0, 1.0, 6.0]
    assert hindsight.always(trace, 0).tolist() == [1.0, 4.0, 5.0, 5.0]
    assert hindsight.lost(trace, hindsight.always(trace, 0), hindsight.per_batch(trace)) == pytest.approx(15 / 9 - 1)


def test_a_failure_costs_the_attempt_and_the_rescue() -> None:
    """A run that raises or gives NaN is followed by the quickest backend that answers."""
    trace = small(
        np.array([[INF, 2.0, 3.0], [NAN, 4.0, 3.0]]), [0.0, 1.0], np.array([[0.5, 2.0, 3.0], [1.0, 4.0, 3.0]])
    )
    assert hindsight.served(trace).tolist() == [[2.5, 2.0, 3.0], [4.0, 4.0, 3.0]]


def test_poisoned_batches_count_for_nobody() -> None:
    """Whatever was spent on them, nothing is lost."""
    trace = small(
        np.array([[1.0, 2.0], [INF, INF]]),
        [0.0, 1.0],
        np.array([[1.0, 2.0], [9.0, 9.0]]),
        poisoned=np.array([False, True]),
    )
    assert hindsight.lost(trace, np.array([1.0, 18.0]), hindsight.per_batch(trace)) == 0.0


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.name)
def test_more_freedom_never_costs_more(kind: Family) -> None:
    """In sum: per batch, per minute, per bucket, always the same, in this order."""
    trace = kind.trace(4)
    sums = [hindsight.per_batch(trace).sum(), hindsight.per_window(trace).sum(), hindsight.per_bucket(trace).sum()]
    sums.append(min(hindsight.always(trace, backend).sum() for backend in range(trace.backends)))
    assert sums == pytest.approx(sorted(sums))


def test_batches_until_a_degraded_backend_is_left() -> None:
    """Counted from the start of the episode, where another is better, until the first other choice."""
    level = np.array([[1.0, 1.2]] * 2 + [[3.0, 1.2]] * 6)
    trace = small(level, [float(second) for second in range(8)])
    episode = Episode(0, 2.0, 8.0, 3.0)
    assert hindsight.batches_until_left(trace, np.array([0, 0, 0, 0, 0, 1, 1, 1]), episode) == 3
    assert hindsight.batches_until_left(trace, np.array([0, 0, 1, 1, 0, 1, 1, 1]), episode) == 0
    assert hindsight.batches_until_left(trace, np.zeros(8, np.int64), episode) == 6
    assert hindsight.batches_until_left(trace, np.zeros(8, np.int64), Episode(0, 2.0, 8.0, INF)) == 6
    assert hindsight.batches_until_left(trace, np.zeros(8, np.int64), Episode(1, 2.0, 8.0, 3.0)) == 0


def test_switches_are_counted_per_bucket() -> None:
    """Alternating buckets with a choice each are no switches."""
    trace = small(np.ones((4, 2)), [0.0, 1.0, 2.0, 3.0])
    assert hindsight.switches(trace, np.array([0, 1, 0, 0])) == 2
    object.__setattr__(trace, "buckets", np.array([0, 1, 0, 1]))
    object.__setattr__(trace, "sizes", (1, 4))
    assert hindsight.switches(trace, np.array([0, 1, 0, 1])) == 0
