"""Tests of `server.repository.folder`."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.errors import InvalidName, NameLocked, RepositoryUnwritable
from server.repository.folder import Repository, writing


def tree(root: Path) -> set[str]:
    """Every path below a folder."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def publish(repository: Repository, name: str, content: str = "x") -> int:
    """Publish a package of one file."""
    with repository.publishing(name) as publication:
        (publication.folder / "file").write_text(content)
        version, folder = publication.commit()
        assert folder == repository.root / name / str(version)
    return version


def test_versions_count_up_and_nothing_else_is_left(tmp_path: Path) -> None:
    """A repository holds published packages and no traces of how they came."""
    repository = Repository(tmp_path / "deep" / "models")
    assert [publish(repository, "m") for _ in range(3)] == [1, 2, 3]
    assert tree(repository.root) == {"m", *(f"m/{v}" for v in (1, 2, 3)), *(f"m/{v}/file" for v in (1, 2, 3))}
    assert list(repository.scan()["m"] or ()) == [1, 2, 3]


def test_an_abandoned_publication_leaves_no_trace(tmp_path: Path) -> None:
    """A conversion that fails leaves the repository exactly as it was, even if there was none."""
    repository = Repository(tmp_path / "models")

    def fail_half_way() -> None:
        with repository.publishing("m") as publication:
            (publication.folder / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert tree(tmp_path) == set()


def test_the_name_is_held_while_publishing(tmp_path: Path) -> None:
    """Two conversions of one name at once: the second is told who holds it, other names go on."""
    repository = Repository(tmp_path)
    with repository.publishing("m"):
        with pytest.raises(NameLocked, match=f"pid {os.getpid()}"), Repository(tmp_path).publishing("m"):
            pass
        assert publish(repository, "other") == 1
    assert publish(repository, "m") == 1


def test_a_killed_publisher_leaves_nothing_that_lasts(tmp_path: Path) -> None:
    """Kill -9 in the middle: no version appears, the name is free, and the next publisher sweeps up."""
    script = (
        "import os, signal, sys, pathlib\n"
        "from server.repository.folder import Repository\n"
        "with Repository(pathlib.Path(sys.argv[1])).publishing('m') as p:\n"
        "    (p.folder / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    repository = Repository(tmp_path)
    assert repository.scan() == {}
    assert publish(repository, "m") == 1
    assert tree(tmp_path) == {"m", "m/1", "m/1/file"}


def test_a_version_copied_in_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    """The next free number is taken at the moment of the rename."""
    repository = Repository(tmp_path)
    with repository.publishing("m") as publication:
        (publication.folder / "file").write_text("ours")
        (tmp_path / "m" / "7").mkdir(parents=True)
        assert publication.commit()[0] == 8


@pytest.mark.parametrize("name", ["../m", ".m", "a/b"])
def test_names_are_checked_before_paths_are_built(tmp_path: Path, name: str) -> None:
    """No name leads out of the repository."""
    with pytest.raises(InvalidName), Repository(tmp_path).publishing(name):
        pass


def test_a_file_in_place_of_the_repository_is_said(tmp_path: Path) -> None:
    """The text names the path and the option to change it."""
    (tmp_path / "models").write_text("")
    with pytest.raises(RepositoryUnwritable, match="--repository"), Repository(tmp_path / "models").publishing("m"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_words(tmp_path: Path, number: int) -> None:
    """The user reads what is full and what to do, not an errno."""
    with pytest.raises(RepositoryUnwritable, match="No space is left"), writing(tmp_path):
        raise OSError(number, os.strerror(number))


def test_the_scan_leaves_foreign_entries_alone(tmp_path: Path) -> None:
    """Files, hidden folders and folders that are no versions are nobody's models."""
    for folder in ("m/1", "m/01", "m/notes", ".git/1", "bad name/1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README").write_text("")
    (tmp_path / "m" / "2").write_text("a file, no version")
    assert {name: list(versions or ()) for name, versions in Repository(tmp_path).scan().items()} == {"m": [1]}
    assert Repository(tmp_path / "missing").scan() == {}


def test_one_bad_entry_hides_nothing_else(tmp_path: Path) -> None:
    """A link to itself, or a model's folder that cannot be listed, costs only itself."""
    (tmp_path / "good" / "1").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "loop").symlink_to("loop")
    found = Repository(tmp_path).scan()
    assert list(found["good"] or ()) == [1]
    assert "loop" not in found
