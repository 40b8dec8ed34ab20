"""Tests of `server.lifecycle.manager`: policies, labels, and configurations that replace each other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import (
    InvalidRequest,
    LabelPending,
    LabelUnavailable,
    ModelNotFound,
    ReloadOverdue,
    ReloadSuperseded,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.plan import ModelPolicy
from server.lifecycle.servable import Loaded, load_servable
from server.lifecycle.states import State
from server.repository.folder import Repository
from server.repository.package import Package
from server.repository.places import Places
from tests.packages import Affine, joined, write_package
from tests.server.lifecycle.managers import Recorder, numbers, settle, states


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
    assert manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()}).new == {}
    settle_busy(manager)
    assert states(manager, "other") == {1: State.END}
    manager.acquire("affine").release()
    policies = {"affine": ModelPolicy(), "other": ModelPolicy()}
    reload = manager.configure(places(tmp_path, "affine", "other"), policies)
    assert reload.new == {"other": ModelPolicy()}
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


def test_waiting_ends_with_the_server(manager: ModelManager, tmp_path: Path) -> None:
    """A wrong path in a configuration does not block the server's end."""
    reload = manager.configure(places(tmp_path, "typo"), {"typo": ModelPolicy()})
    caught: list[str] = []

    def wait_for_typo() -> None:
        try:
            manager.wait_for(reload, 20, lambda: True)
        except ReloadSuperseded as error:
            caught.append(error.message)

    with joined(threading.Thread(target=wait_for_typo, name="waiting")):
        manager.stop()
    assert caught == ["the server is ending"]


SPECIFIC = ModelPolicy.specific


@pytest.mark.parametrize(
    ("first", "newer"),
    [
        (ModelPolicy(), None),
        (SPECIFIC([1]), SPECIFIC([2])),
    ],
    ids=["the model", "the version"],
)
def test_waiting_for_what_a_newer_configuration_leaves_out_ends_with_its_name(
    manager: ModelManager, tmp_path: Path, first: ModelPolicy, newer: ModelPolicy | None
) -> None:
    """A wrong path in one configuration does not block the next, and the caller reads what will not come."""
    reload = manager.configure(places(tmp_path, "typo"), {"typo": first})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(manager.wait_for, reload, 20, lambda: True)
        manager.configure(places(tmp_path, "typo"), {} if newer is None else {"typo": newer})
        (gone,) = waiting.result(20).values()
    assert (gone.version, gone.state) == (0, State.END)
    assert gone.error is not None
    assert gone.error.message == "another configuration has left it out"


@pytest.mark.parametrize("newer", [ModelPolicy(), ModelPolicy.all(), SPECIFIC([1, 2])])
def test_a_newer_configuration_with_the_same_models_lets_the_older_wait_on(
    manager: ModelManager, tmp_path: Path, newer: ModelPolicy
) -> None:
    """Two who reconfigure at once both learn when the model is there, whoever came first."""
    reload = manager.configure(places(tmp_path, "affine"), {"affine": SPECIFIC([1])})
    manager.configure(places(tmp_path, "affine", "other"), {"affine": newer, "other": ModelPolicy()})
    with pytest.raises(ReloadOverdue, match=r"still loading: affine$"):
        manager.wait_for(reload, 0.01, lambda: True)
    write_package(tmp_path / "affine" / "1")
    settle(manager)
    assert manager.wait_for(reload, 20, lambda: True) == {}


def test_a_model_that_is_being_loaded_is_new_to_the_next_configuration_too(tmp_path: Path, recorder: Recorder) -> None:
    """Whoever asks for it second does not hear that it is there before it is."""
    backend = OnnxRuntimeBackend("cpu", threads=1)
    release = threading.Event()

    def load(package: Package) -> Loaded:
        assert release.wait(20)
        return load_servable(package, backend)

    manager = ModelManager(Repository(tmp_path / "none"), load, observer=recorder, poll_seconds=0)
    write_package(tmp_path / "affine" / "1")
    reloads = [manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()}) for _ in range(2)]
    with pytest.raises(ReloadOverdue):
        manager.wait_for(reloads[1], 0.01, lambda: True)
    release.set()
    assert [manager.wait_for(reload, 20, lambda: True) for reload in reloads] == [{}, {}]
    assert manager.configure(places(tmp_path, "affine"), {"affine": ModelPolicy()}).new == {}
    manager.stop()


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
