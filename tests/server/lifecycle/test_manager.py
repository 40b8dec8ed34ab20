"""Tests of `server.lifecycle.manager` and `server.lifecycle.servable`, on real packages and ONNX Runtime."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import (
    InvalidRequest,
    LabelPending,
    LabelUnavailable,
    ModelNotFound,
    ReloadOverdue,
    ReloadSuperseded,
    SegueError,
    SignatureNotFound,
    StatusNotFound,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.plan import ModelPolicy
from server.lifecycle.servable import Loaded, Servable, load_servable
from server.lifecycle.states import State, VersionStatus
from server.repository.folder import Repository
from server.repository.package import Package
from server.repository.places import Places
from tests.packages import Affine, joined, write_package


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


@pytest.fixture
def recorder() -> Recorder:
    """An observer."""
    return Recorder()


@pytest.fixture
def manager(tmp_path: Path, recorder: Recorder) -> Iterator[ModelManager]:
    """A manager of the folder `tmp_path`, not watching."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    made = ModelManager(Repository(tmp_path), lambda package: load_servable(package, backend), observer=recorder)
    yield made
    made.stop(timeout=10)


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


def test_a_new_version_replaces_the_old_one(manager: ModelManager, recorder: Recorder, tmp_path: Path) -> None:
    """A folder that appears is served without a restart; the old version goes only after that."""
    write_package(tmp_path / "affine" / "1", Affine(scale=2))
    settle(manager)
    with manager.acquire("affine").leased() as servable:
        assert (servable.version, answer(servable)) == (1, 3.0)
    write_package(tmp_path / "affine" / "2", Affine(scale=5))
    settle(manager)
    with manager.acquire("affine").leased() as servable:
        assert (servable.version, answer(servable)) == (2, 6.0)
    assert states(manager) == {2: State.AVAILABLE, 1: State.END}
    order = [(version, state) for _, version, state in recorder.changes]
    assert order.index((2, State.AVAILABLE)) < order.index((1, State.UNLOADING))


def test_a_version_in_use_is_kept_until_its_requests_end(
    manager: ModelManager, recorder: Recorder, tmp_path: Path
) -> None:
    """A request that began on a version ends on it, however long it takes."""
    write_package(tmp_path / "affine" / "1", Affine(scale=2))
    settle(manager)
    old = manager.acquire("affine")
    write_package(tmp_path / "affine" / "2")
    replacing = threading.Thread(target=settle, args=(manager,), name="replace")
    with joined(replacing):
        recorder.wait_for("affine", 1, State.UNLOADING)
        assert answer(old) == 3.0
        assert not old.lease()
        old.release()
    assert states(manager) == {2: State.AVAILABLE, 1: State.END}


def test_a_damaged_version_says_so_and_everything_else_serves_on(manager: ModelManager, tmp_path: Path) -> None:
    """One bad folder costs nothing but itself: its error is in its status."""
    write_package(tmp_path / "affine" / "1")
    write_package(tmp_path / "other" / "1")
    settle(manager)
    write_package(tmp_path / "affine" / "2")
    (tmp_path / "affine" / "2" / "golden.npz").unlink()
    settle(manager)
    assert states(manager) == {2: State.END, 1: State.AVAILABLE}
    error = manager.statuses("affine", 2)[0].error
    assert error is not None
    assert "golden.npz" in error.message
    manager.acquire("other").release()


def test_a_damaged_version_is_loaded_once_it_is_whole(manager: ModelManager, tmp_path: Path) -> None:
    """A slow copy that was seen half-way ends as a served version without anybody's help."""
    write_package(tmp_path / "affine" / "1")
    (tmp_path / "affine" / "1" / "golden.npz").rename(tmp_path / "golden.npz")
    settle(manager)
    assert states(manager) == {1: State.END}
    assert manager.poll() == [], "the same damage is not read again and again"
    (tmp_path / "golden.npz").rename(tmp_path / "affine" / "1" / "golden.npz")
    assert manager.poll() == [], "files that have just changed may still be changing"
    settle(manager)
    assert states(manager) == {1: State.AVAILABLE}


def test_a_version_that_answers_otherwise_than_tensorflow_never_serves(manager: ModelManager, tmp_path: Path) -> None:
    """The proof on this machine stands between a package and clients."""
    write_package(tmp_path / "affine" / "1", Affine(scale=2))
    write_package(tmp_path / "affine" / "2", Affine(scale=2, claimed_scale=2.001))
    settle(manager)
    assert states(manager) == {2: State.END, 1: State.AVAILABLE}
    error = manager.statuses("affine", 2)[0].error
    assert error is not None
    assert "does not reproduce TensorFlow's answer for output 'y'" in error.message


def test_removing_a_model_unloads_it(manager: ModelManager, tmp_path: Path) -> None:
    """A model whose folder is gone is no longer there, but its end can still be asked for."""
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    shutil.rmtree(tmp_path / "affine")
    settle(manager)
    assert states(manager) == {1: State.END}
    with pytest.raises(ModelNotFound, match=r"Servable not found for request: Latest\(affine\)"):
        manager.acquire("affine")


def test_asking_for_what_is_not_there(manager: ModelManager, tmp_path: Path) -> None:
    """Unknown models, versions, labels and signatures get TensorFlow Serving's texts."""
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    with pytest.raises(ModelNotFound, match=r"^Servable not found for request: Latest\(nope\)$"):
        manager.acquire("nope")
    with pytest.raises(ModelNotFound, match=r"^Servable not found for request: Specific\(affine, 7\)$"):
        manager.acquire("affine", 7)
    with pytest.raises(InvalidRequest, match=r"^Unrecognized servable version label: stable$"):
        manager.acquire("affine", label="stable")
    with pytest.raises(StatusNotFound, match=r"^Could not find version 7 of model affine$"):
        manager.statuses("affine", 7)
    with pytest.raises(StatusNotFound, match=r"^Could not find any versions of model nope$"):
        manager.statuses("nope")
    servable = manager.acquire("affine", 1)
    with servable.leased(), pytest.raises(SignatureNotFound, match=r'^Serving signature key "predict" not found\.$'):
        servable.signature("predict")


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


def test_watching_loads_what_appears(manager: ModelManager, recorder: Recorder, tmp_path: Path) -> None:
    """After `start` nobody has to ask: the watch finds new versions."""
    manager.start()
    write_package(tmp_path / "affine" / "1")
    recorder.wait_for("affine", 1, State.AVAILABLE)


def numbers(manager: ModelManager, name: str = "affine") -> set[int]:
    """The available versions."""
    return {version for version, state in states(manager, name).items() if state is State.AVAILABLE}


def places(root: Path, *names: str) -> Places:
    """The models below a root, as a configuration would list them."""
    return Places({name: root / name for name in names})


def test_policies_decide_which_versions_serve(manager: ModelManager, recorder: Recorder, tmp_path: Path) -> None:
    """A model's policy is exchanged while it serves, without a moment in which no version answers."""
    for version in (1, 2, 3):
        write_package(tmp_path / "affine" / str(version), Affine(scale=version))
    policies = [ModelPolicy.specific([1]), ModelPolicy.all(), ModelPolicy.latest(2), ModelPolicy.specific([1])]
    for policy, expected in zip(policies, ({1}, {1, 2, 3}, {2, 3}, {1}), strict=True):
        manager.configure(places(tmp_path, "affine"), {"affine": policy})
        settle_busy(manager)
        assert numbers(manager) == expected
    order = [(version, state) for _, version, state in recorder.changes]
    serving = 0
    for _, state in order[order.index((1, State.AVAILABLE)) :]:
        serving += {State.AVAILABLE: 1, State.UNLOADING: -1}.get(state, 0)
        assert serving > 0


def settle_busy(manager: ModelManager) -> None:
    """Wait until no model has anything to do."""
    with manager._changed:
        assert manager._changed.wait_for(lambda: not any(m.busy for m in manager._models.values()), timeout=20)


def test_a_label_is_another_name_for_a_version(manager: ModelManager, tmp_path: Path) -> None:
    """Requests by label get the labelled version, and follow when the label is moved."""
    for version in (1, 2):
        write_package(tmp_path / "affine" / str(version), Affine(scale=version))
    both = ModelPolicy.specific([1, 2])
    manager.configure(places(tmp_path, "affine"), {"affine": both})
    settle_busy(manager)
    for version in (1, 2):
        manager.configure(places(tmp_path, "affine"), {"affine": replace(both, labels={"stable": version})})
        with manager.acquire("affine", label="stable").leased() as servable:
            assert servable.version == version
    with pytest.raises(LabelUnavailable, match="version 3 of model affine, which is not currently available"):
        manager.configure(places(tmp_path), {"affine": replace(both, labels={"stable": 3})})
    manager.acquire("affine", label="stable").release()
    assert manager.names() == {"affine"}, "a refused configuration has changed nothing"


def test_at_the_start_labels_wait_for_their_versions(tmp_path: Path, recorder: Recorder) -> None:
    """A configuration with labels can be started from; a label whose version comes later is in force from then on."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    release = threading.Event()

    def load(package: Package) -> Loaded:
        assert release.wait(20)
        return load_servable(package, backend)

    policies = {"affine": ModelPolicy(count=None, labels={"stable": 1, "canary": 2})}
    manager = ModelManager(places(tmp_path, "affine"), load, observer=recorder, policies=policies, poll_seconds=0)
    write_package(tmp_path / "affine" / "1")
    with joined(threading.Thread(target=manager.start, name="start")):
        recorder.wait_for("affine", 1, State.LOADING)
        with pytest.raises(LabelPending, match=r"Model labels does not init yet\.stable"):
            manager.acquire("affine", label="stable")
        release.set()
    with manager.acquire("affine", label="stable").leased() as servable:
        assert servable.version == 1
    with pytest.raises(InvalidRequest, match="Unrecognized servable version label: canary"):
        manager.acquire("affine", label="canary")
    write_package(tmp_path / "affine" / "2")
    settle(manager)
    with manager.acquire("affine", label="canary").leased() as servable:
        assert servable.version == 2
    manager.stop()


def test_labels_may_come_before_versions_if_told_so(tmp_path: Path, recorder: Recorder) -> None:
    """A label whose version is not there gets the version's own error, as in TensorFlow Serving."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(
        Repository(tmp_path),
        lambda package: load_servable(package, backend),
        observer=recorder,
        labels_before_versions=True,
    )
    write_package(tmp_path / "affine" / "1")
    manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy(labels={"canary": 2})})
    with pytest.raises(ModelNotFound, match=r"^Servable not found for request: Specific\(affine, 2\)$"):
        manager.acquire("affine", label="canary")
    manager.stop()


def test_models_that_a_new_configuration_leaves_out_are_unloaded(manager: ModelManager, tmp_path: Path) -> None:
    """A configuration supersedes the one before; a model that is added again is loaded again."""
    for name in ("affine", "other"):
        write_package(tmp_path / name / "1")
    settle(manager)
    assert manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()}).new == frozenset()
    settle_busy(manager)
    assert states(manager, "other") == {1: State.END}
    manager.acquire("affine").release()
    policies = {"affine": ModelPolicy(), "other": ModelPolicy()}
    reload = manager.configure(places(tmp_path, "affine", "other"), policies)
    assert reload.new == {"other"}
    assert manager.wait_for(reload, 20, lambda: True) == {}
    manager.acquire("other").release()


def test_waiting_for_new_models_ends_with_the_error_of_one_that_does_not_load(
    manager: ModelManager, tmp_path: Path
) -> None:
    """Whoever reconfigures learns at once what did not work; adding the model once more tries it once more."""
    write_package(tmp_path / "affine" / "1", Affine(claimed_scale=3))
    for _ in range(2):
        manager.configure(places(tmp_path), {})
        settle_busy(manager)
        reload = manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()})
        (failed,) = manager.wait_for(reload, 20, lambda: True).values()
        assert failed.version == 1
        assert failed.error is not None
        assert "does not reproduce" in failed.error.message


def test_waiting_for_a_model_without_versions_ends_with_the_deadline_or_the_caller(
    manager: ModelManager, tmp_path: Path
) -> None:
    """The configuration stays in force, and the model is loaded when its version comes."""
    reload = manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()})
    with pytest.raises(ReloadOverdue, match="still loading: affine"):
        manager.wait_for(reload, 0.01, lambda: True)
    with pytest.raises(ReloadOverdue):
        manager.wait_for(reload, None, lambda: False)
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    assert manager.wait_for(reload, 20, lambda: True) == {}


@pytest.mark.parametrize("end", ["another", "stop"])
def test_waiting_ends_when_it_has_become_pointless(manager: ModelManager, tmp_path: Path, end: str) -> None:
    """A wrong path in one configuration neither blocks the next one nor the server's end."""
    reload = manager.configure(places(tmp_path, "typo"), {"typo": ModelPolicy()})
    caught: list[str] = []

    def wait_for_typo() -> None:
        try:
            manager.wait_for(reload, 20, lambda: True)
        except ReloadSuperseded as error:
            caught.append(error.message)

    with joined(threading.Thread(target=wait_for_typo, name="waiting")):
        if end == "another":
            manager.configure(places(tmp_path), {})
        else:
            manager.stop()
    assert caught == ["another configuration has replaced this one" if end == "another" else "the server is ending"]


def test_a_place_that_is_away_costs_nothing(
    manager: ModelManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was loaded from a disk that is unmounted for a moment goes on, with one line in the log."""
    write_package(tmp_path / "affine" / "1")
    manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()})
    settle_busy(manager)
    (tmp_path / "affine").rename(tmp_path / "away")
    for _ in range(3):
        settle(manager)
    manager.acquire("affine").release()
    assert [record.getMessage() for record in caplog.records] == [
        f"model affine: there is no folder {tmp_path / 'affine'}"
    ]
    (tmp_path / "affine").mkdir()
    settle(manager)
    assert states(manager) == {1: State.END}


def replace_folder(folder: Path, affine: Affine) -> None:
    """Remove a version and put another package in its place, both between two looks of the manager."""
    shutil.rmtree(folder)
    write_package(folder, affine)


def test_a_number_that_is_used_again_is_noticed(manager: ModelManager, recorder: Recorder, tmp_path: Path) -> None:
    """A version deleted and made anew between two looks is replaced without a moment in which none answers."""
    write_package(tmp_path / "affine" / "1", Affine(scale=2))
    settle(manager)
    replace_folder(tmp_path / "affine" / "1", Affine(scale=5))
    assert manager.poll() == [], "files that have just changed may still be changing"
    old = manager.acquire("affine")
    with joined(threading.Thread(target=settle, args=(manager,), name="replace")):
        assert answer(old) == 3.0
        old.release()
    with manager.acquire("affine").leased() as servable:
        assert answer(servable) == 6.0
    assert [state for _, _, state in recorder.changes] == [State.START, State.LOADING, State.AVAILABLE]
    assert manager.poll() == []


def test_a_package_that_does_not_load_replaces_nothing(
    manager: ModelManager, recorder: Recorder, tmp_path: Path
) -> None:
    """What serves goes on, the refusal is told once, and a better package is taken when it comes."""
    write_package(tmp_path / "affine" / "1", Affine(scale=2))
    settle(manager)
    replace_folder(tmp_path / "affine" / "1", Affine(scale=5, claimed_scale=7))
    for _ in range(4):
        settle(manager)
    ((model, version, text),) = recorder.not_replaced_with
    assert (model, version) == ("affine", 1)
    assert "does not reproduce" in text
    with manager.acquire("affine", 1).leased() as servable:
        assert answer(servable) == 3.0
    replace_folder(tmp_path / "affine" / "1", Affine(scale=7))
    for _ in range(2):
        settle(manager)
    with manager.acquire("affine", 1).leased() as servable:
        assert answer(servable) == 8.0


def test_the_same_package_copied_anew_is_not_loaded_again(manager: ModelManager, tmp_path: Path) -> None:
    """Restoring a backup over a repository costs nothing."""
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    before = manager.acquire("affine")
    before.release()
    shutil.copytree(tmp_path / "affine" / "1", tmp_path / "copy")
    shutil.rmtree(tmp_path / "affine" / "1")
    (tmp_path / "copy").rename(tmp_path / "affine" / "1")
    for _ in range(3):
        assert manager.poll() == []
    with manager.acquire("affine").leased() as servable:
        assert servable is before


def test_a_number_comes_back_after_a_rollback(manager: ModelManager, tmp_path: Path) -> None:
    """Version 2 is deleted, version 1 serves again, and the next version 2 is another one."""
    write_package(tmp_path / "affine" / "1", Affine(scale=1))
    write_package(tmp_path / "affine" / "2", Affine(scale=2))
    settle(manager)
    shutil.rmtree(tmp_path / "affine" / "2")
    settle(manager)
    assert numbers(manager) == {1}
    write_package(tmp_path / "affine" / "2", Affine(scale=3))
    settle(manager)
    with manager.acquire("affine", 2).leased() as servable:
        assert answer(servable) == 4.0


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
