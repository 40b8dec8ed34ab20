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
from server.errors import RunFailed
from tests.server.batching.queues import queued, rows

SIZES = (1, 2, 4, 8, 16)
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
    """So many clients of a server, each of which asks again for as many rows as soon as it has its answer."""

    def __init__(
        self, cost: Cost, clients: int, *, each: int = 1, allowed: Sequence[int] = (), economy: Economy | None = None
    ) -> None:
        self.cost, self.waiting, self.each = cost, clients, each
        self.economy = economy or Economy(allowed or SIZES)
        self.allowed = allowed
        self.under_way: list[tuple[float, int, int, float]] = []  # time left, requests, rows run, what `end` wants
        self.now, self.places = 0.0, 1

    def answer(self, requests: int) -> list[int]:
        """Go on until so many are answered; how many were in each batch."""
        batches: list[int] = []
        while sum(batches) < requests:
            while self.waiting and len(self.under_way) < self.places:
                self._begin()
            self.under_way.sort()
            (left, joined, rows, begun), *others = self.under_way
            self.now += left * (len(others) + 1)
            self.under_way = [(one - left, *rest) for one, *rest in others]  # type: ignore[misc]
            self.waiting += joined
            self.economy.end(begun, rows, self.now)
            self.places = self.economy.places(self.waiting * self.each)
            batches.append(joined)
        return batches

    def limit(self) -> int:
        """Rows of the next batch at most."""
        return self.economy.limit(self.waiting * self.each)

    def _begin(self) -> None:
        joined = max(1, min(self.waiting, self.limit() // self.each))
        self.waiting -= joined
        rows = next((size for size in self.allowed if size >= joined * self.each), joined * self.each)
        begun = self.economy.begin(self.each, self.now)
        self.under_way.append((self.cost(rows, len(self.under_way) + 1), joined, rows, begun))


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
    economy = Economy(SIZES)
    assert (economy.best, economy.limit(16), economy.places(16)) == (16, 16, 1)
    seen(economy, on_a_processor, 1)
    assert (economy.limit(16), economy.places(16)) == (16, 1)


@pytest.mark.parametrize(("cost", "best"), [(on_a_card, 16), (on_a_processor, 1), (even, 1)])
def test_only_as_many_are_joined_as_it_takes_for_a_row_to_be_cheap(cost: Cost, best: int) -> None:
    """From one row and full batches it is known whether joining pays; where it does not, requests run side by side."""
    economy = Economy(SIZES)
    seen(economy, cost, 16, 1)
    assert economy.best == best
    assert economy.places(16) == (UNLIMITED if best == 1 else 1)


def test_requests_as_large_as_a_batch_still_take_turns() -> None:
    """That they cannot be joined is no sign that they had better run beside each other."""
    economy = Economy(SIZES)
    seen(economy, on_a_card, 1, 16)
    assert economy.places(16) == 1


def test_it_is_found_out_while_full_batches_run() -> None:
    """A server that has never seen a single row tries some, and a size in between if that is the best."""

    def best_at_four(count: int, _runs: int) -> float:
        return (0.05 if count < 4 else 0.03 if count == 4 else 0.04) * count

    clients = Clients(best_at_four, 16)
    clients.answer(6000)
    assert clients.economy.best == 4
    assert clients.places == 1


@pytest.mark.parametrize(
    ("cost", "clients", "best"),
    [(on_a_card, 16, 16), (on_a_processor, 16, 1), (even, 16, 1), (crowded, 4, 4), (on_a_processor, 2, 1)],
)
def test_it_is_found_out_under_load(cost: Cost, clients: int, best: int) -> None:
    """Also what only shows while many ask: that runs beside each other are dearer than batches."""
    sizes = Clients(cost, clients).answer(20_000)
    later = sizes[len(sizes) // 2 :]
    assert sum(size for size in later if best / 2 <= size <= best) > 0.85 * sum(later)


def test_what_has_become_otherwise_is_noticed() -> None:
    """Another backend serves large batches now, or a neighbour has left the caches: sizes are looked at again."""
    clients = Clients(on_a_processor, 16)
    economy = clients.economy
    clients.answer(1000)
    assert economy.best == 1
    clients.cost = on_a_card
    clients.answer(20_000)
    assert economy.best == 16
    clients.cost = on_a_processor
    clients.answer(20_000)
    assert economy.best == 1


@pytest.mark.parametrize("cost", [on_a_card, on_a_processor, even])
@pytest.mark.parametrize(
    ("each", "allowed"), [(1, ()), (3, ()), (4, ()), (1, (1, 16)), (1, (8, 16)), (4, (8, 16)), (3, (6, 12))]
)
def test_looks_cost_little(cost: Cost, each: int, allowed: Sequence[int]) -> None:
    """Of the time that the best way takes, less than one hundredth: also sizes that no request can make are not it."""
    clients = Clients(cost, 16, each=each, allowed=allowed)
    clients.answer(2000)
    begin = clients.now
    answered = sum(clients.answer(20_000))
    best = min(cost(size, 1) / (size // each) for size in (allowed or range(1, 17)) if size >= each)
    assert clients.now - begin < 1.01 * answered * best


@pytest.mark.parametrize("each", [2, 3, 4, 5])
def test_requests_of_several_rows_are_joined_where_it_pays(each: int) -> None:
    """As many as fit into a batch where that is as quick as one; none where it gains nothing."""
    on_card = Clients(on_a_card, 16, each=each)
    on_card.answer(2000)
    assert min(on_card.answer(200)) == 16 // each
    on_processor = Clients(on_a_processor, 16, each=each)
    on_processor.answer(2000)
    apart = [(on_processor.answer(1), on_processor.places) == ([1], UNLIMITED) for _ in range(1000)]
    assert sum(apart) > 850


def test_what_cannot_be_joined_is_not_held_up_for_a_look_at_it() -> None:
    """As requests of as many lengths as there are clients."""

    class Strangers(Clients):
        def limit(self) -> int:
            """Nothing else that waits is of the first one's form."""
            return self.economy.limit(self.each)

    clients = Strangers(even, 16)
    seen(clients.economy, even, 16, 1)
    apart = [(clients.answer(1), clients.places) == ([1], UNLIMITED) for _ in range(5000)]
    assert sum(apart) > 4500


def test_failures_say_nothing() -> None:
    """A backend that fails at once is no reason to think that batches have become cheap."""
    run = Timed(even)
    batcher = trained(run, {})
    assert batcher.snapshot().joined_rows == 1

    def fail() -> None:
        run.now -= 0.39
        raise RunFailed("no")

    run.wait = fail
    for _ in range(9):
        with pytest.raises(RunFailed):
            batcher.submit(rows(*[1.0] * 4), ["y"])
    assert batcher.snapshot().joined_rows == 1


@pytest.mark.parametrize(("count", "seconds"), [(1, SHORT_SECONDS / 2), (0, 1.0), (17, 0.001)])
def test_some_runs_say_nothing(count: int, seconds: float) -> None:
    """Short ones, whose handling is what joining saves; empty ones; and requests larger than a batch."""
    economy = Economy(SIZES)
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
