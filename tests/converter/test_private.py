"""Tests of `converter.private`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from converter.private import private_folder
from tests.e2e.processes import ROOT


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nobody_else_enters_and_nothing_is_left(temporary: Path) -> None:
    """The folder is its user's alone, and goes with its contents."""
    with private_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
    assert list(temporary.iterdir()) == []


def test_a_killed_owners_folder_is_removed_and_a_living_ones_is_not(temporary: Path) -> None:
    """Who is killed cannot clean up, so the next one does; a folder in use and strangers' folders stay."""
    script = (
        "import os, signal\n"
        "from converter.private import private_folder\n"
        "with private_folder() as folder:\n"
        "    (folder / 'file').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -9
    (killed,) = temporary.iterdir()
    stranger = temporary / "segue-export-stranger"
    stranger.mkdir()
    with private_folder() as living, private_folder() as another:
        assert not killed.exists()
        assert set(temporary.iterdir()) == {living, another, stranger}
