"""Tests of `server.batching.economy`: joining only what becomes cheaper by it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from server.arrays import Array
from server.batching.economy import SHORT_SECONDS, UNLIMITED, Economy
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from tests.server.batching.queues import queued, rows

Cost = Callable[[int, int], float]
"""Seconds of the machine's time that a run of so many rows takes, while so many runs are under way."""


def on_a_card(_rows: int, _runs: int) -> float:
    """Sixteen rows take as long as one."""
    return 0.01


def on_a_processor(count: int, _runs: int) -> float:
    """Each row takes its time, and more of it in large batches."""
    return 0.1 * count * (1.1 if count > 4 else 1.0)


def even(count: int, _runs: int) -> float:
    """Each row takes the same time."""
    return 0.1 * count


def crowded(count: int, runs: int) -> float:
    """Runs beside each other disturb each other by more than rows of one batch do."""
    return 0.1 * count * (1.05 if count > 1 else 1.1 if runs > 1 else 1.0)


class Clients:
    """So many clients of a server, each of which asks for one row again as soon as it has its answer."""

    def __init__(self, economy: Economy, cost: Cost, clients: int) -> None:
        self.economy, self.cost, self.waiting = economy, cost, clients
        self.under_way: list[tuple[float, int, float]] = []  # what is left of its time, rows, what `end` wants
        self.now, self.places = 0.0, 1

    def answer(self, rows: int) -> list[int]:
        """Go on until so many rows are answered; the sizes of the batches."""
        sizes: list[int] = []
        while sum(sizes) < rows:
            while self.waiting and len(self.under_way) < self.places:
                size = min(self.waiting, self.economy.limit(self.waiting))
                self.waiting -= size
                begun = self.economy.begin(1, self.now)
                self.under_way.append((self.cost(size, len(self.under_way) + 1), size, begun))
            self.under_way.sort()
            (left, size, begun), *others = self.under_way
            self.now += left * (len(others) + 1)
            self.under_way = [(one - left, *rest) for one, *rest in others]  # type: ignore[misc]
            self.waiting += size
            self.economy.end(begun, size, self.now)
            self.places = self.economy.places(self.waiting)
            sizes.append(size)
        return sizes


def seen(economy: Economy, cost: Cost, *sizes: int) -> None:
    """Have each of the sizes run often enough to be known."""
    now = 0.0
    for size in sizes:
        for _ in range(5):
            begun = economy.begin(size, now)
            now += cost(size, 1)
            economy.end(begun, size, now)


def test_everything_is_joined_at_first() -> None:
    """Nothing is known yet, so what waits goes together."""
    economy = Economy(16)
    assert (economy.best, economy.limit(16), economy.places(16)) == (16, 16, 1)
    seen(economy, on_a_processor, 1)
    assert (economy.limit(16), economy.places(16)) == (16, 1)


@pytest.mark.parametrize(("cost", "best"), [(on_a_card, 16), (on_a_processor, 1), (even, 1)])
def test_only_as_many_are_joined_as_it_takes_for_a_row_to_be_cheap(cost: Cost, best: int) -> None:
    """From one row and full batches it is known whether joining pays; where it does not, requests run side by side."""
    economy = Economy(16)
    seen(economy, cost, 16, 1)
    assert economy.best == best
    assert economy.places(16) == (UNLIMITED if best == 1 else 1)


def test_requests_as_large_as_a_batch_still_take_turns() -> None:
    """That they cannot be joined is no sign that they had better run beside each other."""
    economy = Economy(16)
    seen(economy, on_a_card, 1, 16)
    assert economy.places(16) == 1


def test_it_is_found_out_while_full_batches_run() -> None:
    """A server that has never seen a single row tries some, and a size in between if that is the best."""

    def best_at_four(count: int, _runs: int) -> float:
        return (0.05 if count < 4 else 0.03 if count == 4 else 0.04) * count

    economy = Economy(16)
    clients = Clients(economy, best_at_four, 16)
    clients.answer(6000)
    assert economy.best == 4
    assert clients.places == 1


@pytest.mark.parametrize(
    ("cost", "clients", "best"),
    [(on_a_card, 16, 16), (on_a_processor, 16, 1), (even, 16, 1), (crowded, 4, 4), (on_a_processor, 2, 1)],
)
def test_it_is_found_out_under_load(cost: Cost, clients: int, best: int) -> None:
    """Also what only shows while many ask: that runs beside each other are dearer than batches."""
    economy = Economy(16)
    sizes = Clients(economy, cost, clients).answer(20_000)
    later = sizes[len(sizes) // 2 :]
    assert sum(size for size in later if best / 2 <= size <= best) > 0.85 * sum(later)


def test_what_has_become_otherwise_is_noticed() -> None:
    """Another backend serves large batches now, or a neighbour has left the caches: sizes are looked at again."""
    economy = Economy(16)
    clients = Clients(economy, on_a_processor, 16)
    clients.answer(1000)
    assert economy.best == 1
    clients.cost = on_a_card
    clients.answer(20_000)
    assert economy.best == 16
    clients.cost = on_a_processor
    clients.answer(20_000)
    assert economy.best == 1


@pytest.mark.parametrize("cost", [on_a_card, on_a_processor, even])
def test_looks_cost_little(cost: Cost) -> None:
    """Of the time that the best way takes, less than one hundredth."""
    economy = Economy(16)
    clients = Clients(economy, cost, 16)
    clients.answer(2000)
    begin = clients.now
    answered = sum(clients.answer(20_000))
    assert clients.now - begin < 1.01 * answered * min(cost(size, 1) / size for size in (1, 16))


@pytest.mark.parametrize(("count", "seconds"), [(1, SHORT_SECONDS / 2), (0, 1.0), (17, 0.001)])
def test_some_runs_say_nothing(count: int, seconds: float) -> None:
    """Short ones, whose handling is what joining saves; empty ones; and requests larger than a batch."""
    economy = Economy(16)
    seen(economy, on_a_processor, 16)
    for now in range(100, 109):
        economy.end(economy.begin(count, now), count, now + seconds)
    assert economy.best == 16


class Timed:
    """A model on a clock of its own, whose next runs may have to wait for something."""

    def __init__(self, cost: Cost) -> None:
        self.batches: list[int] = []
        self.now = 0.0
        self.wait: Callable[[], object] = bool
        self._cost = cost

    def __call__(self, feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        """One run."""
        self.batches.append(len(feeds["x"]))
        self.wait()
        self.now += self._cost(len(feeds["x"]), 1)
        return [feeds["x"]]


Options = dict[str, Any]


def trained(run: Timed, options: Options) -> Batcher:
    """A queue that has seen single rows and full batches."""
    batcher = Batcher(run, BatchingParameters(4, **options), clock=lambda: run.now)
    for count in [4] * 5 + [1] * 5:
        batcher.submit(rows(*[1.0] * count), ["y"])
    run.batches.clear()
    return batcher


def ask(batcher: Batcher, count: int) -> None:
    """So many clients ask at once for one row."""
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(batcher.submit, rows(1), ["y"]) for _ in range(count)]:
            np.testing.assert_array_equal(future.result()[0], [[1]])


@pytest.mark.parametrize("options", [{}, {"allowed_batch_sizes": (1, 4)}])
def test_requests_that_gain_nothing_by_it_do_not_wait_for_each_other(options: Options) -> None:
    """They run side by side: each of four runs ends only once all have begun."""
    run = Timed(even)
    batcher = trained(run, options)
    assert batcher.snapshot().joined_rows == 1
    run.wait = threading.Barrier(4, timeout=30).wait
    ask(batcher, 4)
    assert run.batches == [1, 1, 1, 1]
    assert batcher.snapshot().queued_rows == 0


@pytest.mark.parametrize(
    ("cost", "options"), [(on_a_card, {}), (even, {"num_batch_threads": 2}), (even, {"batch_timeout_micros": 1})]
)
def test_requests_are_joined_where_it_pays_or_was_asked_for(cost: Cost, options: Options) -> None:
    """On a card, and where an operator has said how batches are to be made."""
    run = Timed(cost)
    batcher = trained(run, options)
    assert batcher.snapshot().joined_rows == 4
    if cost is on_a_card:  # one runs, and the others wait for it
        first = iter([lambda: queued(batcher, 3)])
        run.wait = lambda: next(first, bool)()  # noqa: PLW0108 - what it calls differs from call to call
        ask(batcher, 4)
        assert run.batches == [1, 3]
