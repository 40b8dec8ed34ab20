"""A request that is larger than a batch: its pieces, each of which waits like a request, and how the whole ends.

Knows nothing of other requests, nor when a piece may run: that is the queue's business. Everything but `told` is used
under the queue's lock, until nothing of the request is left there.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue

import numpy as np

from server import calls
from server.arrays import Array
from server.batching.waiting import Waiting
from server.errors import CancelledInQueue, SegueError


class Piece(Waiting):
    """Some of a request's rows. It has no thread of its own: what becomes of it is told to the whole."""

    __slots__ = ("_whole", "begin")

    def __init__(self, whole: "Whole", feeds: Mapping[str, Array], begin: int) -> None:
        """Make a piece; `begin` is the index of its first row."""
        rows = next(iter(feeds.values())).shape[0]
        super().__init__(feeds, whole.outputs, rows, whole.deadline, whole.cancelled, whole.key, whole.since)
        self.begin = begin
        self._whole = whole

    def tell(self) -> None:
        """Let the threads that work for the request know that the piece has a place, or its end."""
        self._whole.told.put(self)

    def gone(self, now: float) -> SegueError | None:
        """Also if another piece has failed: nobody wants the rest then."""
        if self._whole.failed:
            return CancelledInQueue("another piece of the request has failed")
        return super().gone(now)


class Whole:
    """One request in pieces."""

    def __init__(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        deadline: float,
        cancelled: Callable[[], bool],
        *,
        size: int,
        key: Hashable,
        since: float,
    ) -> None:
        """Cut a request up.

        Args:
            feeds: Arrays by ONNX name, all with the same first dimension, which is larger than `size`.
            outputs: See Batcher.submit.
            deadline: See Batcher.submit.
            cancelled: See Batcher.submit.
            size: Rows of a piece; the last one has what is left.
            key: See Waiting.
            since: When the request came, by the queue's clock.
        """
        self.outputs = outputs
        self.deadline = deadline
        self.cancelled = cancelled
        self.key = key
        self.since = since
        self.told: SimpleQueue[Piece | None] = SimpleQueue()
        """Pieces that have got a place or have ended, for the request's threads; None when none is left."""
        self.started = 0.0
        """When the first piece was run; see `calls.now`."""
        self.ran: calls.Run | None = None
        """What has answered one of the pieces."""
        self._feeds = feeds
        self._size = size
        self._rows: int = next(iter(feeds.values())).shape[0]
        self._begin = 0
        self._open: set[Piece] = set()
        self._answers: dict[int, list[Array]] = {}
        self._error: Exception | None = None
        self.failed = False

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return -(-self._rows // self._size)

    def more(self, count: int) -> list[Piece]:
        """The next pieces, so many at most; none of a request that has failed."""
        made: list[Piece] = []
        while len(made) < count and self._begin < self._rows and not self.failed:
            rows = slice(self._begin, self._begin + self._size)
            made.append(Piece(self, {name: array[rows] for name, array in self._feeds.items()}, self._begin))
            self._begin += self._size
        self._open.update(made)
        return made

    def queued(self) -> list[Piece]:
        """The pieces that are in the queue."""
        return [piece for piece in self._open if piece.queued]

    def is_under_way(self) -> bool:
        """True if no piece waits any more, nor is still to come."""
        return self._begin >= self._rows and not self.queued()

    def fail(self, error: Exception) -> None:
        """Note why the request fails, if it has not failed before."""
        if not self.failed:
            self.failed = True
            self._error = error

    def let_go(self, pieces: Sequence[Piece]) -> None:
        """Have nothing more to do with pieces that have ended; tell the threads when no other is left."""
        for piece in pieces:
            self._open.discard(piece)
        if not self._open and (self.failed or self._begin >= self._rows):
            self.told.put(None)

    def keep(self, piece: Piece) -> None:
        """Keep the answer of a piece, or its error."""
        outcome = piece.outcome()
        if isinstance(outcome, SegueError):
            self.fail(outcome)
        else:
            self._answers[piece.begin] = outcome
        self.started = min(self.started or piece.started, piece.started or self.started)
        self.ran = piece.ran or self.ran

    def result(self) -> list[Array]:
        """The answer, once, when nothing of the request is left.

        Raises:
            SegueError: A piece failed; the answers of the others are dropped.
        """
        error, self._error = self._error, None  # as in Waiting.result: its traceback will refer to the request
        if error is not None:
            try:
                raise error
            finally:
                del error
        parts = [self._answers[begin] for begin in sorted(self._answers)]
        return [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]


@contextmanager
def helped(work: Callable[[], None], count: int) -> Iterator[None]:
    """Have threads do the same as the block does, so that as many pieces run at once as may; wait for them at the end.

    Args:
        work: What they do.
        count: How many; fewer if there can be no more.
    """
    helpers: list[threading.Thread] = []
    call = calls.current()

    def help_out() -> None:
        if call is not None:
            calls.begin(call.method, call.source)  # two threads must not write into one call
        work()

    with suppress(RuntimeError):
        while len(helpers) < count:
            helper = threading.Thread(target=help_out, name="pieces", daemon=True)
            helper.start()
            helpers.append(helper)
    try:
        yield
    finally:
        for helper in helpers:
            helper.join()
