"""What has been decided about backends, kept on disk: it survives a restart. Read and written off the request path.

A file for each model version, and one for what operators have pinned. What cannot be read is forgotten with a warning:
then the server learns anew. A version's file is written only after a policy has been told something new.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from server.lifecycle.servable import Servable
from server.repository.names import is_model_name
from server.repository.package import Package

logger = logging.getLogger("server")

_PINS = "pins.json"


class Decisions:
    """The state folder of one server. Any thread may call; `keep` and `tidy` are for one."""

    def __init__(self, folder: Path | None) -> None:
        """Make one.

        Args:
            folder: Where; made when something is written. None keeps nothing.
        """
        self._folder = folder
        self._pinning = threading.Lock()
        self._warned = False
        self._kept: WeakKeyDictionary[Servable, int] = WeakKeyDictionary()
        self._gone: set[str] = set()
        self._pins: dict[str, tuple[str, ...]] = {}
        if folder is not None and not _can_be_written(folder):
            self._warn("it cannot be written")
        found = self._read(_PINS)
        if isinstance(found, dict):
            self._pins = {model: tuple(map(str, order)) for model, order in found.items() if isinstance(order, list)}

    def pin(self, model: str, order: Sequence[str]) -> None:
        """Keep what an operator prefers for a model; an empty order forgets it."""
        with self._pinning:
            pins = {name: each for name, each in self._pins.items() if name != model}
            if order:
                pins[model] = tuple(order)
            self._pins = pins
            self._write(_PINS, pins, at_once=True)

    def pinned(self, model: str) -> tuple[str, ...]:
        """What an operator prefers for a model; empty if nothing. Waits for no disk."""
        return self._pins.get(model, ())

    def recall(self, servable: Servable) -> None:
        """Give a version's policies what was known when it was served last, if it is the same package."""
        name = _name(servable.name, servable.version)
        self._gone.discard(name)
        found = self._read(name)
        if not isinstance(found, dict) or found.get("package") != digest(servable.package):
            return
        signatures = found.get("signatures")
        if not isinstance(signatures, dict):
            return
        for signature, lane in servable.ensemble.lanes.items():
            try:
                if signature in signatures:
                    lane.restore(signatures[signature])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                logger.warning("model %s: what was known of its backends is left: %s", servable.name, error)

    def keep(self, servable: Servable, *, anyway: bool = False) -> None:
        """Write down what a version's policies know, if they know something new.

        Args:
            servable: The version.
            anyway: Write all the same: what is written has ages, which are right at the moment of writing.
        """
        told = _told(servable)
        if self._folder is None or (self._kept.get(servable, 0) == told and not anyway):
            return
        exported = {name: lane.export() for name, lane in servable.ensemble.lanes.items()}
        if not any(exported.values()):
            return
        data = {"package": digest(servable.package), "signatures": exported}
        if self._write(_name(servable.name, servable.version), data):
            self._kept[servable] = told

    def forget(self, model: str, version: int) -> None:
        """Have `tidy` remove what is kept of a version that will not come back. Waits for no disk."""
        if self._folder is not None:
            self._gone.add(_name(model, version))

    def tidy(self) -> None:
        """Remove what is to be forgotten."""
        while self._folder is not None and self._gone:
            with suppress(OSError, KeyError):  # it may be loaded again at this moment
                (self._folder / self._gone.pop()).unlink(missing_ok=True)

    def _read(self, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("cannot read %s, learning anew: %s", path, error)
            return None

    def _write(self, name: str, data: Mapping[str, Any], *, at_once: bool = False) -> bool:
        """Replace a file as a whole, whatever ends in its middle; on the disk when it returns, if `at_once`.

        Returns:
            Whether it was written.
        """
        if self._folder is None:
            return False
        path = self._folder / name
        staged = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("w") as file:
                file.write(json.dumps(data))
                file.flush()
                if at_once:
                    os.fsync(file.fileno())
            staged.replace(path)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, why: object) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("cannot keep decisions in %s, they end with this server: %s", self._folder, why)


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or made if it is not there, as far as can be told without doing so."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _told(servable: Servable) -> int:
    return sum(lane.told for lane in servable.ensemble.lanes.values())


def digest(package: Package) -> str:
    """SHA-256 of what a package holds, in hex."""
    listed = sorted((file.path, file.sha256) for file in package.manifest.files)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _name(model: str, version: int) -> str:
    # A configuration may name a model as it likes; a path is built only of names that packages may have.
    folder = model if is_model_name(model) else f"~{hashlib.sha256(model.encode()).hexdigest()}"
    return f"models/{folder}/{version}.json"
