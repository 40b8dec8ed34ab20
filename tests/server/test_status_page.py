"""Promises of server.status_page, and of how it is served over HTTP; what people see is tested in the browser."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import StatusNotFound
from server.metrics_page import Answer, serve
from tests.pages import Site, site

BIG = "9" * 30


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of two engines."""
    with pytest.MonkeyPatch.context() as patch, site(tmp_path_factory.mktemp("status") / "models", patch) as made:
        yield made


def ask(port: int | None, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request; status, headers and body of the answer."""
    assert port is not None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def data(served: Site, query: str = "") -> Any:
    """What the page is shown from."""
    status, headers, body = ask(served.server.metrics_port, f"/status.json{query}")
    assert status == 200
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    return json.loads(body)


def test_the_page_runs_nothing_but_itself(served: Site) -> None:
    """A browser is told to run the page's own script and to load nothing, whatever might get into it."""
    status, headers, body = ask(served.server.metrics_port, "/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Set-Cookie"] is None
    assert not re.search(rb"(?:src|href)=[\"'](?!data:|#)", body), "nothing is loaded from anywhere"
    assert b"innerHTML" not in body
    assert len(body) < 40_000


def test_the_page_is_sent_once(served: Site) -> None:
    """A browser that has the page is not sent it again."""
    _, headers, body = ask(served.server.metrics_port, "/")
    assert ask(served.server.metrics_port, "/", If_None_Match=headers["ETag"])[::2] == (304, b"")
    assert ask(served.server.metrics_port, "/", If_None_Match='"other"')[::2] == (200, body)


def test_the_data_is_that_of_the_server(served: Site) -> None:
    """The listing, a part of it, a model and a version."""
    listing = data(served)
    assert [one["name"] for one in listing["models"]] == ["affine", "broken"]
    assert listing["head"]["schema"] == 1
    assert [one["name"] for one in data(served, "?find=BRO&limit=1&offset=0")["models"]] == ["broken"]
    assert data(served, "?model=affine")["version"] == 1
    assert data(served, "?model=affine&version=1")["backends"][0]["stage"] == "eligible"
    assert data(served, "?model=broken")["versions"][0]["state"] == "END"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?model=nope", 404),
        ("?model=affine&version=2", 404),
        ("?model=" + "x" * 5000, 404),
        ("?model=%00%ff%3Cb%3E", 404),
        ("?version=x&model=affine", 400),
        (f"?limit={BIG}", 400),
        ("?offset=-1", 400),
        ("?limit=%D9%A3", 400),
        ("?" + "&".join("a=b" for _ in range(100)), 400),
    ],
)
def test_questions_without_an_answer_get_a_short_one(served: Site, query: str, status: int) -> None:
    """Whatever is asked, the answer is small JSON with a fitting status."""
    found, headers, body = ask(served.server.metrics_port, f"/status.json{query}")
    assert found == status
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert set(json.loads(body)) == {"error"}
    assert len(body) < 1500


@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics"])
def test_only_reading_is_possible(served: Site, path: str) -> None:
    """HEAD is GET without a body; no other method does anything."""
    status, headers, body = ask(served.server.metrics_port, path, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "<b>"):
        status, headers, body = ask(served.server.metrics_port, path, method)
        assert status == 501
        assert headers["Content-Type"].startswith("text/plain")
        assert b"<" not in body


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("localhost:80", 200), ("127.0.0.1:9", 200), ("[::1]:9", 200), ("evil.example", 421)],
)
def test_other_sites_cannot_lead_a_browser_here(served: Site, host: str, status: int) -> None:
    """On loopback the page answers to no name that a stranger could give this machine; metrics answer to any."""
    for path in ("/", "/status.json"):
        assert ask(served.server.metrics_port, path, Host=host)[0] == status
    assert ask(served.server.metrics_port, "/metrics", Host=host)[0] == 200


def test_metrics_keep_their_path() -> None:
    """A path that a configuration gives to the metrics is theirs, even that of the page."""
    port, stop = serve("127.0.0.1", 0, {"/"}, lambda: b"metrics\n", {"/": lambda _: Answer(b"page\n")})
    try:
        assert ask(port, "/")[2] == b"metrics\n"
    finally:
        stop()


def test_the_words_of_errors_are_bounded(served: Site) -> None:
    """A name that is asked for is not sent back at any length."""
    with pytest.raises(StatusNotFound) as caught:
        served.server._overview.model("x" * 100_000)
    assert len(caught.value.message) < 1500


def test_the_page_needs_no_file_beside_the_package() -> None:
    """The page is declared as part of what is installed."""
    root = Path(__file__).resolve().parent.parent.parent
    assert 'server = ["*.html"]' in (root / "pyproject.toml").read_text()
