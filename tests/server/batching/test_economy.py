"""Tests of `server.batching.economy`: joining only what becomes cheaper by it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.arrays import Array
from server.batching.economy import SHORT_SECONDS, Economy
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from tests.server.batching.queues import rows

Cost = Callable[[int], float]
"""Seconds that a run of so many rows takes."""


def on_a_card(_rows: int) -> float:
    """Sixteen rows take as long as one."""
    return 0.01


def on_a_processor(count: int) -> float:
    """Each row takes its time, and more of it in large batches."""
    return 0.1 * count * (1.1 if count > 4 else 1.0)


def even(count: int) -> float:
    """Each row takes the same time."""
    return 0.1 * count


def serve(economy: Economy, cost: Cost, batches: int, waiting: int = 16) -> list[int]:
    """The sizes of batches while so many rows always wait."""
    sizes = []
    for _ in range(batches):
        size = min(waiting, economy.limit(waiting))
        economy.observe(size, cost(size))
        sizes.append(size)
    return sizes


def seen(economy: Economy, cost: Cost, *sizes: int) -> None:
    """Have each of the sizes run often enough to be known."""
    for size in sizes:
        for _ in range(5):
            economy.observe(size, cost(size))


def test_everything_is_joined_at_first() -> None:
    """Nothing is known yet, so what waits goes together."""
    economy = Economy(16)
    assert economy.best == 16
    assert economy.limit(16) == 16
    seen(economy, on_a_processor, 1)
    assert economy.limit(16) == 16


@pytest.mark.parametrize(("cost", "best"), [(on_a_card, 16), (on_a_processor, 1), (even, 1)])
def test_only_as_many_are_joined_as_it_takes_for_a_row_to_be_cheap(cost: Cost, best: int) -> None:
    """From one row and full batches it is known whether joining pays."""
    economy = Economy(16)
    seen(economy, cost, 1, 16)
    assert economy.best == best


def test_it_is_found_out_while_full_batches_run() -> None:
    """A server that has never seen a single row tries some, and a size in between if that is the best."""

    def best_at_four(count: int) -> float:
        return (0.05 if count < 4 else 0.03 if count == 4 else 0.04) * count

    economy = Economy(16)
    serve(economy, best_at_four, 200)
    assert economy.best == 4


def test_what_has_become_otherwise_is_noticed() -> None:
    """Another backend serves large batches now, or a neighbour has left the caches: sizes are looked at again."""
    economy = Economy(16)
    seen(economy, on_a_processor, 1, 16)
    serve(economy, on_a_card, 2000)
    assert economy.best == 16
    serve(economy, on_a_processor, 4000)
    assert economy.best == 1


@pytest.mark.parametrize("cost", [on_a_card, on_a_processor, even])
def test_looks_cost_little(cost: Cost) -> None:
    """Of the time that the best size takes, less than one hundredth."""
    economy = Economy(16)
    serve(economy, cost, 200)
    sizes = serve(economy, cost, 20_000)
    best = min(cost(size) / size for size in (1, 16))
    assert sum(map(cost, sizes)) < 1.01 * best * sum(sizes)


def test_a_few_rows_are_not_told_from_many() -> None:
    """Where no more wait than the limit, nothing is looked at that they could not fill."""
    economy = Economy(16)
    seen(economy, on_a_processor, 1, 16)
    assert set(serve(economy, on_a_processor, 400, waiting=2)) == {1, 2}
    assert set(serve(economy, on_a_processor, 400, waiting=1)) == {1}


@pytest.mark.parametrize(("count", "seconds"), [(1, SHORT_SECONDS / 2), (0, 1.0), (17, 0.001)])
def test_some_runs_say_nothing(count: int, seconds: float) -> None:
    """Short ones, whose handling is what joining saves; empty ones; and requests larger than a batch."""
    economy = Economy(16)
    seen(economy, on_a_processor, 16)
    for _ in range(9):
        economy.observe(count, seconds)
    assert economy.best == 16


def together(batcher: Batcher, count: int, run: "Timed") -> list[int]:
    """The batches that answer one request and then so many that wait for it."""
    before = len(run.batches)
    run.waits_for = count
    with ThreadPoolExecutor(count + 1) as pool:
        for future in [pool.submit(batcher.submit, rows(1), ["y"]) for _ in range(count + 1)]:
            np.testing.assert_array_equal(future.result()[0], [[1]])
    return run.batches[before:]


class Timed:
    """A model on a clock of its own; its next run first waits until so many rows wait."""

    def __init__(self, cost: Cost) -> None:
        self.batches: list[int] = []
        self.now = 0.0
        self.waits_for = 0
        self.batcher: Batcher | None = None
        self._cost = cost

    def __call__(self, feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        """One run."""
        count, self.waits_for = self.waits_for, 0
        if count:
            assert self.batcher is not None
            with self.batcher._arrived:
                assert self.batcher._arrived.wait_for(lambda: self.batcher._queued_rows >= count, 30)  # type: ignore[union-attr]
        self.batches.append(len(feeds["x"]))
        self.now += self._cost(len(feeds["x"]))
        return [feeds["x"]]


@pytest.mark.parametrize(
    ("cost", "options", "expected"),
    [
        (even, {}, [1, 1, 1, 1]),
        (on_a_card, {}, [1, 3]),
        (even, {"num_batch_threads": 2}, [1, 3]),
        (even, {"allowed_batch_sizes": (1, 4)}, [1, 1, 1, 1]),
    ],
)
def test_a_queue_joins_what_pays(cost: Cost, options: dict[str, int], expected: list[int]) -> None:
    """Requests that wait are run one by one where a row takes its time, else together."""
    run = Timed(cost)
    batcher = run.batcher = Batcher(run, BatchingParameters(4, **options), clock=lambda: run.now)  # type: ignore[arg-type]
    for count in [1] * 5 + [4] * 5:
        batcher.submit(rows(*[1.0] * count), ["y"])
    assert batcher.snapshot().joined_rows == (1 if expected == [1, 1, 1, 1] else 4)
    if "num_batch_threads" not in options:  # else the others would run beside the one that waits
        assert together(batcher, 3, run) == expected
