"""The overload in its short form; `make overload` has the long one."""

import pytest

from benchmarks.overload.__main__ import measure
from benchmarks.overload.figures import Limits, verdicts

pytestmark = pytest.mark.alone


@pytest.mark.slow
def test_three_times_the_load_is_borne() -> None:
    """What can be answered in time is answered, the rest is refused at once, health goes on, memory stays.

    A machine that does other things too is slower now and then, which health's answers tell: they wait for nothing in
    the server. One that lets requests wait until they fail, that stops answering health, or that keeps what it was
    sent, is beyond these limits as well.
    """
    for _ in range(3):
        capacity, flood = measure(seconds=5.0, deadline=0.5)
        if flood.sent > 2 * flood.answered:
            break  # else the machine was busy just while the capacity was measured, and there was no overload
    assert flood.sent > 2 * flood.answered, flood
    assert flood.health_p99 < 1.0, flood
    limits = Limits(goodput=0.4, refusal_p99=max(0.1, 3 * flood.health_p99), late=0.5, memory_rise=0.25)
    assert [str(verdict) for verdict in verdicts(capacity, flood, limits) if not verdict.holds] == [], flood
