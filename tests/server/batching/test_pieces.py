"""Tests of `server.batching.pieces`, in a queue: requests that are larger than a batch."""

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from server import calls
from server.arrays import Array
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from server.errors import CancelledInQueue, ExpiredInQueue, InvalidRequest, QueueFull
from tests.server.batching.queues import Model, busy, queued, rows

SPLITTING = BatchingParameters(max_batch_size=2, enable_large_batch_splitting=True, largest_request=100)
DEFAULT = BatchingParameters(max_batch_size=2, enable_large_batch_splitting=True)
WHOLE = BatchingParameters(max_batch_size=2)


def settled(batcher: Batcher) -> bool:
    """Whether nothing waits and every place is free."""
    return batcher.snapshot().queued_rows == 0 and batcher._running == 0


@pytest.mark.parametrize(
    ("parameters", "batches"), [(SPLITTING, [1, 2, 1]), (DEFAULT, [1, 2, 1]), (WHOLE, [1, 3])], ids=str
)
def test_a_large_request_waits_for_a_place(
    model: Model, pool: ThreadPoolExecutor, parameters: BatchingParameters, batches: list[int]
) -> None:
    """It is run when the model is free, in pieces or as it is, and gives its place up."""
    batcher = Batcher(model.run, parameters)
    _, submit = busy(batcher, model, pool)
    large = submit(rows(1, 2, 3), ["y"])
    queued(batcher, 3)
    assert model.batches == [1]
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0, 4.0, 6.0]
    assert model.batches == batches
    assert settled(batcher)


@pytest.mark.parametrize("parameters", [SPLITTING, DEFAULT, WHOLE], ids=str)
def test_a_large_request_waits_no_longer_than_its_deadline(
    model: Model, pool: ThreadPoolExecutor, parameters: BatchingParameters
) -> None:
    """Nothing of it is run or left then."""
    batcher = Batcher(model.run, parameters, clock=lambda: 0.0)
    first, _ = busy(batcher, model, pool)
    with pytest.raises(ExpiredInQueue, match="while waiting in batching queue"):
        batcher.submit(rows(1, 2, 3), ["y"], 0.01)
    assert batcher.snapshot().queued_rows == 0
    model.gate.set()
    first.result(30)
    assert model.batches == [1]
    assert settled(batcher)


@pytest.mark.parametrize("parameters", [SPLITTING, DEFAULT, WHOLE], ids=str)
def test_a_large_request_that_is_cancelled_is_not_run(
    model: Model, pool: ThreadPoolExecutor, parameters: BatchingParameters
) -> None:
    """Its client is gone when the place is free."""
    batcher = Batcher(model.run, parameters)
    gone = threading.Event()
    _, submit = busy(batcher, model, pool)
    large = submit(rows(1, 2, 3), ["y"], 1e9, gone.is_set)
    kept = submit(rows(4), ["z"])
    gone.set()
    model.gate.set()
    with pytest.raises(CancelledInQueue):
        large.result(30)
    assert kept.result(30)[0].tolist() == [[-4.0]]
    assert model.batches == [1, 1]
    assert settled(batcher)


def test_all_pieces_come_into_the_queue_at_once_or_none(model: Model, pool: ThreadPoolExecutor) -> None:
    """What is let in is answered, whoever comes meanwhile; what finds no room is refused before any of it is run."""
    parameters = BatchingParameters(2, max_enqueued_batches=3, enable_large_batch_splitting=True, largest_request=9)
    batcher = Batcher(model.run, parameters)
    _, submit = busy(batcher, model, pool)
    large = submit(rows(1, 2, 3, 4, 5), ["y"])
    queued(batcher, 5)
    with pytest.raises(QueueFull, match="task size is 3 but scheduling capacity is only 1"):
        batcher.submit(rows(6, 7, 8), ["y"])
    last = submit(rows(6), ["y"])
    with pytest.raises(QueueFull, match="task size is 1 but scheduling capacity is only 0"):
        batcher.submit(rows(7), ["y"])
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert last.result(30)[0].tolist() == [[12.0]]
    assert model.batches == [1, 2, 2, 2]
    assert settled(batcher)


def test_a_request_that_is_run_as_it_is_takes_the_room_of_one_batch(model: Model, pool: ThreadPoolExecutor) -> None:
    """However large it is: it does not keep others out."""
    batcher = Batcher(model.run, BatchingParameters(2, max_enqueued_batches=2))
    _, submit = busy(batcher, model, pool)
    large, small = submit(rows(*range(9)), ["y"]), submit(rows(7, 8), ["y"])
    with pytest.raises(QueueFull, match="currently 2 batches enqueued and max_enqueued_batches is 2"):
        batcher.submit(rows(1), ["y"])
    assert batcher.snapshot().queued_rows == 11
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0 * i for i in range(9)]
    assert small.result(30)[0].ravel().tolist() == [14.0, 16.0]
    assert settled(batcher)


def test_pieces_run_beside_each_other(pool: ThreadPoolExecutor) -> None:
    """As many as there are places, each by a thread of its own."""
    together = threading.Barrier(3)

    def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        together.wait(30)
        return [2 * feeds["x"]]

    batcher = Batcher(run, BatchingParameters(2, num_batch_threads=3, enable_large_batch_splitting=True))
    future = pool.submit(batcher.submit, rows(*range(12)), ["y"])
    assert future.result(30)[0].ravel().tolist() == [2.0 * i for i in range(12)]
    assert settled(batcher)


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("limit", [None, 100])
def test_a_piece_that_fails_fails_the_request(model: Model, places: int, limit: int | None) -> None:
    """With its own error; what of the request still waits is not run, and nothing of it is left."""
    model.gate.set()
    parameters = BatchingParameters(
        2, enable_large_batch_splitting=True, num_batch_threads=places, largest_request=limit
    )
    batcher = Batcher(model.run, parameters)
    feeds = rows(*range(40), -1, *range(40))
    array = weakref.ref(feeds["x"])
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(InvalidRequest):
            batcher.submit(feeds, ["y"])
            pytest.fail("it was answered")
        del feeds
        model.inputs.clear()
        assert array() is None
    finally:
        gc.enable()
    assert 21 <= len(model.batches) <= 20 + places + 1
    assert settled(batcher)
    with pytest.raises(InvalidRequest, match="minus one"):
        batcher.submit(rows(-1, 1, 2), ["y"])
    assert batcher.submit(rows(1, 2, 3), ["y"])[0].ravel().tolist() == [2.0, 4.0, 6.0]


def test_an_answered_request_leaves_nothing_behind(model: Model) -> None:
    """Its arrays are freed with it, not when the cyclic collector comes by."""
    model.gate.set()
    batcher = Batcher(model.run, SPLITTING)
    feeds = rows(*range(9))
    array = weakref.ref(feeds["x"])
    gc.collect()
    gc.disable()
    try:
        batcher.submit(feeds, ["y"])
        del feeds
        model.inputs.clear()
        assert array() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("places", [1, 2])
def test_a_fault_of_ours_reaches_the_request(model: Model, places: int) -> None:
    """As it is, from whichever thread; the queue goes on."""
    model.gate.set()
    batcher = Batcher(model.run, BatchingParameters(2, enable_large_batch_splitting=True, num_batch_threads=places))
    with pytest.raises(KeyError):
        batcher.submit(rows(*range(9)), ["no such output"])
    assert settled(batcher)
    assert batcher.submit(rows(1, 2, 3), ["y"])[0].ravel().tolist() == [2.0, 4.0, 6.0]


def test_the_last_piece_is_joined_with_others(model: Model, pool: ThreadPoolExecutor) -> None:
    """It has room for them."""
    parameters = BatchingParameters(4, enable_large_batch_splitting=True, largest_request=9)
    batcher = Batcher(model.run, parameters)
    _, submit = busy(batcher, model, pool)
    large, small = submit(rows(1, 2, 3, 4, 5), ["y"]), submit(rows(6, 7), ["y"])
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert small.result(30)[0].ravel().tolist() == [12.0, 14.0]
    assert model.batches == [1, 4, 3]


def test_pieces_are_not_lengthened(model: Model, pool: ThreadPoolExecutor) -> None:
    """A piece that is filled up for a longer request would not fit to the others."""
    parameters = BatchingParameters(4, enable_large_batch_splitting=True, pad_variable_length_inputs=True)
    batcher = Batcher(model.run, parameters)
    _, submit = busy(batcher, model, pool)
    large, longer = submit(rows(1, 2, 3, 4, 5), ["y"]), submit(rows(6, width=2), ["y"])
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert longer.result(30)[0].tolist() == [[12.0, 12.0]]


def test_by_default_others_have_their_turn_between_pieces(model: Model, pool: ThreadPoolExecutor) -> None:
    """Of a request of any size two pieces wait at a time, so that it neither fills the queue nor blocks it."""
    batcher = Batcher(model.run, DEFAULT)
    _, submit = busy(batcher, model, pool)
    large = submit(rows(*range(9)), ["y"])
    queued(batcher, 4)
    small = submit(rows(100), ["y"])
    assert batcher.snapshot().queued_rows == 5
    model.gate.set()
    assert large.result(30)[0].ravel().tolist() == [2.0 * i for i in range(9)]
    assert small.result(30)[0].tolist() == [[200.0]]
    assert model.batches == [1, 2, 2, 1, 2, 2, 1]


def test_by_default_no_request_is_too_large_for_the_queue(model: Model) -> None:
    """However little may wait."""
    model.gate.set()
    parameters = BatchingParameters(2, max_enqueued_batches=1, enable_large_batch_splitting=True, num_batch_threads=2)
    (y,) = Batcher(model.run, parameters).submit(rows(*range(99)), ["y"])
    assert y.ravel().tolist() == [2.0 * i for i in range(99)]


class Nobody:
    """Where a call came from that nobody sent."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Nothing."""
        return ()

    def peer(self) -> str:
        """Nobody."""
        return ""


def test_a_call_knows_who_has_answered_its_pieces() -> None:
    """When the first one was run, and by whom; threads that help write into calls of their own."""
    noted: set[int] = set()
    together = threading.Barrier(2)

    def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        together.wait(30)
        current = calls.current()
        assert current is not None
        noted.add(id(current))
        current.run_on("b", 2, (1.0, 2.0))
        return [feeds["x"]]

    batcher = Batcher(run, BatchingParameters(2, num_batch_threads=2, enable_large_batch_splitting=True))
    call = calls.begin("method", Nobody())
    try:
        before = calls.now()
        batcher.submit(rows(1, 2, 3, 4), ["y"])
        assert before <= call.started <= calls.now()
        assert call.last_run == ("b", 2, (1.0, 2.0))
        assert len(noted) == 2
    finally:
        calls.leave()
