"""grpc.health.v1.Health: what load balancers, probes and gRPC's own clients ask, answered whatever else there is to do.

The published servicer is not used because it needs a thread for each stream that watches, and keeps every name that
anyone has ever asked for.
"""

import threading
from collections.abc import Callable, Iterable

from grpc_health.v1 import health_pb2

from server.errors import SegueError, TooManyWatchers, UnknownService
from server.services.statuses import Code, parse
from server.services.transport import Rpc

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVING: int = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The statuses of one server's services."""

    def __init__(self, services: Iterable[str], most_watchers: int) -> None:
        """Make it, NOT_SERVING.

        Args:
            services: Names that have a status; the empty one, which stands for the server, always has.
            most_watchers: Streams that may watch at once. Each connection of a client with gRPC's health check has one.
        """
        self._most_watchers = most_watchers
        self._services = frozenset({"", *services})
        self._status: int = _NOT_SERVING
        self._draining = False
        self._finished = False
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()

    def set_serving(self, *, serving: bool) -> None:
        """Change the status of all services, and tell whoever watches."""
        with self._lock:
            status = _SERVING if serving and not self._draining else _NOT_SERVING
            if status == self._status:
                return
            self._status = status
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.tell()

    def drain(self) -> None:
        """Be NOT_SERVING for good."""
        self._draining = True
        self.set_serving(serving=False)

    def finish(self) -> None:
        """End the streams that watch, and those that come."""
        with self._lock:
            self._finished = True
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.end()

    def check(self, data: bytes) -> bytes:
        """Answer a HealthCheckRequest.

        Raises:
            MalformedRequest: The bytes do not parse.
            UnknownService: It asks for a service that is not here.
        """
        request = parse(health_pb2.HealthCheckRequest, data)
        if request.service not in self._services:
            raise UnknownService(f"there is no service {request.service!r} here")
        return _message(self._status)

    def watch(self, rpc: Rpc, data: bytes, fail: Callable[[SegueError], None]) -> None:
        """Answer a HealthCheckRequest with each status from now on, the present one first."""
        try:
            request = parse(health_pb2.HealthCheckRequest, data)
            known = request.service in self._services
            with self._lock:
                if len(self._watchers) >= self._most_watchers:
                    raise TooManyWatchers(f"{self._most_watchers} streams watch already")
                watcher = _Watcher(rpc, self._current if known else _unknown)
                self._watchers.add(watcher)
        except SegueError as error:
            fail(error)
            return
        rpc.when_over(lambda: self._forget(watcher))
        watcher.tell()
        if self._finished:
            watcher.end()

    def _current(self) -> int:
        return self._status

    def _forget(self, watcher: "_Watcher") -> None:
        with self._lock:
            self._watchers.discard(watcher)


def _unknown() -> int:
    """What is told of a service that is not here, which may come to be: so says the protocol."""
    return _SERVICE_UNKNOWN


def _message(status: int) -> bytes:
    data: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return data


class _Watcher:
    """One stream. A message is sent when the one before has gone out, and then with the status of that moment."""

    def __init__(self, rpc: Rpc, status: Callable[[], int]) -> None:
        self._rpc = rpc
        self._status = status
        self._lock = threading.Lock()
        self._sending = False
        self._told: int | None = None

    def tell(self) -> None:
        """Send the status if it is news."""
        with self._lock:
            status = self._status()
            if self._sending or status == self._told:
                return
            self._sending, self._told = True, status
        self._rpc.send(_message(status), self._sent)

    def _sent(self) -> None:
        with self._lock:
            self._sending = False
        if not self._rpc.cancelled:
            self.tell()

    def end(self) -> None:
        """End the stream."""
        self._rpc.end(Code.UNAVAILABLE, "the server ends")
