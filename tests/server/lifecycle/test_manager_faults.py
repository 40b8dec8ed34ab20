"""Tests of `server.lifecycle.manager`: requests and disks that hang, and an end at any moment."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import (
    SegueError,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Loaded, load_servable
from server.lifecycle.states import State
from server.repository.folder import Repository
from server.repository.package import Package
from tests.packages import Affine, joined, write_package
from tests.server.lifecycle.managers import Recorder, answer, replace_folder, settle, states


def test_an_unforeseen_failure_of_one_version_does_not_end_the_watch(tmp_path: Path, recorder: Recorder) -> None:
    """A bug in loading costs the version that meets it, nothing else."""
    backend = OnnxRuntimeBackend("cpu", threads=1)

    def load(package: Package) -> Loaded:
        if package.name == "cursed":
            raise ZeroDivisionError
        return load_servable(package, backend)

    manager = ModelManager(Repository(tmp_path), load, observer=recorder)
    write_package(tmp_path / "cursed" / "1")
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    assert states(manager, "cursed") == {1: State.END}
    assert states(manager) == {1: State.AVAILABLE}
    manager.stop()


def test_a_request_that_hangs_holds_up_nothing_else(tmp_path: Path, recorder: Recorder) -> None:
    """Its model gets new versions, also of the number that it holds, and after a time its memory is given back."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(
        Repository(tmp_path),
        lambda package: load_servable(package, backend),
        observer=recorder,
        load_threads=1,
        unload_seconds=0.1,
    )
    write_package(tmp_path / "affine" / "1", Affine(scale=1))
    settle(manager)
    hanging = manager.acquire("affine")
    write_package(tmp_path / "affine" / "2", Affine(scale=2))
    settle(manager)  # the one loading thread is free again
    recorder.wait_for("affine", 1, State.END)
    with pytest.raises(SegueError, match="the graph is closed"):
        answer(hanging)
    replace_folder(tmp_path / "affine" / "1", Affine(scale=5))
    shutil.rmtree(tmp_path / "affine" / "2")
    settle(manager)
    with manager.acquire("affine").leased() as servable:
        assert (servable.version, answer(servable)) == (1, 6.0)
    hanging.release()
    manager.stop()


def test_stopping_waits_for_all_requests_together(tmp_path: Path, recorder: Recorder) -> None:
    """The time that an end may take does not grow with the number of models."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(Repository(tmp_path), lambda package: load_servable(package, backend), observer=recorder)
    for number in range(8):
        write_package(tmp_path / f"affine-{number}" / "1")
    settle(manager)
    for number in range(8):
        manager.acquire(f"affine-{number}")
    begin = time.monotonic()
    manager.stop(timeout=0.25)
    assert time.monotonic() - begin < 1.5
    assert all(states(manager, f"affine-{number}") == {1: State.END} for number in range(8))


class Stuck:
    """A folder on a disk that does not answer, once it has hung."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reached = threading.Event()
        self.answers = threading.Event()
        self.answers.set()

    @property
    def is_empty(self) -> bool:
        """See Source."""
        return False

    def __fspath__(self) -> str:
        self.reached.set()
        assert self.answers.wait(20)
        return str(self._path)

    def __truediv__(self, name: str) -> Path:
        return Path(self) / name

    def scan(self) -> dict[str, dict[int, Any]]:
        """The one model whose one version lies in this folder; see Source."""
        return {"affine": {1: self}}


class Stopping(Recorder):
    """Stops its manager while it is told that a version has been loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.manager: ModelManager | None = None
        self.seen: dict[int, State] = {}

    def loaded(self, loaded: Loaded) -> None:
        """See Observer."""
        assert self.manager is not None
        self.seen = states(self.manager, loaded.servable.name)
        self.manager.acquire("affine").release()
        self.manager.stop(timeout=10)


def test_a_version_that_answers_is_available_and_can_be_stopped_at_once(tmp_path: Path) -> None:
    """No moment lies between the two: an end of the server beside the end of a load is an orderly one."""
    write_package(tmp_path / "affine" / "1")
    recorder = Stopping()
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(Repository(tmp_path), lambda package: load_servable(package, backend), observer=recorder)
    recorder.manager = manager
    for future in manager.poll():
        future.result(timeout=20)
    assert recorder.seen == {1: State.AVAILABLE}
    assert states(manager) == {1: State.END}
    assert [state for _, _, state in recorder.changes] == list(State)


def test_an_error_is_forgotten_with_its_folder_and_the_observer_learns_it(
    manager: ModelManager, recorder: Recorder, tmp_path: Path
) -> None:
    """Failures do not add up over months, neither here nor where they were told."""
    write_package(tmp_path / "affine" / "1")
    write_package(tmp_path / "affine" / "2", Affine(claimed_scale=3))
    settle(manager)
    assert states(manager) == {2: State.END, 1: State.AVAILABLE}
    assert recorder.forgotten_versions == []
    shutil.rmtree(tmp_path / "affine" / "2")
    settle(manager)
    assert states(manager) == {1: State.AVAILABLE}
    assert recorder.forgotten_versions == [("affine", 2)]


def test_a_disk_that_hangs_keeps_no_answer_back(tmp_path: Path, recorder: Recorder) -> None:
    """While the manager waits for a folder, requests and questions for the status are answered."""
    write_package(tmp_path / "1")
    stuck = Stuck(tmp_path / "1")
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(stuck, lambda package: load_servable(package, backend), observer=recorder)
    settle(manager)
    stuck.reached.clear()
    stuck.answers.clear()
    with joined(threading.Thread(target=settle, args=(manager,), name="look")):
        assert stuck.reached.wait(20)
        assert states(manager) == {1: State.AVAILABLE}
        with manager.acquire("affine").leased() as servable:
            assert answer(servable) == 3.0
        stuck.answers.set()
    manager.stop()
