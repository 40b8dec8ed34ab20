"""How gaps and late answers are judged, on gaps and answers that are known."""

import pytest

from benchmarks.soak.stalls import p99, worst


def test_a_gap_counts_less_the_controls_gap_beside_it() -> None:
    """What stops a process without a server too is the machine's; what remains is ours."""
    told = worst([(1.0, 1.08), (5.0, 5.03)], [(1.01, 1.07)], [(0.0, 2.0), (4.0, 6.0)])
    assert told == {"seen": 80.0, "beyond_control": 30.0, "typical": 25.0, "least": 20.0}


def test_gaps_outside_the_windows_are_not_looked_at() -> None:
    """They belong to another phase."""
    assert worst([(1.0, 2.0)], [], [(3.0, 4.0)])["seen"] == 0


def test_an_interpreter_that_is_held_shows_in_the_neighbours_answers() -> None:
    """A second in which nobody answers makes the 99th percentile of a load nearly a second long."""
    steady = [(0.01 * n, 0.004) for n in range(100)]
    held = [(1.0 + 0.01 * n, 1.0 - 0.01 * n) for n in range(100)]
    after = [(2.0 + 0.01 * n, 0.004) for n in range(300)]
    seen = [*steady, *held, *after]
    assert p99(seen, [(0.0, 1.0)]) == pytest.approx(4.0)
    assert p99(seen, [(1.0, 5.0)]) > 900
