"""Dynamic batching: requests that wait while the model runs are answered together in its next run.

A request that finds the model idle runs at once, in its own thread, so nothing is added to it. One that finds it busy
waits; whoever finishes a run takes what is waiting as the next batch and lets the thread of its first request run it.
There is no thread of the queue's own, and no delay unless one is configured.

Only rows of equal form are joined: same inputs, dtypes and shapes but for the first dimension, same outputs wanted. A
batch that fails is run again request by request, so that only the request at fault fails. Pure threads and numpy; the
clock is passed in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server import calls
from server.arrays import Array
from server.errors import ExpiredInQueue, RunFailed, SegueError

Run = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How a signature's requests are joined; the names are TensorFlow Serving's."""

    max_batch_size: int = 16
    """Rows of a batch. Enough to keep a CPU busy with most models; a GPU may want more."""
    batch_timeout_micros: int = 0
    """How long an idle model waits for more rows before it runs a batch that is not full."""

    def __post_init__(self) -> None:
        """Refuse parameters that cannot work."""
        if self.max_batch_size < 1 or self.batch_timeout_micros < 0:
            raise ValueError("max_batch_size must be at least 1, batch_timeout_micros at least 0")


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request."""

    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    rows: int
    deadline: float
    key: tuple[object, ...]
    wake: threading.Lock = field(default_factory=threading.Lock)
    batch: list["_Waiting"] | None = None
    answer: list[Array] | None = None
    started: float = 0.0
    error: SegueError | None = None


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
        self._parameters = parameters
        self._clock = clock
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[_Waiting] = deque()
        self._queued_rows = 0
        self._running = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait now."""
        return self._queued_rows

    def submit(self, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float = float("inf")) -> list[Array]:
        """Answer one request, alone or with others; called in the request's own thread.

        Args:
            feeds: Arrays by ONNX name, all with the same first dimension.
            outputs: ONNX names of the outputs wanted.
            deadline: By the clock; a request that still waits then is not run.

        Raises:
            ExpiredInQueue: The deadline passed while it waited.
            SegueError: What the run raised for this request.
        """
        rows = next(iter(feeds.values())).shape[0]
        if rows > self._parameters.max_batch_size:
            return self._run(feeds, outputs)  # it fills a batch by itself
        form = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(feeds.items()))
        item = _Waiting(feeds, outputs, rows, deadline, (form, tuple(outputs)))
        with self._lock:
            if not self._running and not self._queue:
                self._running = True
                if self._parameters.batch_timeout_micros:
                    self._let_join(item)
                else:
                    item.batch = [item]
            else:
                self._enqueue(item)
        if item.batch is None:
            self._wait(item)
        if item.batch is not None:
            self._lead(item.batch)
        if (call := calls.current()) is not None:
            call.started = item.started
        if item.error is not None:
            raise item.error
        assert item.answer is not None  # noqa: S101 - whoever leads a batch sets one of the two
        return item.answer

    def _let_join(self, item: _Waiting) -> None:
        """Give more rows the configured time to arrive. Called with the lock held, which the waiting gives up."""
        room = self._parameters.max_batch_size - item.rows
        self._arrived.wait_for(lambda: self._queued_rows >= room, self._parameters.batch_timeout_micros / 1e6)
        item.batch = self._take(item)

    def _enqueue(self, item: _Waiting) -> None:
        """Put at the end of the queue. Called with the lock held."""
        item.wake.acquire()  # released by whoever answers the request or makes it a leader
        self._queue.append(item)
        self._queued_rows += item.rows
        self._arrived.notify_all()

    def _wait(self, item: _Waiting) -> None:
        """Wait until somebody has answered the request or made it the leader of a batch."""
        left = item.deadline - self._clock()
        if item.wake.acquire(timeout=max(0.0, min(left, threading.TIMEOUT_MAX))):
            return
        with self._lock:
            if item in self._queue:
                self._remove(item)
                raise _expired()
        item.wake.acquire()  # it was taken into a batch at the last moment: the answer is on its way

    def _take(self, first: _Waiting | None = None) -> list[_Waiting]:
        """Take what can be joined to the first request, or to the oldest that waits. Called with the lock held."""
        batch = [first] if first else []
        rows = first.rows if first else 0
        now = self._clock()
        for item in list(self._queue):
            if item.deadline <= now:
                self._remove(item)
                item.error = _expired()
                item.wake.release()
            elif not batch or (item.key == batch[0].key and rows + item.rows <= self._parameters.max_batch_size):
                self._remove(item)
                batch.append(item)
                rows += item.rows
        return batch

    def _remove(self, item: _Waiting) -> None:
        self._queue.remove(item)
        self._queued_rows -= item.rows

    def _lead(self, batch: Sequence[_Waiting]) -> None:
        """Run a batch, hand out the answers, and let the first of those that wait lead the next batch."""
        try:
            self._answer(batch)
        finally:
            with self._lock:
                following = self._take()
                if not following:
                    self._running = False
            for item in batch[1:]:
                if item.answer is None and item.error is None:
                    item.error = RunFailed("the batch that this request was in came to no end")
                item.wake.release()
            if following:
                following[0].batch = following
                following[0].wake.release()

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Run a batch; if that fails, each request by itself."""
        started = calls.now()
        for item in batch:
            item.started = started
        try:
            if len(batch) == 1:
                batch[0].answer = self._run(batch[0].feeds, batch[0].outputs)
            else:
                self._run_joined(batch)
        except SegueError as error:
            if len(batch) == 1:
                batch[0].error = error
            else:
                for item in batch:
                    self._answer([item])

    def _run_joined(self, batch: Sequence[_Waiting]) -> None:
        rows = sum(item.rows for item in batch)
        feeds = {name: np.concatenate([item.feeds[name] for item in batch]) for name in batch[0].feeds}
        answers = self._run(feeds, batch[0].outputs)
        if any(answer.shape[:1] != (rows,) for answer in answers):
            raise RunFailed(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors"
            )
        start = 0
        for item in batch:
            item.answer = [answer[start : start + item.rows] for answer in answers]
            start += item.rows


def _expired() -> ExpiredInQueue:
    return ExpiredInQueue("Run() timeout exceeded while waiting in batching queue")
