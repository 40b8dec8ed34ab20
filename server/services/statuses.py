"""What errors are on the wire, and what every method does first: parse its request, and find the version that it names.

Status codes are decided here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from server import calls
from server.errors import (
    BackendError,
    CancelledInQueue,
    InvalidRequest,
    LabelPending,
    LabelUnavailable,
    MalformedRequest,
    MalformedResponse,
    MethodUnsupported,
    ModelNotFound,
    ModelsUnavailable,
    OutOfMemory,
    Overloaded,
    PackageError,
    QueueFull,
    ReloadOverdue,
    ReloadSuperseded,
    SegueError,
    SignatureNotFound,
    StatusNotFound,
    UnknownService,
    WrongRows,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Servable
from server.wire.merging import Inner, parse_in_parts
from server.wire.requests import ModelSpec, peek_model_name
from server.wire.scanner import Allowance, WireError

Code = grpc.StatusCode

T = TypeVar("T", bound=Message)

# The nearest class in an error's ancestry decides.
STATUS_CODES: Mapping[type[SegueError], grpc.StatusCode] = {
    InvalidRequest: Code.INVALID_ARGUMENT,
    MalformedResponse: Code.INTERNAL,
    Overloaded: Code.RESOURCE_EXHAUSTED,
    CancelledInQueue: Code.CANCELLED,
    QueueFull: Code.UNAVAILABLE,
    ModelNotFound: Code.NOT_FOUND,
    StatusNotFound: Code.NOT_FOUND,
    UnknownService: Code.NOT_FOUND,
    LabelPending: Code.UNAVAILABLE,
    LabelUnavailable: Code.FAILED_PRECONDITION,
    ModelsUnavailable: Code.UNKNOWN,
    ReloadOverdue: Code.DEADLINE_EXCEEDED,
    ReloadSuperseded: Code.ABORTED,
    SignatureNotFound: Code.FAILED_PRECONDITION,
    MethodUnsupported: Code.UNIMPLEMENTED,
    OutOfMemory: Code.RESOURCE_EXHAUSTED,
    WrongRows: Code.FAILED_PRECONDITION,
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


def parse(kind: type[T], data: bytes, inner: Inner | None = None, allowance: Allowance | None = None) -> T:
    """Parse a request that is not on the hot path.

    Args:
        kind: What it is.
        data: Its bytes.
        inner: Where a large one may be cut: see `parse_in_parts`.
        allowance: What its fields are taken from, if it is cut.

    Raises:
        MalformedRequest: the bytes are not such a message.
    """
    try:
        return parse_in_parts(kind, data, inner or {}, allowance)
    except DecodeError as error:
        raise MalformedRequest("the bytes do not parse", kind.DESCRIPTOR.full_name) from error
    except WireError as error:
        raise MalformedRequest(str(error), kind.DESCRIPTOR.full_name) from error


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
    servable = models.acquire(spec.name, spec.version, spec.label)
    if (call := calls.current()) is not None:
        call.answered_by(servable.name, servable.version)
    return servable


def peek_loaded_model(models: ModelManager, data: bytes, depths: Sequence[int] = (0,)) -> str:
    """The name of the model that a request is for, if it is loaded and easily found; else "".

    Args:
        models: Those that are loaded.
        data: The request.
        depths: Where its ModelSpec may be: see `peek_model_name`.
    """
    return next((name for depth in depths if models.has(name := peek_model_name(data, depth))), "")
