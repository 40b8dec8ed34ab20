"""Tests of `server.batching.running`: what becomes of the requests of a batch that fails."""

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from server.arrays import Array
from server.batching import joining
from server.batching.parameters import BatchingParameters
from server.batching.running import Run, Runner
from server.batching.waiting import Waiting
from server.errors import InvalidRequest, OutOfMemory, SegueError, WrongRows


def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
    """Answers with the input, of which no element may be -1."""
    if (feeds["x"] == -1).any():
        raise InvalidRequest("minus one")
    return [feeds["x"] + 0]


def waiting(*values: float) -> Waiting:
    """A request of one row per value, taken out of a queue."""
    item = Waiting({"x": np.array(values)[:, None]}, ["y"], len(values), 1.0, lambda: False, None, 0.0)
    item.wake.acquire()
    return item


def runner(run: Run = run) -> Runner:
    """A runner whose clock stands still."""
    return Runner(run, BatchingParameters(), lambda: 0.0)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the cyclic collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def end(item: Waiting) -> type[SegueError] | None:
    """Take a request's result as its thread would; returns how it failed."""
    try:
        item.result()
    except SegueError as error:
        return type(error)
    return None


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("values", [(-1,), (1, -1), (-1, 1), (-1, -1, -1)])
def test_failed_requests_leave_nothing_behind(values: tuple[float, ...]) -> None:
    """Their arrays are freed with them, not when the cyclic collector comes by."""
    batch = [waiting(value) for value in values]
    arrays = [weakref.ref(item.feeds["x"]) for item in batch]
    runner().answer(batch, batch[0])
    assert [end(item) for item in batch] == [InvalidRequest if value == -1 else None for value in values]
    batch.clear()
    assert [array() for array in arrays] == [None] * len(values)


def test_a_result_may_be_taken_while_others_are_run() -> None:
    """A request stays done when its thread has taken the error, so that nobody ends it a second time."""
    item = waiting(1)
    item.fail(InvalidRequest("no"))
    assert end(item) is InvalidRequest
    assert item.done


def test_a_batch_without_memory_is_run_request_by_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory together may do so one by one; only a request that is too large alone fails."""

    def without_memory(requests: Sequence[Mapping[str, Array]], rows: int) -> dict[str, Array]:
        if rows > 2:
            raise MemoryError(f"Unable to allocate {rows}")
        return join(requests, rows)

    join = joining.join
    monkeypatch.setattr(joining, "join", without_memory)
    batch = [waiting(1), waiting(2, 3, 4), waiting(5, 6)]
    assert runner().answer(batch, batch[0]) == (6, 0, True)
    assert [end(item) for item in batch] == [None, OutOfMemory, None]
    assert [batch[i].result()[0].ravel().tolist() for i in (0, 2)] == [[1.0], [5.0, 6.0]]


def test_a_run_without_memory_is_an_error_of_ours() -> None:
    """Wherever a batch runs out of memory."""

    def exhausted(_feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        raise MemoryError("no room")

    with pytest.raises(OutOfMemory, match=r"^no memory for a batch of 2 rows: no room$"):
        runner(exhausted).filled_up({"x": np.zeros((2, 1))}, ["y"], 2)


UNEVEN = "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"


@pytest.mark.parametrize(
    ("made", "text"), [(np.zeros((1, 1)), UNEVEN), (np.zeros(()), "Batched output tensor has 0 dimensions")]
)
def test_an_answer_that_is_not_rows_is_refused(made: Array, text: str) -> None:
    """With TensorFlow Serving's texts; nobody can say whose the rows are."""
    item = waiting(1, 2)
    runner(lambda _feeds, _outputs: [made]).answer([item], item)
    with pytest.raises(WrongRows) as caught:
        item.result()
    assert caught.value.message == text


def test_only_others_are_told() -> None:
    """The thread that runs the batch does not wait for itself."""
    batch = [waiting(1), waiting(2), waiting(-1)]
    runner().answer(batch, batch[0])
    assert [item.wake.acquire(blocking=False) for item in batch] == [False, True, True]
