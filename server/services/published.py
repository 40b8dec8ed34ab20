"""Published services, such as health and reflection, under the same rule as ours: bytes that do not parse are refused.

By itself grpcio answers them with INTERNAL and writes a trace to the log for each.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from server.errors import MalformedRequest
from server.services.edge import status_code

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for type checkers only


class OpenStreams:
    """The streams of published services that are open: they end when their clients wish, or when `end` is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[grpc.ServicerContext] = set()

    def on(self, server: grpc.Server) -> "Registrar":
        """Where a published service registers its methods."""
        return Registrar(server, self)

    def add(self, context: grpc.ServicerContext) -> None:
        """A stream begins."""
        with self._lock:
            self._open.add(context)
        if not context.add_callback(lambda: self._remove(context)):
            self._remove(context)

    def end(self) -> None:
        """End those that are open; their clients see CANCELLED."""
        with self._lock:
            contexts = list(self._open)
        for context in contexts:
            context.cancel()

    def _remove(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._open.discard(context)


class Registrar:
    """Stands in for a server where a published service registers its methods."""

    def __init__(self, server: grpc.Server, streams: OpenStreams) -> None:
        self._server = server
        self._streams = streams

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignored: what is registered here comes by method as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Register the methods so that they refuse what does not parse."""
        guarded = {name: _guarded(service, handler, self._streams) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def _guarded(service: str, handler: Handler, streams: OpenStreams) -> Handler:
    parse, write = handler.request_deserializer, handler.response_serializer
    assert parse is not None  # noqa: S101 - generated code always has one

    def read(data: bytes) -> object:
        try:
            return parse(data)
        except DecodeError:
            return MalformedRequest("the bytes do not parse", f"message of {service}")

    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(_checked_stream(handler.stream_stream, streams), read, write)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(_checked(handler.unary_stream, streams), read, write)
    assert handler.unary_unary is not None  # noqa: S101 - neither service has a method of the fourth kind
    return grpc.unary_unary_rpc_method_handler(_checked(handler.unary_unary), read, write)


def _checked(method: Callable[..., Any], streams: OpenStreams | None = None) -> Callable[..., Any]:
    def answer(request: object, context: grpc.ServicerContext, *callback: Any) -> Any:  # noqa: ANN401 - grpcio's own
        _refuse_malformed(request, context)
        if streams is not None:
            streams.add(context)
        return method(request, context, *callback)

    # How grpcio shall call a method that streams is written on the method.
    for name in ("experimental_non_blocking", "experimental_thread_pool"):
        if hasattr(method, name):
            setattr(answer, name, getattr(method, name))
    return answer


def _checked_stream(method: Callable[..., Any], streams: OpenStreams) -> Callable[..., Any]:
    def answer(requests: Iterator[object], context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - grpcio's own
        def good() -> Iterator[object]:
            for request in requests:
                _refuse_malformed(request, context)
                yield request

        streams.add(context)
        return method(good(), context)

    return answer


def _refuse_malformed(request: object, context: grpc.ServicerContext) -> None:
    if isinstance(request, MalformedRequest):
        context.abort(status_code(request), request.message)
