"""The load generator counts what it has seen."""

import pytest

from benchmarks.load import summary


def test_a_request_that_outlasts_the_time_counts_with_its_time() -> None:
    """Three answers in four seconds: the last one began within the nominal three and ended after them."""
    told = summary([(10.0, 11.0), (11.0, 12.5), (12.5, 14.0)], begin=10.0)
    assert told == {"per_second": 0.75, "p50_us": pytest.approx(1.5e6), "p99_us": pytest.approx(1.5e6)}
