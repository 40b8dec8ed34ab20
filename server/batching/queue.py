"""The queue of one signature: who waits, who runs next, and who gets which rows.

A request that finds a place free runs at once, in its own thread, so nothing is added to it. One that finds none waits;
whoever finishes a run hands its place to the oldest that waits, whose thread then takes with it what may be joined and
runs that. There is no thread of the queue's own, and no delay unless one is configured; nor does a request wait for
others' rows that make its own no cheaper (economy.py).

Only rows of equal form are joined, and only where their outputs wanted are the same. A request with more rows than a
batch waits in pieces, each of which may be joined as any request. How a batch is run is in running.py, how a request
ends in waiting.py, and what a request in pieces is in pieces.py. Pure threads and numpy; the clock is passed in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from queue import Empty

from server import calls
from server.arrays import Array
from server.batching import joining
from server.batching.economy import Economy
from server.batching.parameters import BatchingParameters
from server.batching.pieces import Piece, Whole, helped
from server.batching.running import Run, Runner, check_rows
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
        # Who asks for a delay wants full batches, who asks for several at once has thought about it.
        free = self._at_once and parameters.num_batch_threads == 1
        self._economy = Economy(parameters.buckets) if free else None
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[Waiting] = deque()
        self._queued_rows = 0
        self._room_taken = 0  # the same, but what is run as it is, however large, counts as one batch
        self._running, self._places = 0, parameters.num_batch_threads
        self._gathering: set[Hashable] = set()
        self._statistics = Statistics()
        self._short_run = 0.0

    @property
    def largest(self) -> int:
        """Rows of a batch at most."""
        return self._largest

    @property
    def pool(self) -> str:
        """TensorFlow's name for what would run the batches."""
        return self._parameters.thread_pool_name

    def snapshot(self) -> Snapshot:
        """What was counted so far."""
        with self._lock:
            joined = self._largest if self._economy is None else self._economy.best
            return self._statistics.snapshot(self._queued_rows, joined)

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
            deadline: By the clock; a request that still waits then, or so shortly before that no run would end in time,
                is not run.
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
            if self._running >= self._places:
                return None
            self._running += 1
            begun = None if self._economy is None else self._economy.begin(rows, self._clock())
        size, failed = self._runner.size(rows) if self._has_sizes else rows, True
        try:
            if self._has_sizes:
                answers = self._runner.filled_up(feeds, outputs, rows)
            else:
                answers = self._run(feeds, outputs)
                check_rows(answers, rows)
            failed = False
            return answers
        finally:
            self._leave(begun, rows, size - rows, failed=failed, at_once=1)

    def _submit_large(
        self, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float, cancelled: Cancelled
    ) -> list[Array]:
        """A request that is larger than a batch: refused, run in pieces, or run as it is."""
        rows = next(iter(feeds.values())).shape[0]
        limit = self._parameters.largest_request
        if limit is not None and rows > limit:
            raise InvalidRequest(f"Task size {rows} is larger than maximum input batch size {limit}")
        if not self._parameters.enable_large_batch_splitting:
            return self._submit_waiting(feeds, outputs, rows, deadline, cancelled)
        # What is filled up for others would have an answer of another size than the request's other pieces.
        form = object() if self._parameters.pad_variable_length_inputs else joining.form(feeds, any_length=False)
        key = (form, tuple(outputs))
        whole = Whole(feeds, outputs, deadline, cancelled, size=self._largest, key=key, since=self._clock())
        return self._submit_whole(whole, rows)

    def _submit_whole(self, whole: Whole, rows: int) -> list[Array]:
        """A request in pieces. Nothing of it is left in the queue, or in work, when this returns.

        Where no size of a request is refused, a few pieces wait at a time, so that none is too large for the queue and
        others have their turn in between; else all of them, as in TensorFlow Serving.
        """
        parameters, waiting = self._parameters, whole.count
        if parameters.largest_request is None:
            waiting = min(waiting, parameters.num_batch_threads + 1, parameters.max_enqueued_batches)
        with self._lock:
            self._check_room(min(rows, waiting * self._largest))
            self._enqueue_more(whole, waiting)
        with helped(lambda: self._work_off(whole), min(whole.count, parameters.num_batch_threads) - 1):
            self._work_off(whole)
        if (call := calls.current()) is not None:
            _tell(call, whole.started, whole.ran)
        return whole.result()

    def _work_off(self, whole: Whole) -> None:
        """Run the pieces of a request that get a place, until none is left."""
        while (piece := self._next(whole)) is not None:
            if not piece.done:
                try:
                    self._lead(piece)
                except Exception as error:  # noqa: BLE001 - the request's thread raises it when nothing is left
                    with self._lock:
                        whole.fail(error)
            with self._lock:
                if piece.done:
                    whole.keep(piece)
                if whole.failed:
                    self._give_up(whole)
                self._enqueue_more(whole, 1)
                whole.let_go([piece])
        whole.told.put(None)  # for the next thread

    def _next(self, whole: Whole) -> Piece | None:
        """A piece that has a place or has ended, None if none is left; what waits at the deadline is given up."""
        with suppress(Empty):
            return whole.told.get(timeout=self._patience(whole.deadline))
        with self._lock:
            if not whole.is_under_way():
                whole.fail(expired())
                self._give_up(whole)
        return whole.told.get()  # what was taken at the last moment is waited for

    def _give_up(self, whole: Whole) -> None:
        """Take the pieces of a request that has failed out of the queue. Called with the lock held."""
        waiting = whole.queued()
        self._remove(waiting)
        whole.let_go(waiting)

    def _enqueue_more(self, whole: Whole, count: int) -> None:
        """Put some more pieces at the end of the queue. Called with the lock held."""
        for piece in whole.more(count):
            self._append(piece)
        self._hand_out()

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
            leads = self._running < self._places and item.key not in self._gathering
            if leads:
                self._running += 1
            else:
                self._enqueue(item)
        if leads or self._wait(item):
            self._lead(item)
        if (call := calls.current()) is not None:
            _tell(call, item.started, item.ran)
        return item.result()

    def _enqueue(self, item: Waiting) -> None:
        """Put at the end of the queue. Called with the lock held."""
        self._check_room(min(item.rows, self._largest))
        item.wake.acquire()  # released by whoever answers the request or hands a place to it
        self._append(item)

    def _check_room(self, rows: int) -> None:
        """Refuse rows that the queue has no room for, in TensorFlow's words. Called with the lock held."""
        parameters = self._parameters
        size, most = parameters.max_batch_size, parameters.max_enqueued_batches
        room = most * size - self._room_taken
        if rows <= room:
            return
        if parameters.enable_large_batch_splitting and parameters.largest_request is not None:
            batches, rest = divmod(self._room_taken, size)
            raise QueueFull(
                f"{_FULL}; task size is {rows} but scheduling capacity is only {room} (num_enqueued_batches="
                f"{batches + 1}, max_enqueued_batches={most}, open_batch_size={rest}, max_execution_batch_size={size})"
            )
        batches = -(-self._room_taken // size)
        raise QueueFull(f"{_FULL}; currently {batches} batches enqueued and max_enqueued_batches is {most}")

    def _append(self, item: Waiting) -> None:
        item.queued = True
        self._queue.append(item)
        self._queued_rows += item.rows
        self._room_taken += min(item.rows, self._largest)
        self._arrived.notify_all()

    def _patience(self, deadline: float) -> float:
        """Seconds worth waiting for a place: who would be answered too late is told so while somebody still listens.

        At most an eighth of the time that is left is given up for that: runs that were long may be short by now.
        """
        left = max(0.0, deadline - self._clock())
        return min(left - min(self._short_run / 2, left / 8), threading.TIMEOUT_MAX)

    def _wait(self, item: Waiting) -> bool:
        """Wait until somebody has answered the request, or handed a place to it: then True."""
        if not item.wake.acquire(timeout=self._patience(item.deadline)):
            with self._lock:
                if item.queued:
                    self._remove([item])
                    raise expired()
            item.wake.acquire()  # it was taken at the last moment: the answer, or a place, is on its way
        return not item.done

    def _lead(self, first: Waiting) -> None:
        """Run a batch that begins with a request which has a place; pass the place on."""
        batch: list[Waiting] = []
        rows, padding, failed, begun = 0, 0, False, None
        try:
            with self._lock:
                if not self._at_once:
                    self._gather(first)
                batch = self._take(first)
                self._hand_out()  # rows that would have been taken too, had there been room
                begin = self._clock()
                if batch and self._economy is not None:
                    begun = self._economy.begin(first.rows, begin)
            if batch:
                rows, padding, failed = self._runner.answer(batch, first)
                self._note_run(self._clock() - begin)
        finally:
            self._leave(begun, rows, padding, failed=failed)
            for item in batch:
                if item is not first and not item.done:
                    item.fail(RunFailed("the batch that this request was in came to no end"))
                    item.tell()

    def _note_run(self, seconds: float) -> None:
        """Remember how short runs are: the shortest of late, which fades."""
        self._short_run = min(seconds, 1.1 * self._short_run) if self._short_run else seconds

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
        most = self._largest
        if self._economy is not None:
            most = self._economy.limit(first.rows + sum(item.rows for item in self._queue if item.key == first.key))
        for item in (first, *self._queue):
            if item.key != first.key:
                continue
            if gone := item.gone(now):
                taken.append(item)
                item.fail(gone)
                if item is not first:  # whose thread it is that leads
                    item.tell()
            elif item is first or rows + item.rows <= most:
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
            self._room_taken -= min(item.rows, self._largest)
        if items:
            self._queue = deque(item for item in self._queue if item.queued)

    def _leave(self, begun: float | None, rows: int, padding: int, *, failed: bool, at_once: int = 0) -> None:
        """Count a run, if there was one, and what found a place at once; give its place up."""
        with self._lock:
            if rows:
                self._statistics.has_run(rows, padding)
            self._statistics.at_once += at_once
            self._running -= 1
            if self._economy is not None and begun is not None:
                self._economy.end(begun, 0 if failed else rows + padding, self._clock())
                self._places = self._economy.places(self._queued_rows)
            if self._queue:
                self._hand_out()

    def _hand_out(self) -> None:
        """Hand free places to the oldest that wait for nobody else to run them. Called with the lock held."""
        taken: list[Waiting] = []
        for item in self._queue:
            if self._running >= self._places:
                break
            if item.key in self._gathering:
                continue
            taken.append(item)
            if gone := item.gone(self._clock()):
                item.fail(gone)
            else:
                self._running += 1
            item.tell()
        self._remove(taken)


def _tell(call: calls.Call, started: float, ran: calls.Run | None) -> None:
    """Note in a call when its run began, and who made it."""
    call.started = started
    if ran is not None:
        call.run_on(*ran)
