"""The page that Prometheus reads, over HTTP. It knows nothing of what is on it."""

import socket
import socketserver
import threading
from collections.abc import Callable, Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Prometheus' text format, which every version of it reads; OpenMetrics has no counters without "_total".
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_IDLE_SECONDS = 10.0


class _Http(ThreadingHTTPServer):
    def __init__(
        self, address: tuple[str, int], family: socket.AddressFamily, handler: type[BaseHTTPRequestHandler]
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # bytes for AF_UNIX


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

    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    http = _Http((str(address[0]), port), family, Handler)
    thread = threading.Thread(target=http.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        http.shutdown()
        http.server_close()
        thread.join()

    return http.server_port, stop
