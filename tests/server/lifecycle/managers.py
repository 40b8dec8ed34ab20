"""What tests of `server.lifecycle.manager` share: an observer that can be waited for, and looks at a manager."""

import shutil
import threading
from concurrent.futures import wait
from pathlib import Path

import numpy as np

from server.errors import (
    SegueError,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Loaded, Servable
from server.lifecycle.states import State, VersionStatus
from tests.packages import Affine, write_package


class Recorder:
    """Remembers what the manager tells, and lets tests wait for it."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int, State]] = []
        self.not_replaced_with: list[tuple[str, int, str]] = []
        self.forgotten_versions: list[tuple[str, int]] = []
        self._changed = threading.Condition()

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """See Observer."""
        with self._changed:
            self.changes.append((model, status.version, status.state))
            self._changed.notify_all()

    def wait_for(self, model: str, version: int, state: State) -> None:
        """Wait until a version has been in a state."""
        with self._changed:
            assert self._changed.wait_for(lambda: (model, version, state) in self.changes, timeout=20)

    def loaded(self, loaded: Loaded) -> None:
        """See Observer."""

    def not_replaced(self, model: str, version: int, error: SegueError) -> None:
        """See Observer."""
        self.not_replaced_with.append((model, version, error.message))

    def forgotten(self, model: str, version: int) -> None:
        """See Observer."""
        self.forgotten_versions.append((model, version))


def settle(manager: ModelManager) -> None:
    """Look once and wait until everything that follows from it is done."""
    wait(manager.poll())


def answer(servable: Servable) -> float:
    """What the served version says to x = 1, bias = 0."""
    signature = servable.signature("")
    ones = np.ones((1, 4), np.float32)
    (y,) = servable.run(signature, signature.bind({"x": ones, "bias": 0 * ones}), ["y_out"])
    return float(y[0, 0])


def states(manager: ModelManager, name: str = "affine") -> dict[int, State]:
    """States by version."""
    return {status.version: status.state for status in manager.statuses(name)}


def numbers(manager: ModelManager, name: str = "affine") -> set[int]:
    """The available versions."""
    return {version for version, state in states(manager, name).items() if state is State.AVAILABLE}


def replace_folder(folder: Path, affine: Affine) -> None:
    """Remove a version and put another package in its place, both between two looks of the manager."""
    shutil.rmtree(folder)
    write_package(folder, affine)
