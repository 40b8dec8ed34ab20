"""Tests of `server.batching.queue`: deadlines, delays, and runs that must not wait."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.arrays import Array
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from server.errors import ExpiredInQueue, InvalidRequest
from tests.server.batching.queues import Model, busy, rows


def test_an_expired_request_is_not_run(model: Model, pool: ThreadPoolExecutor) -> None:
    """A deadline that passes in the queue ends the waiting; the model never sees the request."""
    now = [0.0]
    batcher = Batcher(model.run, BatchingParameters(), clock=lambda: now[0])
    _, submit = busy(batcher, model, pool)
    expiring = submit(rows(1), ["y"], 100.0)
    patient = submit(rows(2), ["y"], 300.0)
    now[0] = 200.0
    model.gate.set()
    with pytest.raises(ExpiredInQueue, match=r"^Run\(\) timeout exceeded while waiting in batching queue$"):
        expiring.result(30)
    assert patient.result(30)[0].tolist() == [[4.0]]
    assert model.batches == [1, 1]


def test_a_deadline_ends_the_waiting_without_a_run(model: Model, pool: ThreadPoolExecutor) -> None:
    """Nobody waits longer than it has time, even if the model never comes back."""
    batcher = Batcher(model.run, BatchingParameters(), clock=lambda: 0.0)
    first, _ = busy(batcher, model, pool)
    with pytest.raises(ExpiredInQueue):
        batcher.submit(rows(1), ["y"], 0.01)
    assert batcher.snapshot().queued_rows == 0
    model.gate.set()
    assert first.result(30)[0].tolist() == [[0.0]]


def test_a_configured_delay_lets_rows_join(model: Model, pool: ThreadPoolExecutor) -> None:
    """With a timeout an idle model waits for a full batch, and no longer than until it is full."""
    model.gate.set()
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=3, batch_timeout_micros=30_000_000))
    futures = [pool.submit(batcher.submit, rows(i), ["y"]) for i in range(3)]
    assert sorted(future.result(20)[0][0, 0] for future in futures) == [0, 2, 4]
    assert model.batches == [3]


def test_a_delay_ends_without_company(model: Model) -> None:
    """A request that nobody joins is run when its time is over."""
    model.gate.set()
    batcher = Batcher(model.run, BatchingParameters(batch_timeout_micros=1000))
    assert batcher.submit(rows(1), ["y"])[0].tolist() == [[2.0]]


def test_a_delay_holds_for_what_waited_too(model: Model, pool: ThreadPoolExecutor) -> None:
    """What comes during a run may fill up to its own time before the next; other forms do not wait for it."""
    batcher = Batcher(model.run, BatchingParameters(2, batch_timeout_micros=30_000_000, num_batch_threads=2))
    pair = [pool.submit(batcher.submit, rows(i), ["y"]) for i in (0, 1)]
    assert model.entered.wait(30)
    lone = pool.submit(batcher.submit, rows(2), ["y"])
    other = [pool.submit(batcher.submit, rows(i), ["z"]) for i in (3, 4)]
    model.gate.set()
    assert [future.result(20)[0][0, 0] for future in [*pair, *other]] == [0, 2, -3, -4]
    partner = batcher.submit(rows(5), ["y"])
    assert [lone.result(20)[0][0, 0], partner[0][0, 0]] == [4, 10]
    assert model.batches == [2, 2, 2]


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        (BatchingParameters(2), 3),
        (BatchingParameters(2, largest_request=4), 5),
        (BatchingParameters(2, largest_request=4, enable_large_batch_splitting=True), 3),
        (BatchingParameters(2, batch_timeout_micros=1), 1),
    ],
    ids=["larger than a batch", "larger than allowed", "to be split", "to be delayed"],
)
def test_what_may_not_run_at_once_is_not_tried(model: Model, parameters: BatchingParameters, count: int) -> None:
    """The caller hears so; nothing was run, and no place is lost."""
    model.gate.set()
    batcher = Batcher(model.run, parameters)
    assert [batcher.try_now(rows(*range(count)), ["y"]) for _ in range(3)] == [None] * 3
    assert model.batches == []
    assert batcher.snapshot() == Batcher(model.run, parameters).snapshot()
    assert batcher.submit(rows(1), ["y"])[0].tolist() == [[2.0]]


def test_nothing_is_tried_while_no_place_is_free(model: Model, pool: ThreadPoolExecutor) -> None:
    """A request that need not wait does not overtake those that do, nor adds to them."""
    batcher = Batcher(model.run, BatchingParameters())
    first, submit = busy(batcher, model, pool)
    waiting = submit(rows(1), ["y"])
    assert batcher.try_now(rows(2), ["y"]) is None
    assert batcher.snapshot().queued_rows == 1
    model.gate.set()
    assert [future.result(30)[0].tolist() for future in (first, waiting)] == [[[0.0]], [[2.0]]]
    assert model.batches == [1, 1]


def test_what_is_tried_is_filled_up(model: Model) -> None:
    """A request that runs at once has its place, its padding and its count as any other; an error gives all back."""
    model.gate.set()
    batcher = Batcher(model.run, BatchingParameters(4, allowed_batch_sizes=(2, 4)))
    answers = batcher.try_now(rows(1, 2, 3), ["y"])
    assert answers is not None
    assert answers[0].ravel().tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(InvalidRequest, match="minus one"):
        batcher.try_now(rows(-1), ["y"])
    answers = batcher.try_now(rows(4), ["y"])
    assert answers is not None
    assert answers[0].tolist() == [[8.0]]
    assert model.batches == [4, 2, 2]
    found = batcher.snapshot()
    assert (sum(found.runs), found.rows, found.padding) == (3, 5, 3)


@pytest.mark.parametrize(("seconds", "early"), [(0.2, 0.1), (100.0, 0.5)])
def test_what_would_be_answered_too_late_is_refused_while_somebody_listens(
    model: Model, pool: ThreadPoolExecutor, seconds: float, early: float
) -> None:
    """Half the time of a short run before the deadline; a long run in the past takes an eighth of the time at most."""
    now = [0.0]

    def run(feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        answers = model.run(feeds, outputs)
        now[0] += seconds
        return answers

    batcher = Batcher(run, BatchingParameters(), clock=lambda: now[0])
    assert batcher._patience(now[0] + 4.0) == 4.0
    assert batcher._patience(float("inf")) == threading.TIMEOUT_MAX
    _, submit = busy(batcher, model, pool)
    waited = submit(rows(1), ["y"])
    model.gate.set()
    assert waited.result(30)[0].tolist() == [[2.0]]
    assert batcher._patience(now[0] + 4.0) == pytest.approx(4.0 - early)
    assert batcher._patience(now[0]) == batcher._patience(now[0] - 1.0) == 0.0
    assert batcher._patience(float("inf")) == threading.TIMEOUT_MAX
