"""The overload in its short form; `make overload` has the long one."""

import pytest

from benchmarks.overload.__main__ import measure
from benchmarks.overload.figures import Limits, verdicts

# A machine that does other things too is slower now and then; a server that lets requests wait until they fail, that
# stops answering health or keeps what it was sent is beyond these as well.
_IN_PASSING = Limits(goodput=0.6, refusal_p99=0.2, late=0.05, memory_rise=0.25)


@pytest.mark.slow
def test_three_times_the_load_is_borne() -> None:
    """What cannot be answered in time is refused at once, what can be is answered, health goes on, memory stays."""
    capacity, flood = measure(seconds=5.0, deadline=0.5)
    assert flood.sent > 2 * flood.answered, "there was no overload"
    assert [str(verdict) for verdict in verdicts(capacity, flood, _IN_PASSING) if not verdict.holds] == []
