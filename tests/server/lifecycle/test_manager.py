"""Tests of `server.lifecycle.manager` and `server.lifecycle.servable`, on real packages and ONNX Runtime."""

import shutil
import threading
from pathlib import Path

import pytest

from server.errors import (
    InvalidRequest,
    ModelNotFound,
    SignatureNotFound,
    StatusNotFound,
)
from server.lifecycle.manager import ModelManager
from server.lifecycle.states import State
from tests.packages import Affine, joined, write_package
from tests.server.lifecycle.managers import Recorder, answer, numbers, replace_folder, settle, states


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


def test_watching_loads_what_appears(manager: ModelManager, recorder: Recorder, tmp_path: Path) -> None:
    """After `start` nobody has to ask: the watch finds new versions."""
    manager.start()
    write_package(tmp_path / "affine" / "1")
    recorder.wait_for("affine", 1, State.AVAILABLE)


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
