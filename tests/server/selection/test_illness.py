"""A backend that became slower while it served is tried again, and by more than one run."""

import math

import pytest

from server.selection.character import Character
from server.selection.history import TRIAL
from server.selection.illness import FORGOTTEN, SOONEST, STEADY, Illness
from server.selection.policy import Selector
from tests.server.selection.world import Server

WELL, SICK = math.log(0.1), math.log(0.3)


def ill(now: float = 0.0) -> Illness:
    """It served at one level for long, then three times slower for as long as it takes to be left."""
    illness = Illness()
    for _ in range(200):
        illness.steady(WELL)
    illness.left(SICK, 230, now)
    return illness


def warm() -> Character:
    """A backend of which is known that it doesn't warm up."""
    character = Character()
    character.cold_runs, character.cold, character.warmed = 0, 0.0, True
    return character


def test_what_was_left_as_slow_as_ever_is_not_ill() -> None:
    """Only growing slower is; and who served for long at a level is at home there."""
    illness = Illness()
    illness.left(SICK, 5, 0.0)
    assert illness.well is None
    for _ in range(50):
        illness.steady(WELL)
    illness.left(WELL + 0.05, 60, 0.0)
    assert illness.well is None
    recovered = ill()
    assert recovered.well == pytest.approx(WELL)
    recovered.left(WELL, FORGOTTEN, 99.0)
    assert recovered.well is None


def test_what_lasts_is_asked_about_more_seldom() -> None:
    """As likely as not it is over after as long again as it lasted."""
    illness = ill(now=1000.0)
    assert illness.is_over(1000.0) == 0
    assert illness.is_over(1000.0 + SOONEST) == pytest.approx(0.5)
    illness.tell(SICK, STEADY, 5000.0, warm())
    assert illness.is_over(5000.0 + SOONEST) < 0.2
    assert illness.is_over(5000.0 + 4000.0 + SOONEST) == pytest.approx(0.5)


def test_a_run_denies_only_what_it_cannot_be() -> None:
    """The first runs of a backend that warms up may be slow and it well; a warm slow run ends the hope."""
    character = Character()
    character.cold_runs, character.cold, character.warmed = 2, math.log(3), True
    illness = ill()
    told = []
    for value, row, now in (
        (SICK, 1, 10.0), (SICK + math.log(3), 1, 11.0), (SICK, 3, 20.0), (WELL, 3, 30.0), (SICK, 3, 40.0),
    ):  # fmt: skip
        if not illness.hopes:
            assert illness.hope(SICK) == pytest.approx(WELL)
        told.append((illness.tell(value, row, now, character), illness.hopes, illness.denied_at))
    assert told == [
        (None, True, 0.0), (SICK, False, 11.0), (SICK, False, 20.0), (None, False, 20.0), (SICK, False, 40.0),
    ]  # fmt: skip


def served(after: int) -> tuple[Server, Selector]:
    """`a` served, became four times slower and was left; so many batches later, without means to look at anything."""
    server = Server({"a": 0.1, "b": 0.15})
    assert server.serve(300)[-1] == "a"
    server.times = {"a": 0.4, "b": 0.15}
    assert server.serve(60)[-1] == "b"
    policy = server.policy
    for _ in range(after):
        policy.budget.missing = 100 * policy.budget.full
        server.serve(1, idle=False)
    return server, policy


def test_it_is_checked_whether_it_is_well_again() -> None:
    """For one batch, as a trial that the history tells; it is left at once if it isn't, and kept if it is."""
    server, policy = served(after=1200)
    checks = [switch for switch in policy.history if switch.kind == TRIAL and switch.time > 400]
    assert 1 <= len(checks) <= 3
    assert all(switch.reason.startswith("trial: a 102 ms against 150 ms over ") for switch in checks)
    assert sum(decision.backend == "a" for decision in server.chosen[400:]) <= len(checks)
    server.times = {"a": 0.1, "b": 0.15}
    for _ in range(1500):
        policy.budget.missing = 100 * policy.budget.full
        server.serve(1, idle=False)
    assert server.serve(1)[-1] == "a"
