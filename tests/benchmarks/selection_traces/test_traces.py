"""Tests of `benchmarks.selection_traces.traces`."""

import dataclasses

import numpy as np
import pytest

from benchmarks.selection_traces.families import family
from benchmarks.selection_traces.traces import TICK, fingerprint, ticks


def test_ticks_are_whole_and_name_what_is_no_number() -> None:
    """Inf and NaN have a number each that no duration has."""
    assert ticks(np.array([0.0, 1.0, np.inf, np.nan, 2.4 * TICK])).tolist() == [0, 10**7, -1, -2, 2]


def test_the_last_bit_of_a_float_changes_no_fingerprint() -> None:
    """Another processor's rounding leaves a trace what it is."""
    trace = family("sparse").trace(0)
    nudged = dataclasses.replace(trace, durations=np.nextafter(trace.durations, np.inf))
    assert fingerprint(nudged) == fingerprint(trace)


@pytest.mark.parametrize("name", ["times", "durations", "elapsed", "golden", "calibration"])
def test_one_tick_changes_the_fingerprint(name: str) -> None:
    """All that a policy sees or pays is in it."""
    trace = family("sparse").trace(0)
    changed = getattr(trace, name).copy()
    changed[-1] += TICK
    assert fingerprint(dataclasses.replace(trace, **{name: changed})) != fingerprint(trace)
