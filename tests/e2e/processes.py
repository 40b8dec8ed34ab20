"""Starting, watching and ending the real programs: the server, the command line, a client in a process of its own."""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo import free_port

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240.0


@dataclass
class RunningServer:
    """A server process and where it answers."""

    process: "subprocess.Popen[str]"
    address: str
    metrics: str
    log: "Lines"


@dataclass
class Lines:
    """What a process prints, line by line, for tests that wait for a certain line."""

    seen: list[str] = field(default_factory=list)
    _queue: "queue.Queue[str | None]" = field(default_factory=queue.Queue)

    def pump(self, stream: Any) -> None:
        """Read a stream to its end; runs in a thread of its own so that the process never blocks on a full pipe."""
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str, seconds: float = SECONDS) -> str:
        """Return the next line that contains the text.

        Raises:
            AssertionError: The process ended, or was silent for too long, before it printed one.
        """
        while True:
            try:
                line = self._queue.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} within {seconds} s; seen: {self.seen}") from None
            assert line is not None, f"the process ended without a line with {text!r}; seen: {self.seen}"
            self.seen.append(line)
            if text in line:
                return line

    def rest(self) -> list[str]:
        """All lines up to the end of the stream, those seen before among them."""
        while (line := self._queue.get(timeout=SECONDS)) is not None:
            self.seen.append(line)
        return self.seen


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[tuple["subprocess.Popen[str]", Lines]]:
    """A program whose standard error is followed; it is killed at the end of the block if it still runs."""
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options) as process:
        lines = Lines()
        pump = threading.Thread(target=lines.pump, args=(process.stderr,), name="pump", daemon=True)
        pump.start()
        try:
            yield process, lines
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=60)
            pump.join(timeout=60)


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[RunningServer]:
    """A server process that has loaded what the repository holds."""
    port = free_port()
    with started(_server(repository, port, *options)) as (process, log):
        log.wait_for("serving ")
        metrics = log.wait_for("metrics on ").partition("metrics on ")[2]
        yield RunningServer(process, f"localhost:{port}", metrics, log)


@contextmanager
def loading(repository: Path, *options: str) -> Iterator[str]:
    """A server process that has begun to load its first model, and answers meanwhile: its address."""
    port = free_port()
    with started(_server(repository, port, *options)) as (_, log):
        log.wait_for(": LOADING")
        yield f"localhost:{port}"


def _server(repository: Path, port: int, *options: str) -> list[str]:
    command = [sys.executable, "-m", "server", "--repository", str(repository), "--port", str(port)]
    return [*command, "--metrics-port", "0", "--lame-duck-seconds", "0.2", "--poll-seconds", "0.2", *options]


def convert(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `convert-and-deploy` to its end."""
    command = [sys.executable, "-m", "converter.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS * 2, check=False, **options
    )


def client_calls(address: str, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make calls with the published tensorflow-serving-api client, in a process of its own.

    See tests/e2e/tfs_client.py for the calls and answers.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.tfs_client", address],
        input=json.dumps(calls),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the contents of files."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }


def listening(address: str) -> bool:
    """True if something accepts connections there."""
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
