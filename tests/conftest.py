"""What every kind of test may need: the small models of `tests.models.zoo`, written once per session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import free_port

ROOT = Path(__file__).parent.parent

# Commands that name no server must not find one that happens to run on this machine.
os.environ["SEGUE_SERVER"] = f"localhost:{free_port()}"
# Servers that are not about the choice between backends have one: nothing compiles beside what is tested.
os.environ["SEGUE_BACKENDS"] = "onnxruntime"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of the zoo, by its name; never written to by tests."""
    folder = tmp_path_factory.mktemp("zoo")
    command = [sys.executable, "-m", "tests.models.zoo", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder
