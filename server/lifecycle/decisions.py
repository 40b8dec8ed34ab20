"""What has been decided about backends, kept on disk: it survives a restart. Read and written off the request path.

A file for each model version, and one for what operators have pinned. What cannot be read is forgotten with a warning:
then the server learns anew.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from server.lifecycle.servable import Servable
from server.repository.names import is_model_name
from server.repository.package import Package

logger = logging.getLogger("server")

_PINS = "pins.json"


class Decisions:
    """The state folder of one server."""

    def __init__(self, folder: Path | None) -> None:
        """Make one.

        Args:
            folder: Where; made when something is written. None keeps nothing.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._warned = False
        self._pins: dict[str, tuple[str, ...]] = {}
        found = self._read(_PINS)
        if isinstance(found, dict):
            self._pins = {model: tuple(map(str, order)) for model, order in found.items() if isinstance(order, list)}

    def pin(self, model: str, order: Sequence[str]) -> None:
        """Keep what an operator prefers for a model; an empty order forgets it."""
        with self._lock:
            self._pins.pop(model, None)
            if order:
                self._pins[model] = tuple(order)
            self._write(_PINS, self._pins)

    def pinned(self, model: str) -> tuple[str, ...]:
        """What an operator prefers for a model; empty if nothing."""
        return self._pins.get(model, ())

    def recall(self, servable: Servable) -> None:
        """Give a version's policies what was known when it was served last, if it is the same package."""
        found = self._read(_name(servable.name, servable.version))
        if not isinstance(found, dict) or found.get("package") != digest(servable.package):
            return
        signatures = found.get("signatures")
        for name, lane in servable.ensemble.lanes.items():
            if not isinstance(signatures, dict) or name not in signatures:
                continue
            try:
                lane.restore(signatures[name])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                logger.warning("model %s: what was known of its backends is damaged: %s", servable.name, error)

    def keep(self, servable: Servable) -> None:
        """Write down what a version's policies know."""
        exported = {name: lane.export() for name, lane in servable.ensemble.lanes.items()}
        if not any(exported.values()):
            return
        data = {"package": digest(servable.package), "signatures": exported}
        with self._lock:
            self._write(_name(servable.name, servable.version), data)

    def forget(self, model: str, version: int) -> None:
        """Remove what is kept of a version that will not come back."""
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / _name(model, version)).unlink(missing_ok=True)

    def _read(self, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("cannot read %s, learning anew: %s", path, error)
            return None

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        """Replace a file as a whole. Called with the lock held."""
        if self._folder is None:
            return
        path = self._folder / name
        staged = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text(json.dumps(data))
            staged.replace(path)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning("cannot keep decisions in %s, they end with this server: %s", self._folder, error)


def digest(package: Package) -> str:
    """SHA-256 of what a package holds, in hex."""
    listed = sorted((file.path, file.sha256) for file in package.manifest.files)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _name(model: str, version: int) -> str:
    # A configuration may name a model as it likes; a path is built only of names that packages may have.
    folder = model if is_model_name(model) else f"~{hashlib.sha256(model.encode()).hexdigest()}"
    return f"models/{folder}/{version}.json"
