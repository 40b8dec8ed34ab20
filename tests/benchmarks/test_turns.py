"""Turns have a fixed number of requests, and their time is that until the last answer."""

import threading
import time
from collections import Counter

import pytest

from benchmarks.turns import Contender, Turn, closed_loop, rounds, turned


def test_callers_share_a_fixed_number_of_calls() -> None:
    """Neither more nor fewer, whatever the number of callers, and each caller takes part."""
    calls: Counter[int] = Counter()
    together = threading.Barrier(4)

    def call(caller: int) -> None:
        calls[caller] += 1
        together.wait(20)

    turn = closed_loop(call, callers=4, requests=12)
    assert turn.requests == 12
    assert calls == {0: 3, 1: 3, 2: 3, 3: 3}


def test_the_time_counts_until_the_last_answer() -> None:
    """Two calls of different lengths side by side take as long as the longer one, and each half of that."""
    turn = closed_loop(lambda caller: time.sleep(0.02 + 0.1 * caller), callers=2, requests=2)
    assert turn.seconds >= 0.12
    assert turn.each == pytest.approx(turn.seconds / 2)
    assert 0.06 < turn.p50 < turn.seconds


def test_a_call_that_fails_ends_the_turn() -> None:
    """No figure is made of calls that failed."""

    def call(_: int) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        closed_loop(call, callers=2, requests=4)


def test_no_contender_always_goes_first() -> None:
    """Over six rounds each of three has each place equally often."""
    orders = [turned(["a", "b", "c"], number) for number in range(6)]
    for place in range(3):
        assert Counter(order[place] for order in orders) == {"a": 2, "b": 2, "c": 2}


def test_contenders_take_turns_in_processes_of_their_own() -> None:
    """A round of each in each, until the time is over but at least so many; one that is gone is told."""
    with Contender(["tests.benchmarks.turning"]) as one, Contender(["tests.benchmarks.turning"]) as other:
        seen = rounds({"one": (one, 1, 2), "other": (other, 2, 4)}, seconds=0.0, least=3)
        assert {name: [turn.requests for turn in turns] for name, turns in seen.items()} == {
            "one": [2] * 3,
            "other": [4] * 3,
        }
        assert all(isinstance(turn, Turn) and turn.seconds >= 0.002 for turns in seen.values() for turn in turns)
    with pytest.raises(RuntimeError, match="ended with 1"):
        Contender(["tests.benchmarks.there_is_none"])
