"""Where errors become gRPC statuses, and methods become handlers. Status codes are decided here and nowhere else.

Methods take and return bytes: gRPC hands the request over as it came, so that its size is known and checked before any
of it becomes an object.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from server.errors import (
    BackendError,
    CancelledInQueue,
    ExpiredInQueue,
    InvalidRequest,
    LabelPending,
    LabelUnavailable,
    MalformedRequest,
    MalformedResponse,
    MethodUnsupported,
    ModelNotFound,
    ModelsUnavailable,
    OutOfMemory,
    PackageError,
    QueueFull,
    ReloadOverdue,
    ReloadSuperseded,
    SegueError,
    SignatureNotFound,
    StatusNotFound,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Servable
from server.metrics import Metrics
from server.wire.requests import ModelSpec

logger = logging.getLogger(__name__)

Code = grpc.StatusCode
Method = Callable[[bytes, grpc.ServicerContext], bytes]
ErrorReply = Callable[[grpc.StatusCode, str], bytes]
"""Makes the message that goes with a status that is not OK, for methods whose message tells the status too."""

T = TypeVar("T", bound=Message)

# The nearest class in an error's ancestry decides.
STATUS_CODES: Mapping[type[SegueError], grpc.StatusCode] = {
    InvalidRequest: Code.INVALID_ARGUMENT,
    MalformedResponse: Code.INTERNAL,
    ExpiredInQueue: Code.RESOURCE_EXHAUSTED,
    CancelledInQueue: Code.CANCELLED,
    QueueFull: Code.UNAVAILABLE,
    ModelNotFound: Code.NOT_FOUND,
    StatusNotFound: Code.NOT_FOUND,
    LabelPending: Code.UNAVAILABLE,
    LabelUnavailable: Code.FAILED_PRECONDITION,
    ModelsUnavailable: Code.UNKNOWN,
    ReloadOverdue: Code.DEADLINE_EXCEEDED,
    ReloadSuperseded: Code.ABORTED,
    SignatureNotFound: Code.FAILED_PRECONDITION,
    MethodUnsupported: Code.UNIMPLEMENTED,
    OutOfMemory: Code.RESOURCE_EXHAUSTED,
    BackendError: Code.INTERNAL,
    PackageError: Code.UNKNOWN,  # TensorFlow Serving reports a version that did not load with this code
}

# TensorFlow Serving's grpc_status_util.cc cuts messages here, since they travel as HTTP/2 headers.
_MAX_MESSAGE = 1024


def status_code(error: SegueError) -> grpc.StatusCode:
    """The gRPC code for an error of ours."""
    return next(STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES)


def status_text(message: str) -> str:
    """The message as it goes on the wire: cut as TensorFlow Serving cuts it, by bytes, but never within a character."""
    data = message.encode()
    if len(data) <= _MAX_MESSAGE:
        return message
    return data[:_MAX_MESSAGE].decode(errors="ignore") + "...TRUNCATED"


def parse(kind: type[T], data: bytes) -> T:
    """Parse a request that is not on the hot path.

    Raises:
        MalformedRequest: the bytes are not such a message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedRequest("the bytes do not parse", kind.DESCRIPTOR.full_name) from error


def deadline(context: grpc.ServicerContext) -> float:
    """When the client stops waiting, by time.monotonic(); infinity if it never does."""
    left = context.time_remaining()
    return float("inf") if left is None else time.monotonic() + left


def cancelled(context: grpc.ServicerContext) -> Callable[[], bool]:
    """Tells whether the client has gone away."""
    return lambda: not context.is_active()


def acquire(models: ModelManager, spec: ModelSpec | None) -> Servable:
    """The version that a request names, leased: call its `release` when done.

    Raises:
        InvalidRequest: The request names none; the texts are TensorFlow Serving's.
        NotServed: See ModelManager.acquire.
    """
    if spec is None:
        raise InvalidRequest("Missing ModelSpec")
    if not spec.name:
        raise InvalidRequest("ModelSpec has no name specified.")
    return models.acquire(spec.name, spec.version, spec.label)


class Edge:
    """Makes gRPC handlers from methods that raise our errors."""

    def __init__(self, metrics: Metrics, slots: int) -> None:
        """Make an edge.

        Args:
            metrics: Counts how requests end.
            slots: Requests in work at once. Others wait their turn, each in a thread of its own.
        """
        self._metrics = metrics
        self._slots = threading.BoundedSemaphore(slots)

    def handler(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, Method],
        error_replies: Mapping[str, ErrorReply] | None = None,
    ) -> grpc.GenericRpcHandler:
        """The handler of a service; methods that are not given answer UNIMPLEMENTED."""
        replies = error_replies or {}
        handlers = {
            service.methods_by_name[name].name: self._unary(name, method, replies.get(name, _no_message))
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _unary(self, name: str, method: Method, error_reply: ErrorReply) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                with self._slots:
                    return method(request, context)
            except SegueError as error:
                code, text = status_code(error), status_text(error.message)
            except MemoryError:
                code, text = Code.RESOURCE_EXHAUSTED, "the server has not the memory for this request now"
            except Exception as error:  # noqa: BLE001 - the outermost guard: a client gets an id, never a trace
                code, text = Code.INTERNAL, _log_unexpected(name, error)
            self._metrics.ended(name, "", code.name)
            context.set_code(code)
            context.set_details(text)
            return error_reply(code, text)

        return grpc.unary_unary_rpc_method_handler(answer)


def _no_message(_code: grpc.StatusCode, _text: str) -> bytes:
    return b""


def _log_unexpected(method: str, error: Exception) -> str:
    reference = secrets.token_hex(4)
    logger.error("%s failed unexpectedly, reference %s", method, reference, exc_info=error)
    return f"internal error, reference {reference}: see the server's log"
