"""Tests of `server.batching`: real threads, a run that waits when told to, and a clock that stands still."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from server.arrays import Array
from server.batching import Batcher, BatchingParameters
from server.errors import ExpiredInQueue, InvalidRequest


class Model:
    """y = 2x, z = -x; remembers its batches, and holds the first run until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """One run; -1 anywhere in the batch is an input that the model refuses."""
        x = feeds["x"]
        self.batches.append(len(x))
        self.entered.set()
        assert self.gate.wait(30)
        if (x == -1).any():
            raise InvalidRequest("minus one")
        return [{"y": 2 * x, "z": -x}[name] for name in outputs]


@pytest.fixture
def model() -> Model:
    """A model."""
    return Model()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests."""
    with ThreadPoolExecutor(32) as made:
        yield made


def rows(*values: float, width: int = 1) -> dict[str, Array]:
    """Feeds of one row per value."""
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def queued(batcher: Batcher, count: int) -> None:
    """Wait until so many rows wait."""
    with batcher._arrived:
        assert batcher._arrived.wait_for(lambda: batcher.queued_rows >= count, 30)


Submit = Callable[..., Future[list[Array]]]


def busy(batcher: Batcher, model: Model, pool: ThreadPoolExecutor) -> tuple[Future[list[Array]], Submit]:
    """Make the model busy; returns the request that it runs, and a function to submit more that wait."""
    first = pool.submit(batcher.submit, rows(0), ["y"])
    assert model.entered.wait(30)

    def submit(*arguments: Any) -> Future[list[Array]]:
        before = batcher.queued_rows
        future = pool.submit(batcher.submit, *arguments)
        queued(batcher, before + 1)
        return future

    return first, submit


def test_an_idle_model_runs_at_once(model: Model) -> None:
    """One request alone is one run of its own arrays, in its own thread."""
    model.gate.set()
    (y,) = Batcher(model.run, BatchingParameters()).submit(rows(1, 2), ["y"])
    assert y.tolist() == [[2.0], [4.0]]
    assert model.batches == [2]


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


def test_a_large_request_is_run_as_it_is(model: Model) -> None:
    """More rows than a batch may have fill a run by themselves."""
    model.gate.set()
    (y,) = Batcher(model.run, BatchingParameters(max_batch_size=4)).submit(rows(*range(9)), ["y"])
    assert y.ravel().tolist() == [2.0 * i for i in range(9)]
    assert model.batches == [9]


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
    assert batcher.queued_rows == 0
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
    assert batcher.queued_rows == 0


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_batch_size": 0}, "at least 1"),
        ({"batch_timeout_micros": -1}, "at least 0"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters: dict[str, Any], words: str) -> None:
    """A wrong file is noticed when it is read, not when requests come."""
    with pytest.raises(ValueError, match=words):
        BatchingParameters(**parameters)
