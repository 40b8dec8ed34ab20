"""Managers for tests of the life-cycle."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import load_servable
from server.repository.folder import Repository
from tests.server.lifecycle.managers import Recorder


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
