"""grpc.health.v1.Health: one status for all services of a server.

grpcio's own servicer keeps something for every service name that anybody ever watches. This one knows a fixed set.
"""

import threading
from collections.abc import Callable, Collection

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE_NAME: str = health.SERVICE_NAME
Status = health_pb2.HealthCheckResponse.ServingStatus
_Send = Callable[["health_pb2.HealthCheckResponse | None"], None]
"""Sends a message of a stream; None ends it."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated without types
    """Says NOT_SERVING until it is told otherwise."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(services)
        self._lock = threading.Lock()
        self._serving = False
        self._draining = False
        self._watching: set[_Send] = set()

    def set_serving(self) -> None:
        """Say SERVING, unless the end has begun."""
        with self._lock:
            self._serving = not self._draining
            self._tell()

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        with self._lock:
            self._draining, self._serving = True, False
            self._tell()

    def Check(  # noqa: N802 - the method's name in the protocol
        self, request: "health_pb2.HealthCheckRequest", context: grpc.ServicerContext
    ) -> "health_pb2.HealthCheckResponse":
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()
        return self._status()

    def Watch(  # noqa: N802 - the method's name in the protocol
        self, request: "health_pb2.HealthCheckRequest", context: grpc.ServicerContext, send_response_callback: _Send
    ) -> None:
        """The status now and whenever it changes; SERVICE_UNKNOWN for a service that is not here."""
        if request.service not in self._services:
            send_response_callback(health_pb2.HealthCheckResponse(status=Status.SERVICE_UNKNOWN))
            return  # and never anything else, while the stream stays open, as the protocol demands
        with self._lock:
            self._watching.add(send_response_callback)
            send_response_callback(self._status())
        if not context.add_callback(lambda: self._forget(send_response_callback)):
            self._forget(send_response_callback)  # it has ended already

    # grpcio then calls it with a function that sends, and no thread waits while the stream is open.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _status(self) -> "health_pb2.HealthCheckResponse":
        return health_pb2.HealthCheckResponse(status=Status.SERVING if self._serving else Status.NOT_SERVING)

    def _tell(self) -> None:
        for send in self._watching:
            send(self._status())

    def _forget(self, send: _Send) -> None:
        with self._lock:
            self._watching.discard(send)
