"""One request and its one answer: what happens between a message and its status, and who is told of it."""

import logging
from collections.abc import Callable, Sequence

import grpc

from server import calls
from server.admission import Budget
from server.calls import Watcher
from server.errors import QueueFull, SegueError, TooLate
from server.metrics import Metrics
from server.services.statuses import Code, status_code, status_text
from server.services.transport import Metadata, Rpc

logger = logging.getLogger(__name__)

ErrorReply = Callable[[grpc.StatusCode, str], bytes]
"""Makes the message that goes with a status that is not OK, for methods whose message tells the status too."""

# Smaller answers that a client does not take are bounded by its streams.
_LARGE_REPLY = 1 << 14

# A client that retries at once would only lengthen a queue that is full; gRPC's own clients heed this.
_DO_NOT_RETRY: Metadata = (("grpc-retry-pushback-ms", "-1"),)


class Exchange:
    """Ends a request well or with an error, once."""

    __slots__ = ("_budget", "_error_reply", "_metrics", "_name", "_size", "_watchers", "call", "lane", "rpc")

    def __init__(
        self,
        name: str,
        full_name: str,
        rpc: Rpc,
        size: int,
        *,
        metrics: Metrics,
        budget: Budget,
        watchers: Sequence[Watcher] = (),
        error_reply: ErrorReply | None = None,
    ) -> None:
        """Begin an exchange, now that the message is there; its call is this thread's current one.

        Args:
            name: The method's, for metrics.
            full_name: With its service.
            rpc: What to answer.
            size: Bytes of the message.
            metrics: Counts how it ends.
            budget: Holds the answer's bytes until the client has taken them.
            watchers: Are told of it.
            error_reply: Makes the message that goes with an error.
        """
        self.rpc = rpc
        self.call = calls.begin(full_name, rpc)
        self.lane = ""
        """The loaded model whose turn it takes; known before anybody has looked for the version."""
        self._name = name
        self._size = size
        self._metrics = metrics
        self._budget = budget
        self._watchers = watchers
        self._error_reply = error_reply
        for watcher in watchers:
            watcher.begin(self.call)

    def reply(self, message: bytes) -> None:
        """End well."""
        size = len(message)
        if size < _LARGE_REPLY:
            self.rpc.reply(message)
        else:
            self._budget.hold(size)
            self.rpc.reply(message, lambda: self._budget.give_back(size))
        for watcher in self._watchers:
            watcher.end(self.call, self._size, len(message))

    def fail(self, error: Exception) -> None:
        """End with an error's status; the outermost guard, so that a client gets an id, never a trace."""
        if isinstance(error, SegueError):
            code, text = status_code(error), status_text(error.message)
        elif isinstance(error, MemoryError):
            code, text = Code.RESOURCE_EXHAUSTED, "the server has not the memory for this request now"
        else:
            code, text = Code.INTERNAL, self._log_unexpected(error)
        self.call.code = code.name
        self._metrics.failed(self._name, self.call.model or self.lane, code.name, error)
        message = self._error_reply(code, text) if self._error_reply else b""
        self.rpc.end(code, text, message, _DO_NOT_RETRY if isinstance(error, QueueFull) else None)
        for watcher in self._watchers:
            watcher.end(self.call, self._size, len(message))

    def _log_unexpected(self, error: Exception) -> str:
        reference = self.call.request_id
        logger.error("%s failed unexpectedly, reference %s", self._name, reference, exc_info=error)
        return f"internal error, reference {reference}: see the server's log"


class Errand:
    """An exchange on its way through the workers: an admission.Work."""

    __slots__ = ("_answer", "_exchange", "_let_go", "deadline")

    def __init__(self, exchange: Exchange, answer: Callable[[], bytes], let_go: Callable[[], None]) -> None:
        """Begin to wait.

        Args:
            exchange: Is ended when this is run or refused.
            answer: What a worker is to do.
            let_go: Is called at the end, once, whatever happens.
        """
        self._exchange = exchange
        self._answer = answer
        self._let_go = let_go
        self.deadline = exchange.rpc.deadline
        exchange.call.queued = calls.now()

    @property
    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._exchange.rpc.cancelled

    def run(self) -> bool:
        """Answer, and let go of what the request holds; see admission.Work."""
        exchange = self._exchange
        calls.enter(exchange.call)
        exchange.call.taken = calls.now()
        try:
            message = self._answer()
        except Exception as error:  # noqa: BLE001 - the outermost guard: see Exchange.fail
            exchange.fail(error)
            return not isinstance(error, TooLate)
        else:
            exchange.reply(message)
            return True
        finally:
            self._let_go()
            calls.leave()

    def refuse(self, error: SegueError) -> None:
        """Answer that it will not be run."""
        calls.enter(self._exchange.call)
        try:
            self._exchange.fail(error)
        finally:
            self._let_go()
            calls.leave()
