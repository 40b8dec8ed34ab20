"""`sandbox`: what a child process can no longer do once it is closed; and the protocol's files."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.worker.protocol import Event, Job, Limits, Sample
from tests.conftest import ROOT

_CLOSE = """
import os, sys
from converter.worker import sandbox
from converter.worker.protocol import Limits
network = sandbox.close(Limits(memory_bytes=300 << 20, cpu_seconds=2, file_bytes=1 << 20), int(os.environ["PARENT"]))
"""


def _child(code: str, parent: int | None = None) -> subprocess.Popen[str]:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PARENT": str(parent or os.getpid())}
    return subprocess.Popen(
        [sys.executable, "-c", _CLOSE + code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _says(code: str) -> str:
    with _child(code) as child:
        output, errors = child.communicate()
    assert child.returncode == 0, errors
    return output.strip()


def test_network_is_denied_or_said_not_to_be() -> None:
    """Where the kernel lets us leave the network not even this machine can be reached; elsewhere the reason is told."""
    listening = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=5)
    reached = "connected"
except OSError as error:
    reached = type(error).__name__ + " " + str(error.errno)
print(network, "|", reached)
"""
    network, reached = _says(listening).split(" | ")
    if network == "denied":
        assert reached == "OSError 101"  # ENETUNREACH: a live network would refuse the connection instead
    else:
        assert network.startswith("not denied: ")
        assert len(network) > len("not denied: ")


def test_memory_is_limited() -> None:
    """Memory beyond the limit is refused."""
    code = """
try:
    bytearray(1 << 30)
except MemoryError:
    print("refused")
"""
    assert _says(code) == "refused"


def test_files_are_limited(tmp_path: Path) -> None:
    """A file cannot grow beyond the limit."""
    code = f"""
try:
    with open({str(tmp_path / "big")!r}, "wb") as file:
        file.write(bytes(2 << 20))
except OSError as error:
    print(error.errno)
"""
    assert _says(code) == "27"  # EFBIG
    assert (tmp_path / "big").stat().st_size <= 1 << 20


@pytest.mark.slow
def test_processor_time_is_limited() -> None:
    """A loop without end ends by SIGXCPU, which tells the parent why."""
    with _child("while True: pass") as child:
        assert child.wait(60) == -24


def test_core_dumps_are_off() -> None:
    """A crash leaves no image of memory behind."""
    assert _says("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))") == "(0, 0)"


def test_identity_is_kept() -> None:
    """Files have the same owner inside as outside."""
    assert _says("print(os.getuid(), os.stat('/proc/self').st_uid)").split()[0] == str(os.getuid())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent's death is told on Linux only")
def test_child_does_not_survive_its_parent() -> None:
    """When the parent is killed, so is the child."""
    middle = f"""
import os, subprocess, sys, time
code = {(_CLOSE + "print(os.getpid(), flush=True); import time; time.sleep(60)")!r}
environment = dict(os.environ, PARENT=str(os.getpid()))
child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
time.sleep(60)
"""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", middle], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline, "the child lives on"


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its reaper does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_orphan_ends_at_once() -> None:
    """A child whose parent is already another process does not even begin."""
    with _child("print('alive')", parent=1) as child:
        output, _ = child.communicate()
    assert (child.returncode, output) == (-9, "")


def test_job_round_trip(tmp_path: Path) -> None:
    """A job is read as it was written."""
    job = Job(
        source=Path("/models/é"),
        kind="keras",
        tags=("serve", "gpu"),
        signatures=("a",),
        samples=(Sample("a", "warm-up", {"x": "0/x"}),),
        limits=Limits(memory_bytes=1),
    )
    job.write(tmp_path)
    assert Job.read(tmp_path) == job


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"3", b'{"phase": "load"}', b'{"phase": "x", "message": "", "signature": null}']
)
def test_foreign_lines_are_no_events(line: bytes) -> None:
    """Whatever else comes through the pipe is passed over."""
    assert Event.parse(line) is None


def test_event_round_trip() -> None:
    """Progress is read as it was written, one line each."""
    event = Event("golden", "zwei\nZeilen", "sig")
    assert event.line().count("\n") == 1
    assert Event.parse(event.line().encode()) == event
    assert json.loads(event.line())["phase"] == "golden"
