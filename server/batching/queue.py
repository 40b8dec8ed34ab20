"""The queue of one signature: who waits, who runs next, and who gets which rows.

A request that finds a place free runs at once, in its own thread, so nothing is added to it. One that finds none waits;
whoever finishes a run hands its place to the oldest that waits, whose thread then takes with it what may be joined and
runs that. There is no thread of the queue's own, and no delay unless one is configured.

Only rows of equal form are joined, and only where their outputs wanted are the same. How a batch is run is in
running.py, and how a request ends in waiting.py. Pure threads and numpy; the clock is passed in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from server import calls
from server.arrays import Array
from server.batching import joining
from server.batching.parameters import BatchingParameters
from server.batching.running import Run, Runner
from server.batching.statistics import Snapshot, Statistics
from server.batching.waiting import Waiting, expired
from server.errors import InvalidRequest, QueueFull, RunFailed

Cancelled = Callable[[], bool]

_FULL = "The batch scheduling queue to which this task was submitted is full"


def never_cancelled() -> bool:
    """For callers that cannot be cancelled."""
    return False


class Batcher:
    """Joins the requests of one signature."""

    def __init__(
        self, run: Run, parameters: BatchingParameters, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a batcher.

        Args:
            run: Runs the graph; raises a SegueError if it cannot.
            parameters: How to join.
            clock: Seconds, for deadlines.
        """
        self._run = run
        self._runner = Runner(run, parameters, clock)
        self._parameters = parameters
        self._clock = clock
        self._at_once = parameters.batch_timeout_micros == 0
        self._has_sizes = bool(parameters.allowed_batch_sizes)
        self._largest = parameters.max_batch_size
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[Waiting] = deque()
        self._queued_rows = 0
        self._free = parameters.num_batch_threads
        self._gathering: set[Hashable] = set()
        self._statistics = Statistics()

    @property
    def largest(self) -> int:
        """Rows of a batch at most."""
        return self._largest

    def snapshot(self) -> Snapshot:
        """What was counted so far."""
        with self._lock:
            return self._statistics.snapshot(self._queued_rows)

    def submit(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        deadline: float = float("inf"),
        cancelled: Cancelled = never_cancelled,
    ) -> list[Array]:
        """Answer one request, alone or with others; called in the request's own thread.

        Args:
            feeds: Arrays by ONNX name, all with the same first dimension.
            outputs: ONNX names of the outputs wanted.
            deadline: By the clock; a request that still waits then is not run.
            cancelled: Asked before a request that has waited is run: whether nobody wants its answer any more.

        Raises:
            ExpiredInQueue: The deadline passed while it waited.
            CancelledInQueue: It was cancelled while it waited.
            QueueFull: Too many wait already.
            InvalidRequest: It has more rows than one request may have.
            SegueError: What the run raised for this request.
        """
        rows: int = next(iter(feeds.values())).shape[0]
        if rows > self._largest:
            return self._submit_large(feeds, outputs, deadline, cancelled)
        answers = self.try_now(feeds, outputs)
        return self._submit_waiting(feeds, outputs, rows, deadline, cancelled) if answers is None else answers

    def try_now(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array] | None:
        """Run one request if it need not wait; else None, at once.

        Args:
            feeds: As for `submit`.
            outputs: As for `submit`.

        Raises:
            SegueError: What the run raised.
        """
        rows: int = next(iter(feeds.values())).shape[0]
        if not self._at_once or rows > self._largest:
            return None
        with self._lock:
            free = self._free
            if not free:
                return None
            self._free = free - 1
        if self._has_sizes:
            return self._run_filled_up(feeds, outputs, rows)
        try:
            return self._run(feeds, outputs)
        finally:
            self._leave(rows, 0)

    def _run_filled_up(self, feeds: Mapping[str, Array], outputs: Sequence[str], rows: int) -> list[Array]:
        """Run one request that has a place, with rows added up to the next allowed size; give the place up."""
        size = self._runner.size(rows)
        try:
            return self._runner.filled_up(feeds, outputs, rows)
        finally:
            self._leave(rows, size - rows)

    def _submit_large(
        self, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float, cancelled: Cancelled
    ) -> list[Array]:
        """A request that is larger than a batch: refused, run in pieces, or run as it is."""
        parameters = self._parameters
        rows = next(iter(feeds.values())).shape[0]
        limit, size = parameters.largest_request, parameters.max_batch_size
        if limit is not None and rows > limit:
            raise InvalidRequest(f"Task size {rows} is larger than maximum input batch size {limit}")
        if not parameters.enable_large_batch_splitting:
            answers = self._run(feeds, outputs)
            with self._lock:
                self._statistics.has_run(rows, 0)
            return answers
        with self._lock:
            room = parameters.max_enqueued_batches * size - self._queued_rows
        if rows > room:
            raise QueueFull(f"{_FULL}; task size is {rows} but scheduling capacity is only {room}{self._capacity()}")
        pieces = [
            self.submit({n: a[i : i + size] for n, a in feeds.items()}, outputs, deadline, cancelled)
            for i in range(0, rows, size)
        ]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _capacity(self) -> str:
        size = self._parameters.max_batch_size
        batches, rest = divmod(self._queued_rows, size)
        return (
            f" (num_enqueued_batches={batches + 1}, max_enqueued_batches={self._parameters.max_enqueued_batches}, "
            f"open_batch_size={rest}, max_execution_batch_size={size})"
        )

    def _submit_waiting(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        rows: int,
        deadline: float,
        cancelled: Cancelled,
    ) -> list[Array]:
        form = joining.form(feeds, any_length=self._parameters.pad_variable_length_inputs)
        item = Waiting(feeds, outputs, rows, deadline, cancelled, (form, tuple(outputs)), self._clock())
        with self._lock:
            leads = self._free > 0 and item.key not in self._gathering
            if leads:
                self._free -= 1
            else:
                self._enqueue(item)
        if leads or self._wait(item):
            self._lead(item)
        if (call := calls.current()) is not None:
            call.started = item.started
            if item.ran is not None:
                call.run_on(*item.ran)
        return item.result()

    def _enqueue(self, item: Waiting) -> None:
        """Put at the end of the queue. Called with the lock held."""
        parameters = self._parameters
        room = parameters.max_enqueued_batches * parameters.max_batch_size
        if self._queued_rows + item.rows > room:
            batches = -(-self._queued_rows // parameters.max_batch_size)
            raise QueueFull(
                f"{_FULL}; currently {batches} batches enqueued and max_enqueued_batches is "
                f"{parameters.max_enqueued_batches}"
            )
        item.wake.acquire()  # released by whoever answers the request or hands a place to it
        item.queued = True
        self._queue.append(item)
        self._queued_rows += item.rows
        self._arrived.notify_all()

    def _wait(self, item: Waiting) -> bool:
        """Wait until somebody has answered the request, or handed a place to it: then True."""
        left = item.deadline - self._clock()
        if not item.wake.acquire(timeout=max(0.0, min(left, threading.TIMEOUT_MAX))):
            with self._lock:
                if item.queued:
                    self._remove([item])
                    raise expired()
            item.wake.acquire()  # it was taken at the last moment: the answer, or a place, is on its way
        return not item.done

    def _lead(self, first: Waiting) -> None:
        """Run a batch that begins with a request which has a place; pass the place on."""
        batch: list[Waiting] = []
        ran = (0, 0)
        try:
            with self._lock:
                if not self._at_once:
                    self._gather(first)
                batch = self._take(first)
                self._hand_out()  # rows that would have been taken too, had there been room
            if batch:
                ran = self._runner.answer(batch, first)
        finally:
            self._leave(*ran)
            for item in batch:
                if item is not first and not item.done:
                    item.fail(RunFailed("the batch that this request was in came to no end"))
                    item.tell()

    def _gather(self, first: Waiting) -> None:
        """Give more rows the configured time to arrive. Called with the lock held, which the waiting gives up."""
        room = self._parameters.max_batch_size - first.rows
        until = min(first.since + self._parameters.batch_timeout_micros / 1e6, first.deadline)
        self._gathering.add(first.key)
        try:
            self._arrived.wait_for(
                lambda: sum(item.rows for item in self._queue if item.key == first.key) >= room,
                max(0.0, until - self._clock()),
            )
        finally:
            self._gathering.discard(first.key)

    def _take(self, first: Waiting) -> list[Waiting]:
        """Take what can be joined to a request that has a place. Called with the lock held."""
        batch: list[Waiting] = []
        taken: list[Waiting] = []
        rows = 0
        now = self._clock()
        for item in (first, *self._queue):
            if item.key != first.key:
                continue
            if gone := item.gone(now):
                taken.append(item)
                item.fail(gone)
                if item is not first:  # whose thread it is that leads
                    item.tell()
            elif rows + item.rows <= self._parameters.max_batch_size:
                taken.append(item)
                batch.append(item)
                rows += item.rows
                self._statistics.has_waited(now - item.since)
        self._remove([item for item in taken if item.queued])
        return batch

    def _remove(self, items: Sequence[Waiting]) -> None:
        """Take requests out of the queue. Called with the lock held."""
        for item in items:
            item.queued = False
            self._queued_rows -= item.rows
        if items:
            self._queue = deque(item for item in self._queue if item.queued)

    def _leave(self, rows: int, padding: int) -> None:
        """Count a run, if there was one, and give its place up."""
        with self._lock:
            if rows:
                self._statistics.has_run(rows, padding)
            self._free += 1
            if self._queue:
                self._hand_out()

    def _hand_out(self) -> None:
        """Hand free places to the oldest that wait for nobody else to run them. Called with the lock held."""
        taken: list[Waiting] = []
        for item in self._queue:
            if self._free == 0:
                break
            if item.key in self._gathering:
                continue
            taken.append(item)
            if gone := item.gone(self._clock()):
                item.fail(gone)
            else:
                self._free -= 1
            item.tell()
        self._remove(taken)
