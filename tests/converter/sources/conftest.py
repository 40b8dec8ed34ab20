"""Models that TensorFlow itself wrote, in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("write_saved_models.py")


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of SavedModels: tf2 (with warm-up records), tf1, train_only, without_signatures. Not to be changed."""
    out = tmp_path_factory.mktemp("saved_models")
    subprocess.run(
        [sys.executable, str(CHILD), str(out)],
        check=True,
        cwd=out,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=180,
    )
    return out


@pytest.fixture
def copy(saved_models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a private copy of one of them, to be spoilt."""

    def make(name: str) -> Path:
        target: Path = shutil.copytree(saved_models / name, tmp_path / name)
        return target

    return make
