"""Tests of `server.reload`'s watch of a configuration file."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.app import Server
from server.reload import ConfigFile, ConfigWatcher, Reloader
from tests.server.reloading import SECONDS, entry, running, served, settings


def test_a_changed_file_is_applied(root: Path, config_file: Path) -> None:
    """With --model_config_file_poll_wait_seconds an edited file is enough; a reload request is not undone by it."""
    with running(settings(root, model_config_file=config_file, model_config_poll_seconds=0.05)) as (server, client):
        before = server.models._reloads
        config_file.write_text(f"model_config_list {{ {entry('fresh', root / 'place')} }}")
        with server.models._changed:
            assert server.models._changed.wait_for(lambda: "fresh" in server.models._catalogue.now.available, SECONDS)
        assert served(client, "fresh") == 2
        assert server.models._reloads == before + 1


@pytest.fixture
def watcher(root: Path, config_file: Path) -> Iterator[tuple[Server, ConfigWatcher]]:
    """A server of the configuration, and a watcher of its file that is driven by hand."""
    with running(settings(root, model_config_file=config_file)) as (server, _):
        yield server, ConfigWatcher(ConfigFile(config_file), config_file.read_bytes(), Reloader(server.models), 1)


def test_a_file_that_has_not_changed_is_left_alone(watcher: tuple[Server, ConfigWatcher]) -> None:
    """What a reload request has set stays until somebody edits the file."""
    server, looks = watcher
    looks.poll()
    assert server.models._reloads == 0


def test_a_broken_file_changes_nothing_and_is_said_once(
    watcher: tuple[Server, ConfigWatcher], config_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A half-written, missing or refused file leaves everything serving; the log is not flooded."""
    server, looks = watcher
    good = config_file.read_bytes()
    for broken, complaint in ((good[:-1], "line 1:"), (b"\xff", "not UTF-8"), (None, "No such file")):
        caplog.clear()
        if broken is None:
            config_file.unlink()
        else:
            config_file.write_bytes(broken)
        for _ in range(3):
            looks.poll()
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert record.getMessage().startswith("the configuration stays as it is: ")
        assert complaint in record.getMessage()
    config_file.write_bytes(b"")  # truncated, before it is written anew
    looks.poll()
    assert server.models._reloads == 0
    config_file.write_bytes(good)
    looks.poll()
    assert server.models._reloads == 1


class Odd(ConfigFile):
    """A file that fails as nobody foresaw at the first look, and hangs at the second."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.looks = 0
        self.hangs = threading.Event()
        self.answers = threading.Event()

    def read(self) -> bytes:
        """See ConfigFile."""
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError
        self.hangs.set()
        assert self.answers.wait(SECONDS)
        return b""


def test_neither_a_bug_nor_a_dead_disk_ends_the_watch_or_holds_up_the_end(
    watcher: tuple[Server, ConfigWatcher], config_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that fails unexpectedly is logged and followed by another; `stop` returns though a look hangs."""
    server, _ = watcher
    file = Odd(config_file)
    watch = ConfigWatcher(file, b"", Reloader(server.models), 0.01)
    watch.start()
    assert file.hangs.wait(SECONDS)
    stopping = threading.Thread(target=watch.stop, name="stop")
    stopping.start()
    stopping.join(SECONDS / 2)
    held_up = stopping.is_alive()
    file.answers.set()
    stopping.join(SECONDS)
    watch._thread.join(SECONDS)
    assert not held_up
    assert not watch._thread.is_alive()
    assert f"looking at {config_file} failed unexpectedly" in caplog.text
