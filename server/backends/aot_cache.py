"""The folder in which compiled models are kept, each under the name of all that it depends on.

    ROOT/KEY/model.so, artefact.json   a compiled model, and what calls must fit
    ROOT/building.lock                 held by the one process that builds; the kernel frees it when that one ends
    ROOT/work/                         its temporary files, removed when it has done and before the next begins
    ROOT/toolchain/                    what torch found out about the compiler and this processor

An entry appears by one rename and is never changed. It is code that this process runs, so the folder must be this
user's alone.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from server.errors import GraphNotLoadable

REVISION: Final = 2
"""Of how we compile: raised when artefacts of before must not be used any more."""

_LIBRARY: Final = "model.so"
_DESCRIPTION: Final = "artefact.json"
_POLL_S: Final = 0.05
# What torch writes about the toolchain comes to some hundred kilobytes; should that ever change, it goes.
_TOOLCHAIN_BYTES: Final = 64 << 20
_PROCESSOR_FACTS: Final = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU part", "Features")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what a compiled model is.

    Attributes:
        graph: SHA-256 of the ONNX file, and of its external data if it has any.
        device: "cpu" or "cuda".
        precision: A `Precision`.
        torch: The version.
        processor: What the code is made for.
        revision: Of how we compile.
    """

    graph: str
    device: str
    precision: str
    torch: str
    processor: str
    revision: int = REVISION

    @property
    def key(self) -> str:
        """The entry's name."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Artefact:
    """An entry that has been checked: the shared object, and what calls must fit (`server.lowering.ports`)."""

    library: Path
    ports: Mapping[str, Any]


class ArtefactCache:
    """The folder."""

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        """Name it.

        Args:
            root: Made, for this user alone, when something is built.
            limit_bytes: What all entries together may take: the least recently used ones go first.
        """
        self.root = root.absolute()
        self._limit_bytes = limit_bytes
        self._checked: set[tuple[str, int, int]] = set()

    def find(self, recipe: Recipe) -> Artefact | None:
        """The entry, if it is there and whole.

        Raises:
            GraphNotLoadable: others could have written to the folder.
        """
        folder = self.root / recipe.key
        if not folder.is_dir():
            return None
        self._require_private(folder)
        try:
            document = json.loads((folder / _DESCRIPTION).read_text())
            content = document["content"]
            whole = (
                document["sha256"] == hashlib.sha256(_canonical(content)).hexdigest()
                and content["recipe"] == asdict(recipe)
                and self._is_whole(folder / _LIBRARY, content["library"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not whole:
            return None
        now = time.time_ns()  # the system's own stamp would be the same for what happens within some milliseconds
        with suppress(OSError):  # of a read-only cache nothing is ever dropped
            os.utime(folder, ns=(now, now))  # when it was last used
        return Artefact(folder / _LIBRARY, content["ports"])

    def _is_whole(self, library: Path, known: Mapping[str, Any]) -> bool:
        """Whether the file is what was written; it is read once per process and change."""
        state = library.stat()
        mark = (str(library), state.st_mtime_ns, state.st_ino)
        if state.st_size != known["bytes"]:
            return False
        if mark not in self._checked:
            if _digest(library) != known["sha256"]:
                return False
            self._checked.add(mark)
        return True

    @contextmanager
    def building(self, stop: threading.Event) -> Iterator[Path]:
        """Be the one that builds, and get an empty folder to do so in.

        Raises:
            GraphNotLoadable: `stop` was set while another built, or the folder cannot be used.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_private(self.root)
            with (self.root / "building.lock").open("w") as lock:
                _acquire(lock.fileno(), stop)
                work = self.root / "work"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(mode=0o700)
                (self.root / "toolchain").mkdir(exist_ok=True)
                try:
                    yield work
                finally:
                    shutil.rmtree(work, ignore_errors=True)
                    if _size(self.root / "toolchain") > _TOOLCHAIN_BYTES:
                        shutil.rmtree(self.root / "toolchain", ignore_errors=True)
        except OSError as error:
            msg = f"compiled models cannot be kept in {self.root}: {error.strerror or error}"
            raise GraphNotLoadable(msg) from error

    def publish(self, recipe: Recipe, work: Path, library: Path, ports: Mapping[str, Any]) -> Artefact:
        """Make an entry of what was built; only within `building`.

        Args:
            recipe: What it is.
            work: The folder that `building` gave.
            library: The shared object, within it.
            ports: What calls must fit.
        """
        staging, target = work / "entry", self.root / recipe.key
        staging.mkdir(mode=0o700)
        final = library.rename(staging / _LIBRARY)
        content = {
            "recipe": asdict(recipe),
            "library": {"bytes": final.stat().st_size, "sha256": _digest(final)},
            "ports": ports,
        }
        document = {"sha256": hashlib.sha256(_canonical(content)).hexdigest(), "content": content}
        (staging / _DESCRIPTION).write_text(json.dumps(document, indent=1))
        for file in (*staging.iterdir(), staging):
            _sync(file)
        if target.exists():  # damaged: `find` did not take it. Who has it open keeps what they have.
            target.rename(work / "damaged")
        staging.rename(target)
        _sync(self.root)
        self._forget_oldest(keep=target)
        found = self.find(recipe)
        if found is None:
            msg = f"what was just written to {target} does not read back: the disk is full or failing"
            raise GraphNotLoadable(msg)
        return found

    def _forget_oldest(self, keep: Path) -> None:
        entries = sorted(self.root.glob(f"*/{_DESCRIPTION}"), key=lambda file: file.parent.stat().st_mtime)
        sizes = {file.parent: _size(file.parent) for file in entries}
        excess = sum(sizes.values()) - self._limit_bytes
        for folder, size in sizes.items():
            if excess > 0 and folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
                excess -= size

    def _require_private(self, folder: Path) -> None:
        state = folder.stat()
        if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            msg = (
                f"{folder} belongs to another user or others may write to it, and what lies there is run as code: "
                "name a folder of this user's own"
            )
            raise GraphNotLoadable(msg)


def graph_digest(path: Path, digest: str, neighbours: Sequence[str] = ("weights.bin",)) -> str:
    """What the graph is known by: the digest of its file and, where they lie beside it, of its external data.

    Args:
        path: The ONNX file.
        digest: Its SHA-256, or "" if nobody knows it.
        neighbours: Names of files that may hold weights (`converter.weights`).
    """
    parts = [digest or _digest(path)]
    for name in neighbours:
        if (path.parent / name).is_file():
            state = (path.parent / name).stat()
            parts.append(_digest_once(path.parent / name, state.st_mtime_ns, state.st_size))
    return "+".join(parts)


@cache
def processor() -> str:
    """What code compiled for this machine's processor is known by: weights are laid out for it, too."""
    facts = {"machine": platform.machine(), "capability": os.environ.get("ATEN_CPU_CAPABILITY", "")}
    try:
        for line in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _PROCESSOR_FACTS:
                facts[name.strip()] = value.strip()
    except OSError:
        facts["processor"] = platform.processor()
    return hashlib.sha256(_canonical(facts)).hexdigest()[:16]


def _acquire(file: int, stop: threading.Event) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stop.wait(_POLL_S):
                msg = "nobody waits for the compiled model any more"
                raise GraphNotLoadable(msg) from None
        else:
            return


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _digest_once(path: Path, _mtime: int, _size: int) -> str:
    return _digest(path)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
