"""The rule by which a choice is judged, on times made up for it."""

from collections.abc import Sequence

import pytest

from benchmarks.faster_path.judge import Measured, always, joined, judge

ROUNDS = 7
SLOWDOWNS = (1.0, 3.0, 1.0, 2.0, 1.0, 4.0, 1.0)
"""By round, of a machine that others use too."""


def times(seconds: float, noise: Sequence[float] = (0.0,) * ROUNDS) -> list[float]:
    """A backend's times over the rounds."""
    return [seconds * slow * (1 + more) for slow, more in zip(SLOWDOWNS, noise, strict=True)]


def measured(seconds: float, selected: str, a: float = 0.010, b: float = 0.015) -> Measured:
    """Two backends, and a choice that took so long."""
    return Measured({"a": times(a), "b": times(b)}, times(seconds), selected)


def test_the_faster_one_holds_whatever_the_machine_does() -> None:
    """Rounds that are slow for all alike change no verdict."""
    verdict = judge(measured(0.0103, "a"))
    assert (verdict.fastest, verdict.as_fast, verdict.winner, verdict.selected) == ("a", (), "a", "a")
    assert verdict.ratio.median == pytest.approx(1.03)
    assert verdict.holds


def test_the_slower_one_does_not_hold() -> None:
    """Neither right nor quick."""
    verdict = judge(measured(0.015, "b"))
    assert (verdict.right, verdict.quick, verdict.holds) == (False, False, False)


def test_the_faster_one_must_be_served_as_fast() -> None:
    """What is lost between the choice and the answer counts: 1.05 times the best backend's time is the most."""
    verdict = judge(measured(0.0107, "a"))
    assert (verdict.right, verdict.quick, verdict.holds) == (True, False, False)
    assert judge(measured(0.0107, "a"), limit=1.1).holds


def test_two_that_are_as_fast_are_both_right() -> None:
    """The interval of their ratio reaches into 0.97 to 1.03: a choice of either holds, and neither wins."""
    noise = (0.02, -0.01, 0.06, 0.03, -0.02, 0.05, 0.04)
    both = {"a": times(0.010), "b": times(0.010, noise)}
    verdict = judge(Measured(both, times(0.0102), "b"))
    assert (verdict.fastest, verdict.as_fast, verdict.winner, verdict.holds) == ("a", ("b",), None, True)


def test_a_policy_that_never_explored_fails_though_pins_teach_it() -> None:
    """It chose the slower one by itself; that it serves from the faster one, once pins have shown it, is no excuse."""
    verdict = judge(measured(0.0101, "b"))
    assert (verdict.selected, verdict.right, verdict.quick, verdict.holds) == ("b", False, True, False)


def test_whoever_is_slower_by_more_than_a_twentieth_is_not_as_fast() -> None:
    """However wide the interval is: on a machine that others use it has room for anything."""
    wild = (-0.5, 0.3, 0.08, 0.5, -0.4, 0.06, 0.4)
    verdict = judge(Measured({"a": times(0.010), "b": times(0.010, wild)}, times(0.010), "b"))
    assert (verdict.fastest, verdict.as_fast, verdict.holds) == ("a", (), False)


def test_a_choice_that_has_not_settled_is_right_only_if_it_is_the_fastest() -> None:
    """It may have passed the other one by chance."""
    noise = (0.02, -0.01, 0.06, 0.03, -0.02, 0.05, 0.04)
    both = {"a": times(0.010), "b": times(0.010, noise)}
    assert judge(Measured(both, times(0.0101), "b", settled=True)).holds
    assert not judge(Measured(both, times(0.0101), "b", settled=False)).holds
    assert judge(Measured(both, times(0.0101), "a", settled=False)).holds


def test_always_the_same_backend_is_judged_by_the_same_rule() -> None:
    """It holds where that one is the fastest, and fails by how much slower it is elsewhere."""
    one = measured(0.010, "a")
    assert always("a", one).holds
    assert always("b", one).ratio.median == pytest.approx(1.5)
    assert not always("b", one).holds


def test_more_rounds_are_judged_together() -> None:
    """One choice, and all its times."""
    verdict = judge(joined([measured(0.015, "a"), measured(0.0101, "a"), measured(0.0101, "a")]))
    assert (verdict.selected, verdict.holds) == ("a", True)
    assert verdict.ratio.median == pytest.approx(1.01)


def test_times_of_other_rounds_are_refused() -> None:
    """Only what ran next to each other is compared."""
    one = measured(0.010, "a")
    with pytest.raises(ValueError, match="zip"):
        judge(Measured(one.alone, one.chosen[:-1], one.selected))
