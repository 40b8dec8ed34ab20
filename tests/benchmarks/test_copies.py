"""Copies are counted against a copy of the same run."""

import pytest

from benchmarks.copies import sizes_cost, through_servers, verdicts

CODE = {"bytes to new bytes": 10.0, "request to array": 2.0, "array to reply, typed field": 12.0}
SERVED = {
    "bytes to new bytes": 10.0,
    "segue, 602 kB": 800.0,
    "segue, one pixel": 300.0,
    "echo, 602 kB": 790.0,
    "echo, one pixel": 305.0,
}


def test_what_a_tiny_request_costs_is_not_the_sizes_cost() -> None:
    """And what a bare gRPC server takes for the size is none of Segue's."""
    assert sizes_cost(SERVED) == pytest.approx({"segue": 50.0, "echo": 48.5, "added": 1.5})


def test_each_limit_can_be_missed() -> None:
    """More than two copies in the server's own code, or beside a bare gRPC server, do not hold."""
    assert [verdict.holds for verdict in verdicts(CODE, SERVED)] == [True, True]
    assert [verdict.holds for verdict in verdicts({**CODE, "request to array": 8.1}, SERVED)] == [False, True]
    assert [verdict.holds for verdict in verdicts(CODE, {**SERVED, "segue, 602 kB": 806.0})] == [True, False]


def test_requests_of_both_sizes_are_answered_by_both_servers() -> None:
    """A few requests through real processes: each kind has a figure."""
    taken = through_servers(requests=3)
    assert taken.keys() == SERVED.keys()
    assert all(microseconds > 0 for microseconds in taken.values())
