"""Promises of server.engines.lane."""

import gc
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from server import calls
from server.arrays import Array
from server.engines.choices import SteppedIn
from server.engines.lane import Lane
from server.errors import DamagedPackage, InvalidRequest, LeftToOthers, RunFailed
from server.selection.interface import Calibration, Failure
from tests.packages import joined
from tests.server.engines.choosing import Told, batch, engine


def breaks(_x: Array) -> Array:
    """Fail as a runtime does."""
    raise RunFailed("it broke")


def refuses(_x: Array) -> Array:
    """Refuse an input as a runtime does."""
    raise InvalidRequest("index out of range")


def leaves(_x: Array) -> Array:
    """Leave an input to others, as a runtime does that could not compute it rightly."""
    raise LeftToOthers("it is not for me")


def surprises(_x: Array) -> Array:
    """Fail as nobody foresaw."""
    raise ZeroDivisionError("surprise")


def not_finite(x: Array) -> Array:
    """Answer NaN."""
    return np.full_like(x, np.nan)


def lane_of(
    first: Callable[[Array], Array], *others: Callable[[Array], Array], order: Sequence[str] = ()
) -> tuple[Lane, Told]:
    """A lane of engines "first", "second", ..."""
    policy = Told(list(order))
    lane = Lane("model.onnx", engine("first", first), buckets=(1, 2, 4), policy=policy)
    for name, answer in zip(("second", "third"), others, strict=False):
        lane.add(engine(name, answer))
    return lane, policy


def double(x: Array) -> Array:
    """A sound answer."""
    return 2 * x


def test_the_chosen_engine_answers_and_the_policy_is_told() -> None:
    """The policy's word is followed, and it learns the bucket and the time."""
    lane, policy = lane_of(double, lambda x: 3 * x, order=["second"])
    assert lane.run(batch(3), ["y"])[0][0, 0] == 3
    (outcome,) = policy.outcomes
    assert (outcome.batch, outcome.bucket, outcome.backend, outcome.failure) == (0, 4, "second", None)
    assert outcome.seconds > 0
    assert lane.durations["second", 4].snapshot().count == 1


def test_what_is_empty_is_the_first_engines() -> None:
    """A batch without rows is answered by the engine that was there from the start, and teaches the policy nothing."""
    lane, policy = lane_of(double, breaks, order=["second"])
    assert lane.run(batch(0), ["y"])[0].shape == (0, 2)
    assert policy.outcomes == []


def test_what_is_empty_goes_on_to_another_where_the_first_leaves_it() -> None:
    """A first engine that takes no empty batch costs no client its answer; where none takes it, the first says so."""
    lane, policy = lane_of(leaves, leaves, double)
    assert lane.run(batch(0), ["y"])[0].shape == (0, 2)
    assert policy.outcomes == []
    lane, _ = lane_of(leaves, leaves)
    with pytest.raises(LeftToOthers, match="not for me"):
        lane.run(batch(0), ["y"])


def test_what_one_leaves_another_answers_for() -> None:
    """Where the first engine only leaves an input to others, the client gets the error of one that tried."""
    lane, _ = lane_of(leaves, refuses, order=["first", "second"])
    with pytest.raises(InvalidRequest, match="index out of range"):
        lane.run(batch(), ["y"])
    lane, _ = lane_of(leaves, leaves)
    with pytest.raises(LeftToOthers, match="not for me"):
        lane.run(batch(), ["y"])


def test_a_lone_engine_says_itself_what_it_leaves() -> None:
    """Without another engine the client gets the engine's own words."""
    lane = Lane("model.onnx", engine("first", leaves), buckets=(1,))
    with pytest.raises(LeftToOthers, match="not for me"):
        lane.run(batch(), ["y"])


@pytest.mark.parametrize(
    ("bad", "failure"),
    [(breaks, Failure.ERROR), (not_finite, Failure.NOT_FINITE), (leaves, Failure.LEFT)],
)
def test_the_same_batch_runs_on_another_engine(bad: Callable[[Array], Array], failure: Failure) -> None:
    """The client sees an answer, the policy both runs of the one batch, and the count of failures grows."""
    lane, policy = lane_of(double, bad, order=["second", "first"])
    assert lane.run(batch(), ["y"])[0][0, 0] == 2
    assert [(o.batch, o.backend, o.failure) for o in policy.outcomes] == [(0, "second", failure), (0, "first", None)]
    assert lane.failures == {("second", failure.value): 1}


def test_why_another_stepped_in_is_told_but_not_each_time() -> None:
    """Who is on call reads a backend's own words, once a minute for each backend and kind of failure."""
    now, told = [0.0], list[object]()
    lane = Lane(
        "model.onnx", engine("first", double), buckets=(1,), policy=Told(["second", "third"]),
        clock=lambda: now[0], tell=told.append,
    )  # fmt: skip
    lane.add(engine("second", breaks))
    lane.add(engine("third", leaves))
    for _ in range(3):
        lane.run(batch(), ["y"])
    of_second = SteppedIn(1, "second", "first", "error", "it broke")
    of_third = SteppedIn(1, "third", "first", "left to others", "it is not for me")
    assert told == [of_second, of_third]
    now[0] = 61.0
    lane.run(batch(), ["y"])
    assert told == [of_second, of_third] * 2


def test_what_fails_everywhere_is_said_by_the_first_engine() -> None:
    """An input that no engine takes gets the error of the one that is there from the start, whoever was asked first."""
    lane, policy = lane_of(refuses, breaks, order=["second", "first"])
    with pytest.raises(InvalidRequest, match="index out of range"):
        lane.run(batch(), ["y"])
    assert len(policy.outcomes) == 2


def test_a_nan_that_every_engine_answers_is_the_answer() -> None:
    """A model may say NaN: then that is what the client gets, as from TensorFlow."""
    lane, _ = lane_of(not_finite, not_finite)
    assert np.isnan(lane.run(batch(), ["y"])[0]).all()


def test_a_nan_that_was_asked_for_blames_nobody() -> None:
    """Where the client sends NaN, the first engine's NaN is an answer."""
    lane, policy = lane_of(double, double)
    lane.run(batch(value=np.nan), ["y"])
    assert [outcome.failure for outcome in policy.outcomes] == [None]


def test_a_failed_batch_leaves_nothing_behind() -> None:
    """Neither error nor inputs of a batch that failed on one engine, or on all, wait for the cyclic collector."""
    lane, _ = lane_of(breaks, breaks)
    feeds = batch()
    seen = weakref.ref(feeds["x"])
    gc.disable()
    try:
        with pytest.raises(RunFailed):
            lane.run(feeds, ["y"])
        del feeds
        assert seen() is None
    finally:
        gc.enable()


def test_idle_runs_are_the_policys_wish() -> None:
    """A calibration runs golden inputs on the engine that the policy names, and only as long as it wants one."""
    lane, policy = lane_of(double, double)
    policy.wanted = [Calibration(2, "second")]
    assert lane.calibrate(batch, ["y"])
    assert not lane.calibrate(batch, ["y"])
    (outcome,) = policy.outcomes
    assert (outcome.batch, outcome.bucket, outcome.backend) == (None, 2, "second")


@pytest.mark.parametrize(("bad", "failure"), [(surprises, Failure.ERROR), (leaves, Failure.LEFT)])
def test_an_idle_run_that_fails_is_told_whatever_it_raises(bad: Callable[[Array], Array], failure: Failure) -> None:
    """The policy learns of it: otherwise it would want the same run each second, for ever."""
    lane, policy = lane_of(double, bad)
    policy.wanted = [Calibration(2, "second")]
    assert lane.calibrate(batch, ["y"])
    assert [(outcome.backend, outcome.failure) for outcome in policy.outcomes] == [("second", failure)]


def test_an_idle_run_beside_a_request_teaches_nothing() -> None:
    """What a request has slowed says nothing about the engine, but is paid for; while a request runs, none is begun."""
    began, go_on = threading.Event(), threading.Event()

    def slow(x: Array) -> Array:
        began.set()
        go_on.wait(30)
        return x

    lane, policy = lane_of(double, slow, order=["first"])
    policy.wanted = [Calibration(1, "second")]
    with joined(threading.Thread(target=lane.calibrate, args=(batch, ["y"]))):
        began.wait(30)
        lane.run(batch(), ["y"])
        go_on.set()
    assert [outcome.backend for outcome in policy.outcomes] == ["first"]
    assert len(policy.disturbances) == 1
    began.clear()
    go_on.clear()
    policy.order = ["second"]
    policy.wanted = [Calibration(1, "first")]
    with joined(threading.Thread(target=lane.run, args=(batch(), ["y"]))):
        began.wait(30)
        assert not lane.calibrate(batch, ["y"])
        go_on.set()
    assert policy.wanted


def test_a_request_knows_who_answered_it() -> None:
    """Logs, traces and metrics name the engine that ran, not the one that was asked first."""

    class Nobody:
        def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
            return []

        def peer(self) -> str:
            return ""

    lane, _ = lane_of(double, breaks, order=["second", "first"])
    call = calls.begin("Predict", Nobody())
    try:
        lane.run(batch(2), ["y"])
    finally:
        calls.leave()
    assert (call.backend, call.bucket) == ("first", 2)
    assert call.run[1] >= call.run[0] > 0


def test_a_model_that_answers_with_infinities_is_believed() -> None:
    """Where TensorFlow's own golden answers are not finite, an answer that is not is no failure."""
    policy = Told()
    lane = Lane("model.onnx", engine("first", not_finite), buckets=(1,), policy=policy, may_be_infinite=True)
    lane.add(engine("second", double))
    assert np.isnan(lane.run(batch(), ["y"])[0]).all()
    assert [(outcome.backend, outcome.failure) for outcome in policy.outcomes] == [("first", None)]


def test_an_error_that_nobody_foresaw_is_another_engines_turn() -> None:
    """Whatever a library raises: the client is answered, and where none can answer gets an error of ours."""
    lane, _ = lane_of(double, surprises, order=["second", "first"])
    assert lane.run(batch(), ["y"])[0][0, 0] == 2
    lane, _ = lane_of(surprises, surprises)
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        lane.run(batch(), ["y"])


def test_sizes_without_golden_inputs_are_asked_for_once() -> None:
    """An idle server reads no golden arrays again and again for a size that they do not have."""
    lane, policy = lane_of(double, double)
    policy.wanted = [Calibration(2, "second")] * 3
    asked: list[int] = []

    def none(bucket: int) -> None:
        asked.append(bucket)

    for _ in range(3):
        assert not lane.calibrate(none, ["y"])
    assert asked == policy.without_inputs == [2]


def test_golden_inputs_that_cannot_be_read_are_read_again_later(caplog: pytest.LogCaptureFixture) -> None:
    """A minute later, not at once nor never: what the policy wants stays wanted, and costs it nothing meanwhile."""
    now = [100.0]
    policy = Told(wanted=[Calibration(2, "first")])
    lane = Lane("model.onnx", engine("first", double), buckets=(1, 2), policy=policy, clock=lambda: now[0])
    asked: list[float] = []

    def unreadable_for_two_minutes(bucket: int) -> dict[str, Array]:
        asked.append(now[0])
        if now[0] < 220:
            raise DamagedPackage("golden.npz: Input/output error")
        return batch(bucket)

    while not lane.calibrate(unreadable_for_two_minutes, ["y"]):
        assert (policy.outcomes, policy.without_inputs, policy.disturbances) == ([], [], [])
        now[0] += 1
    assert asked == [100, 160, 220]
    assert [(outcome.bucket, outcome.backend) for outcome in policy.outcomes] == [(2, "first")]
    assert [record.message for record in caplog.records] == [
        "golden inputs cannot be read, trying again every 60 s: golden.npz: Input/output error"
    ]
