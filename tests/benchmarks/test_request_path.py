"""Segue is compared with the echo that is the better one by the figure that is compared."""

import pytest

from benchmarks.request_path import Row, compare, verdicts


def rows(p50: float, per_second: float) -> list[Row]:
    """Segue with these figures beside two echoes, each of which is the better one by one of them."""
    figures = {"segue": (p50, per_second), "threads": (400.0, 5000.0), "asyncio": (300.0, 4000.0)}
    return [
        {"server": server, "concurrency": concurrency, "p50_us": own, "per_second": rate, "p99_us": 2 * own}
        for concurrency in (1, 16)
        for server, (own, rate) in figures.items()
    ]


def test_each_figure_has_its_own_faster_echo() -> None:
    """The lower p50 is one echo's, the higher throughput the other one's."""
    assert compare(rows(350.0, 4500.0), 1) == (50.0, 0.9)


@pytest.mark.parametrize(
    ("p50", "per_second", "expected"),
    [(450, 3500, [True, True]), (451, 3500, [False, True]), (450, 3499, [True, False])],
)
def test_each_limit_can_be_missed(p50: float, per_second: float, expected: list[bool]) -> None:
    """150 µs more than the lower p50 at concurrency 1 hold, 70 % of the higher throughput at 16 too, and no less."""
    assert [verdict.holds for verdict in verdicts(rows(p50, per_second))] == expected
