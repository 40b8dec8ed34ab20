"""Tests of `server.run_times`."""

import pytest

from server.run_times import RunTimes


def after(*seconds: float, size: int = 100) -> RunTimes:
    """What is known after runs of these lengths."""
    times = RunTimes()
    for each in seconds:
        times.observe(size, each)
    return times


def test_little_is_known_of_few_runs() -> None:
    """The first ones after loading may be slow: nobody is refused for them."""
    assert RunTimes().expected(100) == 0.0
    assert after(*[1.0] * 4).expected(100) == 0.0
    assert after(*[1.0] * 5).expected(100) == 1.0


def test_sizes_are_kept_apart() -> None:
    """A small request is not refused because large ones are slow."""
    times = after(*[1.0] * 10, size=1 << 20)
    assert times.expected((1 << 21) - 1) == 1.0
    assert times.expected(1 << 19) == 0.0


def test_a_shorter_run_counts_at_once_and_a_longer_one_by_and_by() -> None:
    """Only what is clearly too late is refused."""
    times = after(*[1.0] * 10)
    times.observe(100, 0.1)
    assert times.expected(100) == 0.1
    times.observe(100, 1.0)
    assert times.expected(100) == pytest.approx(0.1 + 0.9 / 8)
    for _ in range(40):
        times.observe(100, 1.0)
    assert times.expected(100) == pytest.approx(1.0, rel=0.01)


def test_one_of_eight_is_tried_all_the_same() -> None:
    """Else runs that have become shorter would never be seen."""
    times = after(*[1.0] * 5)
    assert [times.is_vain(100) for _ in range(16)] == ([True] * 7 + [False]) * 2
