"""The parent's side: every ending of the worker becomes one error, and nothing is left behind."""

import os
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from converter import errors
from converter.export import Progress, SampleInputs, run_export
from converter.exported import ExportResult
from converter.worker.protocol import Limits
from tests.converter.conftest import Exporter, job_for


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which private folders appear, so that a test can see what is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _run(source: Path, **fields: object) -> ExportResult:
    with run_export(job_for(source, **fields), on_progress=lambda event: None) as result:  # noqa: ARG005
        return result


@pytest.mark.slow
def test_success_leaves_nothing(zoo: Path, private: Path) -> None:
    """Progress comes in order, the files are private and there while the block runs, and gone after it."""
    events: list[Progress] = []
    with run_export(job_for(zoo / "linear"), on_progress=events.append) as result:
        (folder,) = private.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert result.signatures[0].onnx.is_file()
        assert "TensorFlow" in result.tools["tensorflow"] or result.tools["tensorflow"][0].isdigit()
        assert result.tools.keys() >= {"tensorflow", "tf2onnx", "keras", "onnx", "numpy", "python"}
    assert list(private.iterdir()) == []
    assert [event.phase for event in events] == ["start", "load", "export", "golden", "map", "write"]
    assert {event.signature for event in events} == {None, "serving_default"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "error", "words"),
    [
        ("inverse", {}, errors.UnsupportedOperator, ("MatrixInverse", "solver/", "'serving_default'")),
        ("integer_table", {}, errors.UnsupportedOperator, ("LookupTableFindV2", "string<->int64")),
        ("version_1", {}, errors.UnsupportedOperator, ("ParseExample", "'classify'", "--signature")),
        ("noise", {}, errors.NondeterministicModel, ("'y'", "'serving_default'")),
        ("picky", {}, errors.InputsRejected, ("no distribution", "--inputs FILE.npz")),
        ("unsigned", {}, errors.SignatureMissing, ("no signatures",)),
        ("linear", {"signatures": ("other",)}, errors.SignatureMissing, ("'other'", "'serving_default'")),
        ("linear", {"tags": ("train",)}, errors.UnloadableModel, ("train", "tags")),
        ("lambda.keras", {}, errors.UntrustedCode, ("Lambda",)),
        ("lambda.h5", {}, errors.UntrustedCode, ("Lambda",)),
        ("only.weights.h5", {}, errors.WeightsOnly, ("load_weights",)),
        ("hungry", {}, errors.WorkerOutOfMemory, ("memory",)),
        ("abort", {}, errors.WorkerCrashed, ("SIGABRT", "the model aborts")),
    ],
)
def test_every_failure_is_named(
    zoo: Path,
    private: Path,
    *,
    name: str,
    fields: dict[str, object],
    error: type[errors.ConversionError],
    words: tuple[str, ...],
) -> None:
    """What is wrong with a model, and what to do, is said in an error of its own; no file stays."""
    with pytest.raises(errors.ConversionError) as caught:
        _run(zoo / name, **fields)
    assert type(caught.value) is error
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert list(private.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": np.zeros((1, 4), np.float32)}, "'z'"),
        ({}, "'x' is missing"),
        ({"x": np.full((1, 4), 0.1)}, "dtype float64, and float32"),
        ({"x": np.zeros(4, np.float32)}, "shape [4], and [?, 4]"),
        ({"x": np.zeros((1, 4), np.float32)}, "no distribution"),
    ],
)
def test_wrong_inputs_are_named(zoo: Path, inputs: dict[str, np.ndarray], words: str) -> None:
    """A user's file that does not fit, or that the model refuses, is never replaced by random inputs."""
    sample = SampleInputs("serving_default", "inputs file", inputs)
    with pytest.raises(errors.InputsRejected) as caught:
        _run(zoo / "picky", samples=(sample,))
    assert words in str(caught.value)


@pytest.mark.slow
def test_damaged_sources(zoo: Path, tmp_path: Path) -> None:
    """A truncated graph, a SavedModel without its variables, and a file that is no model are unloadable."""
    graph = (zoo / "linear" / "saved_model.pb").read_bytes()
    for name, content in (("truncated", graph[: len(graph) // 2]), ("alone", graph)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(content)
        with pytest.raises(errors.UnloadableModel):
            _run(tmp_path / name)
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("no model")
        with pytest.raises(errors.UnloadableModel, match=name):
            _run(tmp_path / name)


@pytest.mark.slow
def test_wall_limit(zoo: Path, private: Path) -> None:
    """A model that never answers is stopped, and its files go with it."""
    with pytest.raises(errors.WorkerTimedOut, match="10 seconds"):
        _run(zoo / "endless", wall_seconds=10.0)
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_processor_limit(zoo: Path) -> None:
    """Processor time is limited, too, whatever the wall clock says."""
    with pytest.raises(errors.WorkerTimedOut, match="8 seconds of processor time"):
        _run(zoo / "endless", limits=Limits(cpu_seconds=8))


@pytest.mark.slow
def test_memory_limit(zoo: Path) -> None:
    """A worker that may use less memory than TensorFlow needs ends as out of memory."""
    with pytest.raises(errors.WorkerOutOfMemory):
        _run(zoo / "linear", limits=Limits(memory_bytes=100 << 20))


@pytest.mark.slow
def test_file_limit(zoo: Path) -> None:
    """Results that exceed the limit for files end as a full disk."""
    with pytest.raises(errors.DiskFull):
        _run(zoo / "convolution", limits=Limits(file_bytes=8 << 10))


@pytest.mark.slow
@pytest.mark.alone
def test_interrupt_ends_the_worker(zoo: Path, private: Path) -> None:
    """Ctrl-C while the model runs ends the worker and its files, and is still Ctrl-C to the caller."""

    def interrupt(event: Progress) -> None:
        if event.phase == "golden":
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt), run_export(job_for(zoo / "endless"), on_progress=interrupt):
        pytest.fail("an endless model has no result")
    assert list(private.iterdir()) == []
    assert _children() == []


@pytest.mark.slow
def test_failing_progress_ends_the_worker(zoo: Path, private: Path) -> None:
    """An exception in the caller's own progress function passes through, after the worker has ended."""

    def fail(event: Progress) -> None:
        raise LookupError(event.message)

    with pytest.raises(LookupError), run_export(job_for(zoo / "linear"), on_progress=fail):
        pytest.fail("there is no result")
    assert list(private.iterdir()) == []
    assert _children() == []


def _children() -> list[str]:
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    return own.read_text().split() if own.exists() else []


def test_worker_sees_an_allow_list(export: Exporter, monkeypatch: pytest.MonkeyPatch, zoo: Path) -> None:
    """Secrets in the caller's environment do not reach the worker."""
    del export
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t")
    from converter.export import _environment  # noqa: PLC0415 - looks inside

    environment = _environment(zoo)
    assert "SECRET_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment["HOME"].startswith(str(zoo))
