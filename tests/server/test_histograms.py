"""Tests of `server.histograms`."""

import math
import threading
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.histograms import MICROSECONDS, RUN_SECONDS, SECONDS, STAGE_SECONDS, Durations, total

seconds = st.one_of(
    st.floats(0, 4000),
    st.sampled_from([*RUN_SECONDS, *STAGE_SECONDS]),
    st.sampled_from([bound / 1e6 for bound in MICROSECONDS]),
)


@given(st.lists(seconds, max_size=30))
def test_every_set_of_buckets_is_exact(observed: list[float]) -> None:
    """From one count, each bound of each set tells how many observations are not greater; bounds themselves too."""
    durations = Durations()
    for each in observed:
        durations.observe(each)
    snapshot = durations.snapshot()
    assert snapshot.count == len(observed)
    assert snapshot.sum == sum(observed)
    for found, bounds in (
        (snapshot.by_seconds(), SECONDS),
        (snapshot.by_run_seconds(), RUN_SECONDS),
        (snapshot.by_stage_seconds(), STAGE_SECONDS),
    ):
        assert found == [(bound, sum(each <= bound for each in observed)) for bound in bounds]
    expected = [(bound, sum(each <= bound / 1e6 for each in observed)) for bound in MICROSECONDS]
    assert snapshot.by_microseconds() == expected


def test_the_bounds_are_tensorflow_servings() -> None:
    """33 bounds from 10 microseconds, each 1.8 times the one before."""
    assert len(MICROSECONDS) == 33
    assert MICROSECONDS[0] == 10
    assert all(abs(b / a - 1.8) < 1e-9 for a, b in pairwise(MICROSECONDS))


def test_no_observation_is_lost_between_threads() -> None:
    """Threads that observe at once are all counted."""
    durations = Durations()

    def observe() -> None:
        for _ in range(2000):
            durations.observe(0.001)

    threads = [threading.Thread(target=observe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total([durations.snapshot(), durations.snapshot()]).count == 2 * 8 * 2000


@given(
    st.lists(st.floats(1e-6, 100), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_quantiles_are_near(observed: list[float], share: float) -> None:
    """A quantile lies in the cell of an observation that has the share below it."""
    durations = Durations()
    for seconds in observed:
        durations.observe(seconds)
    found = durations.snapshot().quantile(share)
    true = sorted(observed)[max(0, math.ceil(share * len(observed)) - 1)]
    assert found is not None
    assert true / 1.8001 <= found <= true * 1.8001 or true <= 1e-5


def test_nothing_has_no_quantile() -> None:
    """Before the first observation there is none."""
    assert Durations().snapshot().quantile(0.5) is None
