"""What serving adds is told from turns that were taken side by side."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.served import compare, show, verdicts
from benchmarks.turns import Turn


def turns(seconds: list[float], requests: int = 8) -> list[Turn]:
    """Turns that took so long, their requests alike."""
    return [Turn(requests, each, each / requests) for each in seconds]


LOAD = np.random.default_rng(1).uniform(1, 3, 25)
"""How busy the machine is, by round."""


def taken(served: float, alone: float, single: float | None = None) -> dict[str, list[Turn]]:
    """Seconds of turns on a machine that is busy to a changing degree."""
    seen = {"served": turns((served * LOAD).tolist()), "alone": turns((alone * LOAD).tolist())}
    if single is not None:
        seen["single"] = turns((single * LOAD).tolist(), requests=4)
    return seen


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that is busy now and then slows both, and the ratio stays, with an interval that is a point."""
    figures = compare(taken(served=1.5, alone=2.0))
    for name, ratio in (("overhead", 0.75), ("latency", 0.75), ("throughput", 4 / 3)):
        assert figures[name] == pytest.approx([ratio] * 3), name
    assert figures["rounds"] == 25


def test_throughput_is_compared_with_one_caller_in_process() -> None:
    """Eight requests in 1.5 s beside four in 1 s: a third more."""
    assert compare(taken(served=1.5, alone=2.0, single=1.0))["throughput"][0] == pytest.approx(4 / 3)


def test_the_median_request_is_not_the_mean_one() -> None:
    """Latencies of requests are compared for themselves."""
    seen = taken(served=1.0, alone=1.0)
    seen["served"] = [replace(turn, p50=2 * turn.p50) for turn in seen["served"]]
    figures = compare(seen)
    assert (figures["overhead"][0], figures["latency"][0]) == (pytest.approx(1.0), pytest.approx(2.0))


@pytest.mark.parametrize(
    ("callers", "served", "single", "expected"),
    [
        (1, 1.019, None, [True]),
        (1, 1.021, None, [False]),
        (4, 0.9, 0.5, [True, True]),
        (4, 1.01, 0.5, [True, False]),
        (16, 1.03, 0.6, [False, True]),
    ],
)
def test_each_limit_can_be_missed(callers: int, served: float, single: float | None, expected: list[bool]) -> None:
    """Two percent over the time in process is too much, and so is less throughput than one caller in process gets."""
    assert [verdict.holds for verdict in verdicts(callers, compare(taken(served, 1.0, single)))] == expected


def test_the_table_has_a_line_for_each_number_of_callers() -> None:
    """With both ratios and their intervals."""
    lines = show({1: compare(taken(1.0, 1.0)), 4: compare(taken(1.0, 1.0, 1.0))}).splitlines()
    assert len(lines) == 4
    assert lines[3].endswith("| 1.000 (1.000-1.000) | 2.000 (2.000-2.000) |")
