"""`convert-and-deploy list` and `rollback`, as typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from converter.cli import app
from converter.exits import ExitCode
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import load_servable
from server.repository.folder import Repository
from tests.packages import Affine, write_package
from tests.server.lifecycle.managers import Recorder

run = CliRunner()


def repository_of(tmp_path: Path, *versions: int) -> Path:
    """A repository with versions of "m" that answer with their own number."""
    root = tmp_path / "models"
    for version in versions:
        write_package(root / "m" / str(version), Affine(scale=0.0, offset=float(version)))
    return root


def typed(*arguments: object) -> tuple[int, str]:
    """Exit code and what was printed, on both streams."""
    done = run.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    return done.exit_code, done.output


def test_versions_are_listed_with_what_they_are(tmp_path: Path) -> None:
    """The newest first, the withdrawn and the damaged ones named; as JSON the same."""
    root = repository_of(tmp_path, 1, 2, 3)
    (root / "m" / "3" / "manifest.json").unlink()
    Repository(root).withdraw("m", 2)
    code, text = typed("list", "--repository", root)
    assert code == ExitCode.DONE
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("m ")]
    assert [row[1] for row in rows] == ["3", "2", "1"]
    assert "damaged:" in rows[0]
    assert "withdrawn" in rows[1]
    code, text = typed("list", "m", "--repository", root, "--json")
    listed = json.loads(text)
    assert [(one["version"], one["withdrawn"], bool(one["problem"])) for one in listed] == [
        (3, False, True),
        (2, True, False),
        (1, False, False),
    ]
    assert listed[2]["signatures"] == ["serving_default"]


def test_an_empty_repository_says_how_to_begin(tmp_path: Path) -> None:
    """Nothing published is no error; an unknown model is, with the names that there are."""
    code, text = typed("list", "--repository", tmp_path / "none")
    assert code == ExitCode.DONE
    assert "convert-and-deploy SOURCE" in text
    code, text = typed("list", "nobody", "--repository", repository_of(tmp_path, 1))
    assert code == ExitCode.REPOSITORY
    assert "no model 'nobody'; it has m" in text


def test_a_rollback_is_served_at_once_and_can_be_undone(tmp_path: Path) -> None:
    """Servers of the latest version go back, and forth again, without a restart."""
    root = repository_of(tmp_path, 1, 2, 3)
    backend = OnnxRuntimeBackend("cpu", threads=1)
    manager = ModelManager(Repository(root), lambda p: load_servable(p, backend), observer=Recorder(), poll_seconds=0)

    def latest() -> float:
        for future in manager.poll():
            future.result(30)
        with manager.acquire("m").leased() as servable:
            ones = np.zeros((1, 4), np.float32)
            return float(servable.run(servable.signature(""), {"x_in": ones, "bias_in": ones}, ["y_out"])[0][0, 0])

    manager.start()
    assert latest() == 3
    assert typed("rollback", "m", "--repository", root)[0] == ExitCode.DONE
    assert latest() == 2
    assert typed("rollback", "m", "--to", 1, "--repository", root)[0] == ExitCode.DONE
    assert latest() == 1
    assert typed("rollback", "m", "--undo", "--repository", root)[0] == ExitCode.DONE
    assert latest() == 2
    assert typed("rollback", "m", "--undo", "--repository", root)[0] == ExitCode.DONE
    assert latest() == 3
    manager.stop()
    assert sorted(entry.name for entry in (root / "m").iterdir()) == ["1", "2", "3"]


def test_a_withdrawn_number_is_never_given_again(tmp_path: Path) -> None:
    """What is published after a rollback gets a new number: whoever asks for the old one gets no other model."""
    root = repository_of(tmp_path, 1, 2)
    typed("rollback", "m", "--repository", root)
    with Repository(root).publishing("m") as publication:
        (publication.folder / "model.onnx").write_bytes(b"")
        version, _ = publication.commit()
    assert version == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["m"], "Version 1 is the only one of 'm'"),
        (["m", "--to", "7"], "no version 7 in service; it has 1"),
        (["m", "--undo"], "No version of 'm' is withdrawn"),
        (["nobody"], "no model 'nobody'; it has m"),
    ],
)
def test_what_cannot_be_rolled_back_says_why(tmp_path: Path, arguments: list[str], text: str) -> None:
    """The repository is as it was, and the exit code tells."""
    root = repository_of(tmp_path, 1)
    code, said = typed("rollback", *arguments, "--repository", root)
    assert code == ExitCode.REPOSITORY
    assert text in said
    assert [entry.name for entry in (root / "m").iterdir()] == ["1"]


def test_the_newest_already_is_nothing_to_do(tmp_path: Path) -> None:
    """Going back to what is served is no error and changes nothing."""
    root = repository_of(tmp_path, 1, 2)
    code, text = typed("rollback", "m", "--to", 2, "--repository", root)
    assert code == ExitCode.DONE
    assert "nothing to do" in text
