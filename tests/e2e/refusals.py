"""A place to convert in, and what must hold whenever a conversion is refused there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.exits import ExitCode
from tests.e2e.processes import convert, tree


@dataclass(frozen=True)
class Place:
    """A folder with a repository and a folder for temporary files of its own."""

    root: Path

    @property
    def repository(self) -> Path:
        """Where to publish; does not exist unless a test makes it."""
        return self.root / "models"

    @property
    def temporary(self) -> Path:
        """Where everything temporary goes."""
        return self.root / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        """For programs that work in this place."""
        return os.environ | {"TMPDIR": str(self.temporary)}

    def arguments(self, source: Path, *options: str | Path) -> list[str]:
        """Arguments of `convert-and-deploy`; a model's name is among the options, or it is "m"."""
        name = () if "--name" in options else ("--name", "m")
        return list(map(str, (source, "--repository", self.repository, *name, *options)))

    def command(self, source: Path, *options: str | Path) -> list[str]:
        """The same as a command."""
        return [sys.executable, "-m", "converter", *self.arguments(source, *options)]

    def convert(self, source: Path, *options: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        return convert(*self.arguments(source, *options), env=self.environment)

    def workers(self) -> list[int]:
        """The conversion processes of this place: their private folder, on their command line, is in it."""
        return [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdecimal() and os.fsencode(self.temporary) in _command_line(process)
        ]


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


def new_place(root: Path) -> Place:
    """A place without a repository yet."""
    place = Place(root)
    place.temporary.mkdir(parents=True)
    return place


@dataclass(frozen=True)
class Refusal:
    """What a refused conversion said."""

    code: int
    kind: str
    cause: str
    advice: str


def check_refusal(code: int, stdout: str, stderr: str) -> Refusal:
    """Check what a command with --json that did not succeed has printed: the same for people and for machines.

    Args:
        code: Its exit code.
        stdout: One JSON object.
        stderr: For people.
    """
    said = json.loads(stdout)
    refusal = Refusal(said["exit_code"], **said["error"])
    assert refusal.code == code
    assert f"Error: {refusal.cause}\n" in stderr
    assert f"What to do: {refusal.advice}\n" in stderr
    assert "Traceback" not in stderr
    first_line, *more = refusal.cause.splitlines()
    for sentence in (first_line, refusal.advice):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    assert all(line.startswith(("Its last words:", "    ")) for line in more)
    return refusal


def refused(place: Place, source: Path, *options: str | Path) -> Refusal:
    """Convert in vain: no traces are left in the repository, among temporary files, or of processes."""
    before = tree(place.root)
    done = place.convert(source, *options, "--json")
    refusal = check_refusal(done.returncode, done.stdout, done.stderr)
    assert tree(place.root) == before
    assert place.workers() == []
    return refusal


def assert_says(refusal: Refusal, code: ExitCode, kind: str, cause: Sequence[str], advice: Sequence[str]) -> None:
    """The exit code, the kind of error, and words that its cause and its advice must hold."""
    assert (refusal.code, refusal.kind) == (code, kind)
    assert [word for word in cause if word not in refusal.cause] == [], refusal.cause
    assert [word for word in advice if word not in refusal.advice] == [], refusal.advice


def tiny_disk(place: Place, folder: Path, size: str, command: Sequence[str]) -> list[str]:
    """The command on a machine on which a folder is a disk of that size, in a mount namespace of its own.

    The names of what the command leaves on that disk go into the file `left` in the place.
    """
    folder.mkdir(exist_ok=True)
    script = (
        'mount -t tmpfs -o "size=$1" none "$2" || exit 99; disk="$2"; left="$3"; shift 3; "$@"; code=$?; '
        'find "$disk" -mindepth 1 > "$left"; exit $code'
    )
    left = place.root / "left"
    return [*_unshare(), "sh", "-c", script, "sh", size, str(folder), str(left), *command]


def _unshare() -> list[str]:
    """How this platform gives a process mounts of its own; the test is skipped where it does not."""
    probe = ["sh", "-c", "mount -t tmpfs none /mnt"]
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        command = ["unshare", *options]
        if (
            shutil.which("unshare")
            and subprocess.run([*command, *probe], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("this platform lets nobody mount a disk")
