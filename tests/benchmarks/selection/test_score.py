"""Scores mean what the module says, and the bars can be missed."""

from dataclasses import replace

import pytest

from benchmarks.selection.baselines import AlwaysWorst, Oracle
from benchmarks.selection.conditions import realise
from benchmarks.selection.hindsight import look_back
from benchmarks.selection.interface import Decision, Policy
from benchmarks.selection.scenarios import FAMILIES, scenario
from benchmarks.selection.score import Score, bars, score, summarise
from benchmarks.selection.specification import Kind, Scenario
from benchmarks.selection.world import play
from tests.benchmarks.selection.quiet import BACKEND, Scripted, only, quiet, slow


def judge(world: Scenario, policy: Policy) -> Score:
    """Play and score."""
    conditions = realise(world)
    return score(conditions, look_back(conditions), play(conditions, policy))


def peek(world: Scenario, kind: type[AlwaysWorst]) -> Score:
    """Play and score a policy that peeks."""
    conditions = realise(world)
    return judge(world, kind(conditions, look_back(conditions)))


def test_oracle_loses_nothing() -> None:
    """Where switching is free and nothing fails, playing the best choice in hindsight loses exactly nothing."""
    played = peek(quiet(effects=(slow(5.0, 300, 600),)), Oracle)
    assert played.lost == pytest.approx(0, abs=1e-12)
    assert played.switches == played.needed == 2
    assert played.left_clear == (0,)


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_loses_little_everywhere(family: str) -> None:
    """With the real costs of switching and the luck of failures, the yardstick can still nearly be reached."""
    assert abs(peek(scenario(family, 1), Oracle).lost) < 0.03


def test_worst_loses_much() -> None:
    """There is something to lose in most families."""
    losses = [peek(scenario(family, 2), AlwaysWorst).lost for family in FAMILIES if family != "twins"]
    assert sorted(losses)[len(losses) // 2] > 0.2


def test_slow_choice_is_lost_time() -> None:
    """Serving everything at twice the time loses 100 %."""
    assert judge(quiet(), Scripted(only("b"))).lost == pytest.approx(1)


def test_calibration_loses_only_what_waits() -> None:
    """Idle calibrations are exploration, and lose no more than batches wait for them."""
    played = judge(quiet(), Scripted(only("a"), calibrations=5))
    assert played.lost < 0.01
    assert played.exploration == pytest.approx(1 / 101)


def test_flapping_is_counted() -> None:
    """A policy that changes its mind all the time is not calm; one that explores as often has not switched."""
    flapping = judge(quiet(), Scripted(lambda now: Decision("ab"[int(now) % 2])))
    exploring = judge(quiet(), Scripted(lambda now: Decision("ab"[int(now) % 2], is_exploration=int(now) % 2 == 1)))
    assert flapping.switches > 300
    assert not flapping.calm
    assert exploring.switches == 0
    assert exploring.calm
    assert exploring.exploration > 0.3


def test_failover_and_removal_are_no_switches() -> None:
    """Neither a batch that fails over nor a backend that is taken away is a change of mind."""
    failing = quiet(effects=(slow(1.0, kind=Kind.FAIL),))
    assert judge(failing, Scripted(only("a"))).switches == 0
    leaving = quiet(replace(BACKEND, available=((0.0, 500.0),)), BACKEND)
    assert judge(leaving, Scripted(lambda now: Decision("a" if now < 498 else "b"))).switches == 1
    played = judge(leaving, Scripted(lambda now: Decision("a" if now < 500 else "b")))
    assert played.switches == 0


@pytest.mark.parametrize(("size", "kind", "clear"), [(4.0, Kind.SLOW, True), (2.5, Kind.SLOW, False)])
def test_batches_until_left(*, size: float, kind: Kind, clear: bool) -> None:
    """The count is of the batches that the degraded backend still got."""
    played = judge(quiet(effects=(slow(size, kind=kind),)), Scripted(lambda now: Decision("a" if now < 520 else "b")))
    (count,) = played.left_clear if clear else played.left_mild
    assert not (played.left_mild if clear else played.left_clear)
    assert 8 < count < 35


def test_coming_back_at_once_is_not_leaving() -> None:
    """One batch elsewhere does not count as having left."""
    script = Scripted(lambda now: Decision("b" if now > 510 and len(script.seen) % 5 == 0 else "a"))
    played = judge(quiet(effects=(slow(4.0),)), script)
    assert played.left_clear[0] > 300


def test_failures_are_clear() -> None:
    """A backend whose runs fail counts as clearly degraded though failing costs little."""
    cheap = quiet(BACKEND, replace(BACKEND, latency=(0.11,)), effects=(slow(1.0, kind=Kind.FAIL),))
    assert judge(cheap, Scripted(only("a"))).left_clear[0] > 400


def test_bars() -> None:
    """The oracle meets every bar; losing, flapping, exploring and staying each miss theirs."""
    good = peek(quiet(effects=(slow(5.0, 300, 600),)), Oracle)
    assert all(bars(summarise([good])).values())
    faults = {
        "lost_median": replace(good, lost=0.031),
        "lost_p95": replace(good, lost=0.09),
        "calm": replace(good, switches=99),
        "exploration": replace(good, exploration=0.011),
        "left": replace(good, left_clear=(21,)),
    }
    for bar, fault in faults.items():
        assert not bars(summarise([fault]))[bar]
