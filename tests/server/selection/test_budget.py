"""What may be spent, and by whom it is earned."""

import pytest

from server.selection.budget import MOST_SWITCHES, SWITCHES_AT_ONCE, SWITCHES_PER_HOUR, Restraint
from server.selection.policy import Selector
from tests.server.selection.world import Server


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_time_before_the_first_question_earns_nothing(start: float) -> None:
    """A clock that counts since the machine was started gives no switches for that."""
    restraint = Restraint()
    assert restraint.allows(1, start, 2)
    assert restraint.left == 2 * SWITCHES_AT_ONCE
    restraint.allows(1, start + 360.0, 2)
    assert restraint.left == pytest.approx(2 * (SWITCHES_AT_ONCE + SWITCHES_PER_HOUR / 10))


def test_a_clock_that_has_run_for_long_decides_alike() -> None:
    """Decisions depend on time that passed, never on what the clock says."""
    chosen = []
    for start in (0.0, 1e6):
        server = Server({"a": 0.01, "b": 0.012, "c": 0.02}, buckets=(1, 8), now=start)
        for times in ({"a": 0.05}, {"a": 0.01}, {"b": 0.005}, {"b": 0.02}):
            server.serve(200)
            server.times |= times
        chosen.append(server.chosen)
    assert chosen[0] == chosen[1]


def test_only_buckets_that_have_batches_earn_switches() -> None:
    """What never has a batch brings no switches, at the start or later, nor does one whose batches ended."""
    many = Selector((1, 2, 4, 8))
    many.backend_state("a", available=True, now=0.0)
    for second in range(100):
        many.choose(1, float(second))
    assert many.table.busy(99.0) == 1
    assert many.table.busy(1e5) == 0
    restraint = Restraint()
    restraint.allows(1, 0.0, many.table.busy(99.0))
    restraint.allows(1, 3600.0, many.table.busy(99.0))
    assert restraint.left == min(SWITCHES_AT_ONCE + SWITCHES_PER_HOUR, 2 * MOST_SWITCHES)
