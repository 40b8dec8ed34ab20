"""Tests of `server.metrics_page` with clients that are no Prometheus; pages are read in test_metrics.py."""

import socket
import time
from contextlib import ExitStack
from http import HTTPStatus
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from server import metrics_page


def served(port: int) -> bool:
    """Whether the page is there now."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
            return bool(reply.status == HTTPStatus.OK and reply.read() == b"page\n")
    except (URLError, ConnectionError):  # also the 503, or its connection's end before the request had been read
        return False


def test_connections_are_bounded_and_idle_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that only connect cost a few threads for a time: more are refused, and then the page is there again."""
    monkeypatch.setattr(metrics_page, "_IDLE_SECONDS", 2.0)
    port, stop = metrics_page.serve("127.0.0.1", 0, {"/metrics"}, lambda: b"page\n")
    most = metrics_page.MOST_CONNECTIONS
    with ExitStack() as stack:
        stack.callback(stop)
        for _ in range(2):  # a place that was taken is free again
            opened = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(2 * most)
            ]
            answers = [connection.recv(4096) for connection in opened]
            assert {answer[:13] for answer in answers} == {b"", b"HTTP/1.0 503 "}
            assert answers.count(b"") <= most
            end = time.monotonic() + 20
            while not served(port):
                assert time.monotonic() < end
