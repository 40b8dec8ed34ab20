"""Tests of `benchmarks.selection_traces.players`: that bounds can be kept, and that adversaries bite."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.selection_traces import hindsight, players
from benchmarks.selection_traces.families import FAMILIES, Family, family
from benchmarks.selection_traces.traces import Trace

SEEDS = range(4, 8)
NOBODY = np.zeros(0, np.int64)


def lost_by(spent: Callable[[Trace], players.Play], kind: Family) -> float:
    """Median time lost against the best per bucket and minute."""
    found = [kind.trace(seed) for seed in SEEDS]
    return float(np.median([hindsight.lost(trace, spent(trace).spent, hindsight.per_window(trace)) for trace in found]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind.name != "clockwork"], ids=lambda kind: kind.name)
def test_bounds_can_be_kept(kind: Family) -> None:
    """Who sees each level, only late, keeps both bounds at the 95th percentile, with room for learning."""
    window, oracle = [], []
    for trace in (kind.trace(seed) for seed in kind.seeds):
        spent = players.informed(trace).spent
        window.append(hindsight.lost(trace, spent, hindsight.per_window(trace)))
        oracle.append(hindsight.lost(trace, spent, hindsight.per_batch(trace)))
    assert np.percentile(window, 95) < kind.window - 0.025
    assert np.percentile(oracle, 95) < kind.oracle - 0.03


def test_clockwork_rewards_patience() -> None:
    """The informed player, always late, loses more than the bound; one that hardly moves far less."""
    kind = family("clockwork")
    assert lost_by(players.informed, kind) > lost_by(
        lambda trace: players.play(trace, players.confidence_bound(trace)), kind
    )
    assert lost_by(lambda trace: players.play(trace, players.confidence_bound(trace)), kind) < kind.window


@pytest.mark.parametrize(
    ("habit", "name"),
    [
        (players.epsilon_greedy, "costly_rivals"),
        (players.confidence_bound, "late_reversal"),
        (players.last_sample, "misleading_last"),
        (players.long_means, "seesaw"),
        (players.hasty, "decoys"),
    ],
)
def test_each_adversary_punishes_its_habit(habit: Callable[[Trace], players.Running], name: str) -> None:
    """The habit that a family is made against breaks that family's bound at the median already."""
    kind = family(name)
    assert lost_by(lambda trace: players.play(trace, habit(trace)), kind) > kind.window


@pytest.mark.parametrize("name", ["contention", "healing", "late_reversal", "moving_crossover", "seesaw"])
def test_no_constant_choice_will_do(name: str) -> None:
    """Where things change, the best backend for each bucket, known in advance, loses more than who follows, late."""
    kind = family(name)
    assert lost_by(players.informed, kind) < lost_by(
        lambda trace: players.Play(NOBODY, hindsight.per_bucket(trace)), kind
    )


def test_a_failed_batch_is_answered_by_another() -> None:
    """A play's cost holds the failed attempt and the rescue."""
    trace = family("failing_runs").trace(0)
    result = players.play(trace, players.Running(trace, lambda _: 0.0))
    rows = np.arange(len(result.chosen))
    first = trace.elapsed[rows, result.chosen]
    failed = ~trace.usable[rows, result.chosen]
    assert failed.any()
    assert (result.spent[failed] > first[failed]).all()
    assert (result.spent[~failed] == first[~failed]).all()
