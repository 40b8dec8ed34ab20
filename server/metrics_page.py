"""The page that Prometheus reads, and what else is beside it, over HTTP. It knows nothing of what is on them."""

import ipaddress
import socket
import socketserver
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from server.exposition import OPEN_CONTENT_TYPE, accepts_open_metrics

# Prometheus' text format, which every version of it reads.
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# For each piece that a client sends or takes.
_IDLE_SECONDS = 10.0
MOST_CONNECTIONS = 16
"""Each has a thread; Prometheus needs one."""
_TEXT = "text/plain; charset=utf-8"
# A browser takes everything for what it is said to be, and shows none of it to other sites.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent for a path.

    Attributes:
        body: The bytes.
        content_type: Of the body.
        status: Of the answer.
        headers: Further ones.
        etag: Names the body, in quotes: who has it is not sent it again. Without one nobody keeps it.
    """

    body: bytes
    content_type: str = _TEXT
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""


Page = Callable[[], bytes]
Route = Callable[[str], Answer]
"""Answers for a path, given the query: what follows the question mark."""


class _Handler(BaseHTTPRequestHandler):
    routes: Mapping[str, Route] = {}
    open_routes: Mapping[str, Route] = {}
    for_people: Collection[str] = ()
    server_version = "segue"
    sys_version = ""

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer(), with_body=False)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say in plain words what is wrong with a request that has no path."""
        del message, explain  # they repeat what the client sent
        self._send(Answer(f"{HTTPStatus(code).phrase.lower()}\n".encode(), status=HTTPStatus(code)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        """Say nothing: Prometheus asks every few seconds."""

    def _answer(self) -> Answer:
        path, _, query = self.path.partition("?")
        route = self.routes.get(path)
        if route is None:
            return Answer(b"not found\n", status=HTTPStatus.NOT_FOUND)
        if path in self.for_people and not self._is_for_us():
            text = (
                b"this address is for this machine alone: ask for localhost, or start the server with --metrics-host\n"
            )
            return Answer(text, status=HTTPStatus.MISDIRECTED_REQUEST)
        if path in self.open_routes and accepts_open_metrics(self.headers.get("Accept", "")):
            route = self.open_routes[path]
        return route(query)

    def _is_for_us(self) -> bool:
        """False if a browser of this machine was led here by a name that somebody else has given to loopback."""
        address = ipaddress.ip_address(str(self.server.server_address[0]))  # type: ignore[index]  # bytes for AF_UNIX
        return not address.is_loopback or _is_local(self.headers.get("Host", "localhost"))

    def _send(self, answer: Answer, *, with_body: bool = True) -> None:
        known = self.headers.get("If-None-Match", "") if getattr(self, "headers", None) else ""
        kept = bool(answer.etag) and answer.etag in known
        self.send_response(HTTPStatus.NOT_MODIFIED if kept else answer.status)
        cached = {"ETag": answer.etag, "Cache-Control": "no-cache"} if answer.etag else {"Cache-Control": "no-store"}
        for name, value in {**_HEADERS, **cached, **answer.headers}.items():
            self.send_header(name, value)
        if not kept:
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body and not kept:
            self.wfile.write(answer.body)


def _is_local(host: str) -> bool:
    """Whether a Host header says "localhost" or an address, with or without a port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _metrics(page: Page, content_type: str = _CONTENT_TYPE) -> Route:
    return lambda _query: Answer(page(), content_type, headers={"Vary": "Accept"})


def _handler(paths: Collection[str], page: Page, others: Mapping[str, Route], open_page: Page | None) -> type[_Handler]:
    class Handler(_Handler):
        timeout = _IDLE_SECONDS
        routes: Mapping[str, Route] = {**others, **dict.fromkeys(paths, _metrics(page))}
        open_routes = dict.fromkeys(paths, _metrics(open_page, OPEN_CONTENT_TYPE)) if open_page else {}
        for_people = others.keys() - paths

    return Handler


def serve(
    host: str,
    port: int,
    paths: Collection[str],
    page: Page,
    others: Mapping[str, Route] | None = None,
    *,
    open_page: Page | None = None,
) -> tuple[int, Callable[[], None]]:
    """Answer GET and HEAD for some paths in threads of its own; returns the port and a function that stops it.

    Args:
        host: Where to listen.
        port: 0 takes a free one.
        paths: Where the page is; everything that is nowhere is not found.
        page: Makes the page, in Prometheus' text format.
        others: What else there is, for people, by path.
        open_page: Makes the page as OpenMetrics, for who accepts that.

    Raises:
        OSError: The address is taken, or is none.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    http = _Http((str(address[0]), port), family, _handler(paths, page, others or {}, open_page))
    thread = threading.Thread(target=http.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        http.shutdown()
        http.server_close()
        thread.join()

    return http.server_port, stop
