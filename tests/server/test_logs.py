"""Tests of `server.logs`, alone and in a server."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import calls
from server.logs import configure, formatter
from server.wire.responses import encode_predict_request
from tests.servers import INPUTS, PREDICT, call, code_of, running

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


def line(log_format: str, message: str, *arguments: object, error: BaseException | None = None, **record: Any) -> str:
    """One record as it is written."""
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.getLogger("some.module").makeRecord(
        "some.module", logging.WARNING, "file.py", 1, message, arguments, info, **record
    )
    return formatter(log_format).format(made)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged as JSON in a test, from the moment that it asks."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    root.handlers = []
    configure("json", "info", stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines so far."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return [json.loads(each) for each in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_event() -> None:
    """In both forms, the time in UTC."""
    text = line("console", "the %s is %d", "answer", 42)
    assert re.fullmatch(rf"{UTC} \[some\.module\] WARNING the answer is 42", text)
    found = json.loads(line("json", "the %s is %d", "answer", 42))
    assert list(found) == ["time", "level", "logger", "event"]
    assert re.fullmatch(UTC, found["time"])
    assert (found["level"], found["logger"], found["event"]) == ("warning", "some.module", "the answer is 42")


def test_facts_follow_the_event() -> None:
    """Those that need it are quoted, so that a line can be taken apart."""
    text = line("console", "request", extra={"code": "OK", "rows": 3, "text": 'a "b" = c', "none": ""})
    assert text.endswith(r'request  code=OK rows=3 text="a \"b\" = c" none=""')
    assert json.loads(line("json", "request", extra={"rows": 3}))["rows"] == 3


@given(st.text())
def test_nothing_that_is_logged_can_forge_a_line(text: str) -> None:
    """Whatever is in an event or a fact, one record is one line, without a control character."""
    for log_format in ("console", "json"):
        written = line(log_format, "%s", text, extra={"fact": text})
        assert written.isprintable() or not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in written)
        assert len(written.splitlines()) == 1
    found = json.loads(line("json", "%s", text, extra={"fact": text}))
    assert (found["event"], found["fact"]) == (text, text)


def test_a_trace_stays_below_its_line() -> None:
    """An exception's text with line breaks in it cannot begin a line of its own."""
    error = RuntimeError("one\n2026-01-01T00:00:00Z [server] INFO    forged\x1b[2J")
    first, *rest = line("console", "failed", error=error).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(each.startswith("  | ") for each in rest)
    assert "\x1b" not in "".join(rest)
    assert "RuntimeError" in json.loads(line("json", "failed", error=error))["exception"]


class _Source:
    def invocation_metadata(self) -> list[tuple[str, str]]:
        """See calls.Source."""
        return [("x-request-id", "from-the-client")]

    def peer(self) -> str:
        """See calls.Source."""
        return "ipv4:127.0.0.1:5000"


def test_a_line_within_a_request_says_which() -> None:
    """Its id, method, client, and the model if one was found; no other line does."""
    assert "request_id" not in json.loads(line("json", "outside"))
    token = calls._CURRENT.set(None)
    try:
        calls.begin("service/Method", _Source()).answered_by("affine", 3)
        found = json.loads(line("json", "within"))
    finally:
        calls._CURRENT.reset(token)
    expected = {"request_id": "from-the-client", "method": "service/Method", "peer": "ipv4:127.0.0.1:5000"}
    assert found.items() >= {**expected, "model": "affine", "version": 3}.items()


def test_requests_are_logged_when_asked(tmp_path: Path, log: io.StringIO) -> None:
    """A line each, with how it ended, how long it took and its sizes, and nothing of what was in it."""
    with running(tmp_path, log_requests="all") as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        reply = call(channel, metadata=[("x-request-id", "mine")])
        unknown = encode_predict_request(INPUTS, name="made-up\nname")
        code_of(channel, request=unknown)
    # The worker that answers the one and the thread that refuses the other need not come to the log in that order.
    good, bad = sorted((e for e in entries(log) if e["event"] == "request"), key=lambda e: str(e["code"]) != "OK")
    facts = {
        "level": "info",
        "logger": "server.requests",
        "request_id": "mine",
        "method": "tensorflow.serving.PredictionService/Predict",
        "model": "affine",
        "version": 1,
        "signature": "serving_default",
        "backend": "onnxruntime-cpu",
        "rows": 1,
        "code": "OK",
        "request_bytes": len(PREDICT),
        "reply_bytes": len(reply),
    }
    assert good.items() >= facts.items()
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert 0 < good["milliseconds"] < 20_000
    assert (bad["level"], bad["code"], bad["reply_bytes"]) == ("warning", "NOT_FOUND", 0)
    assert "model" not in bad
    assert "made-up" not in log.getvalue()


@pytest.mark.parametrize(("log_requests", "codes"), [("off", []), ("errors", ["NOT_FOUND"])])
def test_fewer_requests_are_logged_when_asked(
    tmp_path: Path, log: io.StringIO, log_requests: str, codes: list[str]
) -> None:
    """None by default; or only those that fail."""
    with (
        running(tmp_path, log_requests=log_requests) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call(channel)
        code_of(channel, request=encode_predict_request(INPUTS, name="unknown"))
    assert [each["code"] for each in entries(log) if each["event"] == "request"] == codes


def test_an_internal_errors_reference_is_the_requests_id(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reports the reference that the client got leads to the line with the trace."""
    with running(tmp_path) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:

        def fail(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr(server.models, "acquire", fail)
        code, text = code_of(channel, metadata=[("x-request-id", "given-by-the-client")])
    assert code is grpc.StatusCode.INTERNAL
    assert text == "internal error, reference given-by-the-client: see the server's log"
    (found,) = [each for each in entries(log) if each["level"] == "error"]
    assert found["request_id"] == "given-by-the-client"
    assert "a fault of ours" in found["exception"]


def test_levels_below_the_one_asked_for_are_left_out(log: io.StringIO) -> None:
    """Warnings and worse, if that is what is wanted."""
    configure("json", "warning", log)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert [each["event"] for each in entries(log)] == ["loud"]
