"""The page that Prometheus reads, over HTTP. It knows nothing of what is on it."""

import socket
import socketserver
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Prometheus' text format, which every version of it reads; OpenMetrics has no counters without "_total".
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# For each piece that a client sends or takes.
_IDLE_SECONDS = 10.0
MOST_CONNECTIONS = 16
"""Each has a thread; Prometheus needs one."""
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Http(ThreadingHTTPServer):
    request_queue_size = MOST_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], family: socket.AddressFamily, handler: type[BaseHTTPRequestHandler]
    ) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # bytes for AF_UNIX

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in socketserver
        """Give the connection a thread, or refuse it if too many have one."""
        if not self._free.acquire(blocking=False):
            request.settimeout(0)  # the listening thread waits for no client
            with suppress(OSError):
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in socketserver
        """Answer, in the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def _handler(paths: Collection[str], page: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "segue"
        sys_version = ""
        timeout = _IDLE_SECONDS

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] in paths
            body = page() if found else b"not found\n"
            self.send_response(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", _CONTENT_TYPE if found else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
            """Say nothing: Prometheus asks every few seconds."""

    return Handler


def serve(host: str, port: int, paths: Collection[str], page: Callable[[], bytes]) -> tuple[int, Callable[[], None]]:
    """Answer GET for some paths in threads of its own; returns the port and a function that stops it.

    Args:
        host: Where to listen.
        port: 0 takes a free one.
        paths: Where the page is; everything else is not found.
        page: Makes the page, in Prometheus' text format.

    Raises:
        OSError: The address is taken, or is none.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    http = _Http((str(address[0]), port), family, _handler(paths, page))
    thread = threading.Thread(target=http.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        http.shutdown()
        http.server_close()
        thread.join()

    return http.server_port, stop
