"""A gRPC server on grpcio's own core, whose one polling thread may answer calls itself.

grpcio's synchronous server hands each call from its polling thread to a pool and wakes that thread twice; its asyncio
server wakes the loop from a thread of its own. Here the thread that takes a message off gRPC's completion queue decides
what becomes of it: what takes microseconds is answered on the spot, what takes longer goes to a worker
(docs/decisions/0004). grpcio's own Python server is a client of the same core; the versions of grpcio that this was
tried with are in pyproject.toml.

What lives here is calls and bytes. Which methods there are, and what their statuses mean, is for `edge`.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc

logger = logging.getLogger(__name__)

Options = Sequence[tuple[str, int | str]]
Metadata = Sequence[tuple[str, str | bytes]]

_TIMEOUT = cygrpc.CompletionType.queue_timeout
_NO_FLAGS = 0
_OK = 0
# A call without a deadline has one in the far future, in seconds since 1970.
_NEVER = 1e15
# Calls that gRPC may match with a request for one before the polling thread comes back for more.
_REQUESTED = 8
# How often the polling thread looks whether its deputy was told of the end.
_LOOK_SECONDS = 1.0
# Cancelled calls have this long to end.
_LAST_SECONDS = 1.0
# A polling thread that is away for longer than this is stood in for.
_PATIENCE_SECONDS = 0.02

# The tag under which the core tells that the last call has ended after `stop`.
_SHUTDOWN = object()


def _headers() -> Any:  # noqa: ANN401 - the core's operations have no types
    """The answer's headers. An operation holds memory of the batch that it is in, so each batch has its own."""
    return cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)


def _nothing(_event: Any) -> None:  # noqa: ANN401 - the core's events have no types
    """What a batch asks for that nobody waits for."""


class Rpc:
    """One RPC, from its headers to its status. Any thread may use it."""

    __slots__ = (
        "_call",
        "_ended",
        "_headers_sent",
        "_is_over",
        "_on_end",
        "_queue",
        "_wall_deadline",
        "cancelled",
        "metadata",
        "method",
    )

    def __init__(self, event: Any, queue: Any) -> None:  # noqa: ANN401 - the core's events have no types
        details = event.call_details
        self.method: bytes = details.method
        """The full name, as in b"/tensorflow.serving.PredictionService/Predict"."""
        self.metadata: Metadata = event.invocation_metadata
        self.cancelled = False
        """The client is not there any more, or has given up."""
        self._wall_deadline: float = details.deadline
        self._call = event.call
        self._queue = queue  # it must outlive every call that may still be answered
        self._ended = False
        self._headers_sent = False
        self._is_over = False
        self._on_end: Callable[[], None] | None = None

    @property
    def deadline(self) -> float:
        """When the client stops waiting, by time.monotonic(); infinity if it never does."""
        if self._wall_deadline > _NEVER:
            return math.inf
        return time.monotonic() + self._wall_deadline - time.time()

    def is_cancelled(self) -> bool:
        """Whether the client is not there any more, or has given up."""
        return self.cancelled

    def invocation_metadata(self) -> Metadata:
        """Keys and values, as the client sent them."""
        return self.metadata

    def peer(self) -> str:
        """The client's address in gRPC's notation, as in "ipv4:127.0.0.1:50000"."""
        address: bytes = self._call.peer()
        return address.decode()

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Take the client's next message; `then` gets it in the polling thread, or None if there is none."""

        def taken(event: Any) -> None:  # noqa: ANN401 - the core's events have no types
            self.guard(lambda: then(event.batch_operations[0].message()))

        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), taken)

    def guard(self, step: Callable[[], None]) -> None:
        """Do a step of the call; one that fails ends it, so that no client waits for what will not come."""
        try:
            step()
        except Exception:
            logger.exception("a call could not be handled")
            self.end(grpc.StatusCode.INTERNAL, "internal error: see the server's log")

    def reply(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Answer with one message and end well; nothing is sent if the client has gone.

        Args:
            message: The answer.
            sent: Is called once when the message takes no more memory: in the polling thread when the client has taken
                it or has gone, or at once.
        """
        if self._ended or self.cancelled:
            if sent is not None:
                sent()
            return
        self._ended = True
        operations = (
            _headers(),
            cygrpc.SendMessageOperation(message, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(None, _OK, b"", _NO_FLAGS),
        )
        self._call.start_server_batch(operations, _nothing if sent is None else lambda _event: sent())

    def send(self, message: bytes, then: Callable[[], None]) -> None:
        """Send one message of several; `then` is called in the polling thread when the next may follow."""
        if self._ended or self.cancelled:
            return
        operations = [] if self._headers_sent else [_headers()]
        self._headers_sent = True

        def sent(_event: Any) -> None:  # noqa: ANN401 - the core's events have no types
            then()

        self._call.start_server_batch((*operations, cygrpc.SendMessageOperation(message, _NO_FLAGS)), sent)

    def end(
        self, code: grpc.StatusCode, text: str = "", message: bytes = b"", trailing: Metadata | None = None
    ) -> None:
        """End with a status, after a last message if there is one; later ends and replies of one call do nothing."""
        if self._ended or self.cancelled:
            return
        self._ended = True
        number: int = code.value[0]
        operations = [] if self._headers_sent else [_headers()]
        if message:
            operations.append(cygrpc.SendMessageOperation(message, _NO_FLAGS))
        operations.append(cygrpc.SendStatusFromServerOperation(trailing, number, text.encode(), _NO_FLAGS))
        self._call.start_server_batch(operations, _nothing)

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called when the call is over, however it ends: in the polling thread, or at once if it is."""
        self._on_end = then
        if self._is_over:
            then()

    def watch(self) -> None:
        """Learn when the call is over. For RpcServer."""
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._over)

    def _over(self, event: Any) -> None:  # noqa: ANN401 - the core's events have no types
        self.cancelled = event.batch_operations[0].cancelled()
        self._is_over = True
        if self._on_end is not None:
            self._on_end()


def _unanswered(call: Rpc) -> None:
    call.end(grpc.StatusCode.UNIMPLEMENTED, "nothing is served here")


class RpcServer:
    """Listens, and gives each call to one function."""

    def __init__(self, options: Options = ()) -> None:
        """Make a server; `start` begins to answer.

        Args:
            options: gRPC's channel arguments by name; of two of one name gRPC takes the first.
        """
        self._begin: Callable[[Rpc], None] = _unanswered
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(options), False)  # noqa: FBT003 - xds, by position in the core
        self._server.register_completion_queue(self._queue)
        self._ended = threading.Event()
        self._stopping = False
        self._started = False
        self._lock = threading.Lock()
        self._turns = 0
        self._away_since = 0.0
        self._dozing = False
        self._rouse = threading.Event()
        self._deputy = threading.Thread(target=self._stand_by, name="grpc-deputy", daemon=True)

    def begin_calls_with(self, begin: Callable[[Rpc], None]) -> None:
        """Have `begin` called in the polling thread with each call.

        It must not block, and has to end the call sooner or later.
        """
        self._begin = begin

    def add_insecure_port(self, address: str) -> int:
        """Listen on an address; returns the port.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        return self._bound(self._server.add_http2_port(address.encode()), address)

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on an address with TLS; returns the port.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        core: Any = credentials
        port = self._server.add_http2_port(address.encode(), core._credentials)  # noqa: SLF001 - as grpcio's own server
        return self._bound(port, address)

    def start(self) -> None:
        """Take calls from now on."""
        self._server.start()
        self._started = True
        for _ in range(_REQUESTED):
            self._server.request_call(self._queue, self._queue, None)
        threading.Thread(target=self._poll, name="grpc", daemon=True).start()
        self._deputy.start()

    def may_answer_here(self) -> bool:
        """Whether the thread that asks may run something short: the polling one may, its deputy must not."""
        return threading.current_thread() is not self._deputy

    def stop(self, grace: float | None, hurry: threading.Event | None = None) -> None:
        """Take no more calls, and return when those that are open have ended.

        Args:
            grace: Seconds that they have; then, or at once if None, they are cancelled. One that still computes is
                not waited for any longer.
            hurry: Ends the grace at once when it is set.
        """
        if not self._started:
            return
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._server.shutdown(self._queue, _SHUTDOWN)
        until = time.monotonic() + (grace or 0)
        while time.monotonic() < until and not (hurry is not None and hurry.is_set()):
            if self._ended.wait(min(_PATIENCE_SECONDS, max(0.0, until - time.monotonic()))):
                return
        self._server.cancel_all_calls()
        self._ended.wait(_LAST_SECONDS)

    @staticmethod
    def _bound(port: int, address: str) -> int:
        if port == 0:
            raise RuntimeError(f"cannot bind {address}")
        return port

    def _poll(self) -> None:
        while not self._ended.is_set():
            try:
                # The event must be gone before the next is waited for: it keeps its call alive.
                self._handle(self._queue.poll(time.time() + _LOOK_SECONDS))
            except Exception:
                logger.exception("an event could not be taken")  # as when there is no memory for its message
            self._turns += 1
            self._away_since = 0.0
        # What the last calls still have to tell. The queue itself ends when nothing refers to it any more.
        while self._queue.poll(time.time() + _PATIENCE_SECONDS).completion_type != _TIMEOUT:
            pass

    def _stand_by(self) -> None:
        """Poll whenever the polling thread has been away for long, until it is back."""
        seen = -1
        while not self._ended.wait(_PATIENCE_SECONDS):
            turn, since = self._turns, self._away_since
            if not since:
                if turn == seen:
                    self._doze()
                seen = turn
            elif time.monotonic() - since > _PATIENCE_SECONDS:
                while turn == self._turns and not self._ended.is_set():
                    self._handle(self._queue.poll(time.time() + _PATIENCE_SECONDS), is_deputy=True)

    def _doze(self) -> None:
        """Wait until something is taken: fifty looks a second would take processors from what is computed meanwhile."""
        self._dozing = True
        if not self._away_since:  # looked at after it was said, as the polling thread does it the other way round
            self._rouse.wait()
        self._dozing = False
        self._rouse.clear()

    def _handle(self, event: Any, *, is_deputy: bool = False) -> None:  # noqa: ANN401 - the core's events have no types
        if event.completion_type == _TIMEOUT:
            return
        if not is_deputy:
            self._away_since = time.monotonic()
            if self._dozing:
                self._rouse.set()
        try:
            if event.tag is None:
                self._take(event)
            elif event.tag is _SHUTDOWN:
                self._ended.set()
            else:
                event.tag(event)
        except Exception:
            logger.exception("a call could not be handled")

    def _take(self, event: Any) -> None:  # noqa: ANN401 - the core's events have no types
        if not event.success or not event.call_details.method:
            return  # the server stops
        with self._lock:
            if not self._stopping:
                self._server.request_call(self._queue, self._queue, None)
        call = Rpc(event, self._queue)
        call.watch()
        call.guard(lambda: self._begin(call))
