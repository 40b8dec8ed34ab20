"""One request of a queue: what it asks for, how long it may wait, and how it ends. Knows nothing of other requests."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from server import calls
from server.arrays import Array
from server.errors import CancelledInQueue, ExpiredInQueue, SegueError


@dataclass(slots=True, eq=False)
class Waiting:
    """One request. Whoever runs it calls `succeed` or `fail`, then `tell`, unless that is its own thread."""

    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    rows: int
    deadline: float
    cancelled: Callable[[], bool]
    key: Hashable
    """Equal for requests that may be joined."""
    since: float
    wake: threading.Lock = field(default_factory=threading.Lock)
    queued: bool = False
    started: float = 0.0
    ran: calls.Run | None = None
    done: bool = False
    """Whether it has an answer or an error; stays True when its thread has taken that."""
    _answer: list[Array] | None = None
    _error: SegueError | None = None

    def succeed(self, answer: list[Array]) -> None:
        """Keep the answer for the request's thread."""
        self._answer = answer
        self.done = True

    def fail(self, error: SegueError) -> None:
        """Keep the error for the request's thread."""
        self._error = error
        self.done = True

    def tell(self) -> None:
        """Let the request's thread know that it need not wait any more."""
        self.wake.release()

    def outcome(self) -> list[Array] | SegueError:
        """The answer or the error, once, when the request is done.

        An error's traceback refers to this request: were the request to go on referring to the error, both would keep
        the request's arrays until the cyclic collector runs.
        """
        error, self._error = self._error, None
        if error is not None:
            return error
        assert self._answer is not None  # noqa: S101 - whoever runs a batch sets one of the two
        return self._answer

    def result(self) -> list[Array]:
        """The answer, once, when the request is done.

        Raises:
            SegueError: It failed.
        """
        outcome = self.outcome()
        try:
            if isinstance(outcome, SegueError):
                raise outcome
            return outcome
        finally:
            del outcome  # an error's traceback refers to this frame

    def gone(self, now: float) -> SegueError | None:
        """Why the request need not be run any more, if so."""
        if self.deadline <= now:
            return expired()
        if self.cancelled():
            return CancelledInQueue("the client cancelled the call while it waited in the batching queue")
        return None


def expired() -> ExpiredInQueue:
    """The error of a request whose deadline passed while it waited, with TensorFlow Serving's text."""
    return ExpiredInQueue("Run() timeout exceeded while waiting in batching queue")
