"""Tests of `server.batching.queue`: real threads, a run that waits when told to, and a clock that stands still."""

import contextlib
import gc
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.arrays import Array
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from server.errors import CancelledInQueue, InvalidRequest, QueueFull, RunFailed, WrongRows
from tests.server.batching.queues import Model, busy, queued, rows


def test_an_idle_model_runs_at_once(model: Model) -> None:
    """One request alone is one run of its own arrays, in its own thread."""
    model.gate.set()
    (y,) = Batcher(model.run, BatchingParameters()).submit(rows(1, 2), ["y"])
    assert y.tolist() == [[2.0], [4.0]]
    assert model.batches == [2]


def test_an_answer_without_its_rows_is_refused_whoever_comes_with_it() -> None:
    """A request that runs alone gets TensorFlow Serving's error just as one that is joined with others."""

    def drop(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        return [feeds["x"][feeds["x"][:, 0] >= 0]]

    batcher = Batcher(drop, BatchingParameters(max_batch_size=2))
    assert batcher.submit(rows(1, 2), ["y"])[0].tolist() == [[1.0], [2.0]]
    for feeds in (rows(1, -1), rows(1, 2, -1)):
        with pytest.raises(WrongRows, match="0th dimension does not equal the sum"):
            batcher.submit(feeds, ["y"])
    assert batcher.submit(rows(3), ["y"])[0].tolist() == [[3.0]]


def test_what_waits_is_answered_together(model: Model, pool: ThreadPoolExecutor) -> None:
    """Requests that arrive during a run become the next one, and each gets its own rows."""
    batcher = Batcher(model.run, BatchingParameters())
    first, submit = busy(batcher, model, pool)
    waiting = [submit(rows(*range(n, 2 * n)), ["y"]) for n in (1, 2, 3)]
    model.gate.set()
    assert [future.result(30)[0].ravel().tolist() for future in waiting] == [[2.0], [4.0, 6.0], [6.0, 8.0, 10.0]]
    assert first.result(30)[0].tolist() == [[0.0]]
    assert model.batches == [1, 6]


def test_a_batch_has_a_largest_size(model: Model, pool: ThreadPoolExecutor) -> None:
    """What does not fit any more waits for the run after."""
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=4))
    _, submit = busy(batcher, model, pool)
    waiting = [submit(rows(*[float(i)] * 2), ["y"]) for i in range(5)]
    model.gate.set()
    assert [future.result(30)[0][0, 0] for future in waiting] == [0, 2, 4, 6, 8]
    assert model.batches == [1, 4, 4, 2]


def test_rows_of_another_form_are_not_mixed_in(model: Model, pool: ThreadPoolExecutor) -> None:
    """Other widths, dtypes or outputs wait for a batch of their own; the order is kept within each."""
    batcher = Batcher(model.run, BatchingParameters())
    _, submit = busy(batcher, model, pool)
    narrow = [submit(rows(i), ["y"]) for i in (1, 2)]
    wide = submit(rows(3, width=5), ["y"])
    other = submit(rows(4), ["z", "y"])
    last = submit(rows(5), ["y"])
    model.gate.set()
    assert [future.result(30)[0].tolist() for future in narrow] == [[[2.0]], [[4.0]]]
    assert wide.result(30)[0].shape == (1, 5)
    assert [a.tolist() for a in other.result(30)] == [[[-4.0]], [[8.0]]]
    assert last.result(30)[0].tolist() == [[10.0]]
    assert model.batches == [1, 3, 1, 1]


def test_only_the_request_at_fault_fails(model: Model, pool: ThreadPoolExecutor) -> None:
    """A batch that the model refuses is run request by request."""
    batcher = Batcher(model.run, BatchingParameters())
    _, submit = busy(batcher, model, pool)
    waiting = [submit(rows(value), ["y"]) for value in (1, -1, 3)]
    model.gate.set()
    assert waiting[0].result(30)[0].tolist() == [[2.0]]
    with pytest.raises(InvalidRequest, match="minus one"):
        waiting[1].result(30)
    assert waiting[2].result(30)[0].tolist() == [[6.0]]
    assert model.batches == [1, 3, 1, 1, 1]


def test_a_failed_batch_frees_its_arrays() -> None:
    """Also in the threads of those that waited, and without the cyclic collector."""
    entered, gate = threading.Event(), threading.Event()
    arrays: list[weakref.ref[Array]] = []

    def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        entered.set()
        assert gate.wait(30)
        raise InvalidRequest(f"{len(feeds['x'])} rows")

    def request() -> None:
        feeds = rows(1)
        arrays.append(weakref.ref(feeds["x"]))
        with contextlib.suppress(InvalidRequest):
            batcher.submit(feeds, ["y"])

    batcher = Batcher(run, BatchingParameters())
    threads = [threading.Thread(target=request) for _ in range(4)]
    gc.collect()
    gc.disable()
    try:
        threads[0].start()
        assert entered.wait(30)
        for thread in threads[1:]:
            thread.start()
        queued(batcher, 3)
        gate.set()
        for thread in threads:
            thread.join(30)
        assert [array() for array in arrays] == [None] * 4
    finally:
        gc.enable()


def test_a_large_request_is_run_as_it_is(model: Model) -> None:
    """Unless told otherwise, more rows than a batch may have fill a run by themselves."""
    model.gate.set()
    (y,) = Batcher(model.run, BatchingParameters(max_batch_size=4)).submit(rows(*range(9)), ["y"])
    assert y.ravel().tolist() == [2.0 * i for i in range(9)]
    assert model.batches == [9]


def test_a_large_request_is_split(model: Model) -> None:
    """With splitting it is run in batches of legal size, and its answer put together again."""
    model.gate.set()
    parameters = BatchingParameters(max_batch_size=4, enable_large_batch_splitting=True, largest_request=16)
    (y,) = Batcher(model.run, parameters).submit(rows(*range(9)), ["y"])
    assert y.ravel().tolist() == [2.0 * i for i in range(9)]
    assert model.batches == [4, 4, 1]


@pytest.mark.parametrize("splits", [False, True])
def test_a_request_that_is_too_large_is_refused(model: Model, splits: bool) -> None:  # noqa: FBT001 - a case
    """Where TensorFlow Serving's parameters hold, in its words."""
    parameters = BatchingParameters(max_batch_size=8, enable_large_batch_splitting=splits, largest_request=8)
    with pytest.raises(InvalidRequest, match=r"^Task size 9 is larger than maximum input batch size 8$"):
        Batcher(model.run, parameters).submit(rows(*range(9)), ["y"])
    assert model.batches == []


def test_a_full_queue_refuses(model: Model, pool: ThreadPoolExecutor) -> None:
    """What waits is bounded; the refusal comes at once and disturbs nobody who waits."""
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=2, max_enqueued_batches=2))
    first, submit = busy(batcher, model, pool)
    waiting = [submit(rows(1, 2), ["y"]) for _ in range(2)]
    text = (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
        "max_enqueued_batches is 2"
    )
    with pytest.raises(QueueFull, match=f"^{text}$"):
        batcher.submit(rows(3), ["y"])
    model.gate.set()
    assert [future.result(30)[0].tolist() for future in [first, *waiting]] == [[[0.0]], *[[[2.0], [4.0]]] * 2]


def test_a_full_queue_refuses_what_would_be_split(model: Model, pool: ThreadPoolExecutor) -> None:
    """A request in pieces needs room for all of them, as in TensorFlow Serving."""
    parameters = BatchingParameters(2, max_enqueued_batches=2, enable_large_batch_splitting=True, largest_request=9)
    batcher = Batcher(model.run, parameters)
    _, submit = busy(batcher, model, pool)
    waiting = submit(rows(1), ["y"])
    with pytest.raises(QueueFull, match="is full; task size is 4 but scheduling capacity is only 3") as caught:
        batcher.submit(rows(1, 2, 3, 4), ["y"])
    assert caught.value.message.endswith(
        " (num_enqueued_batches=1, max_enqueued_batches=2, open_batch_size=1, max_execution_batch_size=2)"
    )
    model.gate.set()
    assert waiting.result(30)[0].tolist() == [[2.0]]


def test_batches_are_filled_up_to_allowed_sizes(model: Model, pool: ThreadPoolExecutor) -> None:
    """With a row that is there, whose answer nobody sees; a request that runs alone is filled up too."""
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8)))
    first, submit = busy(batcher, model, pool)
    waiting = [submit(rows(1, 2, 3), ["y"]), submit(rows(4, 5), ["y"])]
    model.gate.set()
    assert waiting[0].result(30)[0].ravel().tolist() == [2.0, 4.0, 6.0]
    assert waiting[1].result(30)[0].ravel().tolist() == [8.0, 10.0]
    assert first.result(30)[0].tolist() == [[0.0]]
    assert [x.ravel().tolist() for x in model.inputs] == [[0.0] * 4, [1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 4.0, 4.0]]
    found = batcher.snapshot()
    assert (sum(found.runs), found.rows, found.padding) == (2, 6, 6)


def test_shorter_requests_are_lengthened(model: Model, pool: ThreadPoolExecutor) -> None:
    """With pad_variable_length_inputs they are joined: filled with their first element, as TensorFlow Serving does."""
    batcher = Batcher(model.run, BatchingParameters(pad_variable_length_inputs=True))
    _, submit = busy(batcher, model, pool)
    waiting = [submit(rows(1, 2, width=1), ["y"]), submit(rows(3, width=3), ["y"])]
    model.gate.set()
    assert waiting[0].result(30)[0].tolist() == [[2.0, 2.0, 2.0], [4.0, 2.0, 2.0]]
    assert waiting[1].result(30)[0].tolist() == [[6.0, 6.0, 6.0]]
    assert model.batches == [1, 3]


def test_arrays_without_elements_are_run_alone(model: Model, pool: ThreadPoolExecutor) -> None:
    """Nothing was proved about them."""
    batcher = Batcher(model.run, BatchingParameters(allowed_batch_sizes=(16,)))
    _, submit = busy(batcher, model, pool)
    empty = pool.submit(batcher.submit, {"x": np.zeros((0, 1), np.float32)}, ["y"])
    narrow = [submit({"x": np.zeros((1, 0), np.float32)}, ["y"]) for _ in range(2)]
    model.gate.set()
    assert empty.result(30)[0].shape == (0, 1)
    assert [future.result(30)[0].shape for future in narrow] == [(1, 0), (1, 0)]
    assert sorted(model.batches) == [0, 16, 16, 16]


def test_a_cancelled_request_is_not_run(model: Model, pool: ThreadPoolExecutor) -> None:
    """A client that went away costs no run, wherever in the queue it was."""
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=2))
    _, submit = busy(batcher, model, pool)
    gone = threading.Event()
    cancelled = [submit(rows(1), ["y"], 1e9, gone.is_set), submit(rows(2), ["z"], 1e9, gone.is_set)]
    kept = [submit(rows(3), ["y"]), submit(rows(4), ["z"])]
    gone.set()
    model.gate.set()
    for future in cancelled:
        with pytest.raises(CancelledInQueue):
            future.result(30)
    assert [future.result(30)[0].tolist() for future in kept] == [[[6.0]], [[-4.0]]]
    assert model.batches == [1, 1, 1]


def test_several_batches_may_run_at_once(pool: ThreadPoolExecutor) -> None:
    """As many as num_batch_threads says, and no more."""
    entered, gate = threading.Semaphore(0), threading.Event()
    running: list[int] = []

    def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        running.append(len(feeds["x"]))
        entered.release()
        assert gate.wait(30)
        return [feeds["x"]]

    batcher = Batcher(run, BatchingParameters(num_batch_threads=2))
    futures = [pool.submit(batcher.submit, rows(i), ["y"]) for i in range(2)]
    assert entered.acquire(timeout=30)
    assert entered.acquire(timeout=30)
    futures += [pool.submit(batcher.submit, rows(i), ["y"]) for i in range(2, 5)]
    queued(batcher, 3)
    assert running == [1, 1]
    gate.set()
    assert [future.result(30)[0].tolist() for future in futures] == [[[float(i)]] for i in range(5)]


def test_outputs_that_are_no_rows_are_answered_alone(pool: ThreadPoolExecutor) -> None:
    """Whatever a runtime makes of a batch, nobody gets what is not theirs."""
    entered, gate = threading.Event(), threading.Event()

    def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        entered.set()
        assert gate.wait(30)
        return [feeds["x"][:1]]

    batcher = Batcher(run, BatchingParameters())
    futures = [pool.submit(batcher.submit, rows(0), ["y"])]
    assert entered.wait(30)
    futures += [pool.submit(batcher.submit, rows(i), ["y"]) for i in (1, 2)]
    queued(batcher, 2)
    gate.set()
    assert [future.result(30)[0].tolist() for future in futures] == [[[0.0]], [[1.0]], [[2.0]]]


def test_a_fault_of_ours_leaves_nobody_waiting(model: Model, pool: ThreadPoolExecutor) -> None:
    """An exception that is no error of ours reaches one caller as it is, the others as an error; the queue goes on."""
    batcher = Batcher(model.run, BatchingParameters())
    _, submit = busy(batcher, model, pool)
    waiting = [submit(rows(i), ["no such output"]) for i in (1, 2)]
    model.gate.set()
    kinds = {type(future.exception(30)) for future in waiting}
    assert kinds == {KeyError, RunFailed}
    assert batcher.submit(rows(3), ["y"])[0].tolist() == [[6.0]]


def test_a_storm_is_answered_whole(model: Model, pool: ThreadPoolExecutor) -> None:
    """2,000 requests of several sizes from 32 threads: each gets exactly its own rows, in batches of legal size."""
    model.gate.set()
    batcher = Batcher(model.run, BatchingParameters(max_batch_size=16))
    random = np.random.default_rng(1)
    requests = [random.integers(0, 1000, random.integers(1, 12)).astype(float) for _ in range(2000)]
    futures = [pool.submit(batcher.submit, rows(*values), ["y"]) for values in requests]
    for values, future in zip(requests, futures, strict=True):
        assert future.result(60)[0].ravel().tolist() == (2 * values).tolist()
    assert max(model.batches) <= 16
    assert sum(model.batches) == sum(len(values) for values in requests)
    assert batcher.snapshot().queued_rows == 0
