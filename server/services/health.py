"""grpc.health.v1.Health: whether this server and its services take requests.

grpcio ships a servicer of its own, which is not used: it sends to a watcher while it holds the lock that it also takes
when a watcher leaves. The thread that would end the sending is the one that waits for that lock, so two clients, one
that comes and one that goes, can stop the whole server for good; tests/e2e/test_health.py shows that they do not here.
It also keeps a set for every name that anyone ever watched. Here nothing is sent under a lock, and watchers have a
bound.
"""

import threading
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

MAX_WATCHERS = 256
"""Watches that may be open: grpcio may need a thread for each while it sends to them."""

Status = health_pb2.HealthCheckResponse
_Send = Callable[[health_pb2.HealthCheckResponse], None]


class _Watcher:
    """One open Watch. All but `name` and `send` changes under the servicer's lock."""

    def __init__(self, name: str, send: _Send) -> None:
        self.name = name
        self.send = send
        self.told: int | None = None
        self.is_telling = False


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpcio ships no types for it
    """The statuses, and who watches them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._watchers: set[_Watcher] = set()
        self._ended = False

    def set(self, service: str, status: int) -> None:
        """Set the status of a service; "" is the server. After `enter_graceful_shutdown` nothing changes any more."""
        with self._lock:
            if self._ended:
                return
            self._statuses[service] = status
            watchers = [watcher for watcher in self._watchers if watcher.name == service]
        for watcher in watchers:
            # A client that does not read must not hold up the others, nor whoever sets the status.
            threading.Thread(target=self._tell, args=(watcher,), name="health", daemon=True).start()

    def enter_graceful_shutdown(self) -> None:
        """Set everything to NOT_SERVING for good."""
        for service in list(self._statuses):
            self.set(service, Status.NOT_SERVING)
        with self._lock:
            self._ended = True

    def Check(  # noqa: N802 - the method's name in the protocol
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Tell the status now; NOT_FOUND for a name that is no service here."""
        with self._lock:
            status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return Status()
        return Status(status=status)

    def Watch(  # noqa: N802 - the method's name in the protocol
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: _Send,
    ) -> None:
        """Tell the status now and whenever it changes; SERVICE_UNKNOWN for a name that is no service here."""
        watcher = _Watcher(request.service, send_response_callback)
        with self._lock:
            has_room = len(self._watchers) < MAX_WATCHERS
            if has_room:
                self._watchers.add(watcher)
        if not has_room:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} clients watch already: use Check")
        if context.add_callback(lambda: self._leave(watcher)):
            self._tell(watcher)
        else:  # it has gone meanwhile
            self._leave(watcher)

    # grpcio then calls it with something to send with, and keeps no thread for it in between.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _leave(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _tell(self, watcher: _Watcher) -> None:
        """Send the status, and again if it has changed meanwhile: by one thread, so that the last word is right."""
        while True:
            with self._lock:
                status = self._statuses.get(watcher.name, Status.SERVICE_UNKNOWN)
                if watcher.is_telling or watcher.told == status or watcher not in self._watchers:
                    return
                watcher.is_telling, watcher.told = True, status
            try:
                watcher.send(Status(status=status))
            finally:
                with self._lock:
                    watcher.is_telling = False
