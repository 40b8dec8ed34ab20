"""Tests of `server.services.renewal`: no change of a file is lost, whatever a read ends with."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server.services.renewal import FilesRefused, Renewal

SECONDS = 20.0


class Reader:
    """Reads one file, may be told to fail or to stay, and notes what it was told of."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.reads = 0
        self.fault: Exception | None = None
        self.after = b""
        self.told: list[bytes] = []
        self.reached, self.go = threading.Event(), threading.Event()
        self.go.set()
        file.write_bytes(b"one")
        self.renewal = Renewal((file,), self.read, self.told.append, name="test", kept="all stays as it was")

    def read(self) -> bytes:
        """What the file holds; it may change right after that."""
        self.reads += 1
        if self.reads > 1:
            self.reached.set()
        assert self.go.wait(SECONDS)
        if self.fault is not None:
            raise self.fault
        data = self.file.read_bytes()
        if self.after:
            self.file.write_bytes(self.after)
            self.after = b""
        return data


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """One that watches nothing when the test is over."""
    made = Reader(tmp_path / "file")
    yield made
    made.go.set()
    made.renewal.stop()


def test_files_that_stay_as_they_are_are_read_twice(reader: Reader) -> None:
    """Once more than at the start, for a change may have come too soon for the files' clock; then never again."""
    for _ in range(5):
        reader.renewal.look()
    assert reader.reads == 2
    assert (reader.renewal.value, reader.told) == (b"one", [])


def test_a_change_during_a_read_is_not_lost(reader: Reader) -> None:
    """What is written when a read has just ended is taken up by the next look."""
    reader.file.write_bytes(b"two, and longer")
    reader.after = b"three"
    reader.renewal.look()
    reader.renewal.look()
    assert (reader.renewal.value, reader.told) == (b"three", [b"two, and longer", b"three"])


def test_a_change_within_a_tick_of_the_files_clock_is_not_lost(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes of the same length may leave the same stamp: after each read one more is made."""
    monkeypatch.setattr("server.services.renewal._stamp", lambda file: (file.stat().st_size,))
    reader.file.write_bytes(b"longer")
    reader.after = b"LONGER"
    reader.renewal.look()
    reader.renewal.look()
    assert reader.renewal.value == b"LONGER"


@pytest.mark.parametrize("fault", [FilesRefused("broken"), MemoryError()])
def test_a_read_that_fails_is_tried_again(reader: Reader, fault: Exception) -> None:
    """Though the file does not change once more: what held it up may have been elsewhere."""
    reader.renewal.look()
    reader.file.write_bytes(b"two")
    reader.fault = fault
    for _ in range(3):
        with suppress(MemoryError):
            reader.renewal.look()
    assert reader.renewal.value == b"one"
    reader.fault = None
    reader.renewal.look()
    assert (reader.renewal.value, reader.told) == (b"two", [b"two"])


def test_a_complaint_is_said_once(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """And again when the files were well meanwhile, or something else is wrong with them."""
    for fault in (FilesRefused("a"), FilesRefused("a"), FilesRefused("b"), None, FilesRefused("b")):
        reader.fault = fault
        reader.file.write_bytes(reader.file.read_bytes() + b"!")
        reader.renewal.look()
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [f"all stays as it was: {text}" for text in "abb"]


def test_a_fault_of_ours_does_not_end_the_watch(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log, and the next look is taken as if nothing had been."""
    second = threading.Event()

    def look() -> None:
        if "ZeroDivisionError" in caplog.text:
            second.set()
        raise ZeroDivisionError

    reader.renewal.look = look  # type: ignore[method-assign]  # a fault that cannot be, but in the code under test
    reader.renewal.watch()
    assert second.wait(SECONDS)


def test_stopping_ends_the_watch(reader: Reader) -> None:
    """Its thread is gone when the server has stopped; without one there is nothing to end."""
    reader.renewal.stop()
    other = Reader(reader.file)
    before = set(threading.enumerate())
    other.renewal.watch()
    (watch,) = set(threading.enumerate()) - before
    other.renewal.stop()
    assert not watch.is_alive()


def test_a_disk_that_does_not_answer_holds_up_nobody(reader: Reader) -> None:
    """Neither who asks what the files held, nor the end of the server."""
    reader.go.clear()
    reader.renewal.watch()
    assert reader.reached.wait(SECONDS)
    assert reader.renewal.value == b"one"
    reader.renewal.stop()
    assert not reader.go.is_set()
