"""Tests of `server.lines`: who logs never waits, and nothing is lost in silence."""

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from server import lines, logs
from server.lines import LineWriter
from tests.servers import SECONDS, call, running


def record(text: str) -> logging.LogRecord:
    """Something to log."""
    return logging.LogRecord("x", logging.INFO, "file.py", 1, text, (), None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"." * 4096):
            pass
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)


def drained(reader: int, until: bytes) -> bytes:
    """What comes out of a pipe, as far as `until`."""
    found = b""
    while until not in found:
        part = os.read(reader, 1 << 16)
        assert part
        found += part
    return found.lstrip(b".")


def test_lines_are_written_in_order() -> None:
    """All that was logged before a flush is there after it; also after the end."""
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(1000):
        writer.handle(record(str(number)))
    writer.flush()
    assert stream.getvalue().split() == [str(number) for number in range(1000)]
    writer.handle(record("last"))
    writer.close()
    assert stream.getvalue().endswith("999\nlast\n")


def test_the_end_of_logging_writes_what_waits() -> None:
    """logging.shutdown flushes with the handler's lock held; the thread that writes does not need it."""
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer._left_out = 1
    writer.acquire()
    try:
        writer.emit(record("last"))
        writer.flush()
    finally:
        writer.release()
    assert stream.getvalue().startswith("last\n1 line(s)")
    writer.close()


def test_lines_for_nobody_are_counted_and_said_once(pipe: tuple[int, int]) -> None:
    """Who logs goes on at once; when somebody reads again, the gap is told, and the next line has none."""
    reader, file = pipe
    with os.fdopen(file, "w") as stream:
        writer = LineWriter(stream, most=2)
        writer.handle(record("first"))
        while writer._waiting.qsize():  # until the thread is held up in writing it
            threading.Event().wait(0.001)
        for number in range(10):
            writer.handle(record(str(number)))
        text = drained(reader, b"were left out").decode()
        assert text.startswith("first\n")
        assert "8 line(s) of the log were left out" in text
        writer.flush()
        writer.handle(record("after"))
        writer.flush()
        rest = drained(reader, b"after\n").decode()
        assert "left out" not in rest
        writer.close()


def test_the_end_does_not_wait_for_ever(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stuck does not keep the process from ending."""
    monkeypatch.setattr(lines, "LAST_SECONDS", 0.05)
    reader, file = pipe
    with os.fdopen(file, "w") as stream:
        writer = LineWriter(stream, most=1)
        writer.handle(record("first"))
        writer.close()
        assert drained(reader, b"first\n") == b"first\n"
        writer._thread.join(SECONDS)


def test_a_stream_that_is_closed_harms_nobody() -> None:
    """A line that cannot be written is counted as left out; the thread goes on."""
    stream = io.StringIO()
    writer = LineWriter(stream)
    stream.close()
    writer.handle(record("lost"))
    writer.flush()
    assert writer._left_out == 1
    assert writer._thread.is_alive()
    writer.close()


def test_a_log_that_nobody_reads_stalls_no_request(tmp_path: Path, pipe: tuple[int, int]) -> None:
    """A server whose log is a full pipe answers more requests than lines may wait, each within its deadline."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    reader, file = pipe
    try:
        with os.fdopen(file, "w") as stream:
            logs.configure("json", "info", stream)
            (writer,) = root.handlers
            assert isinstance(writer, LineWriter)
            writer._waiting.maxsize = 50
            with (
                running(tmp_path, log_requests="all") as server,
                grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            ):
                for _ in range(100):
                    call(channel)
            assert writer._left_out > 40
            drained(reader, b"were left out")
            threading.Thread(target=os.read, args=(reader, 1 << 16), daemon=True).start()
            writer.close()
    finally:
        root.handlers = handlers
        root.setLevel(level)
