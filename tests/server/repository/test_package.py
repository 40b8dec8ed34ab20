"""Tests of `server.repository.package`."""

from pathlib import Path

import pytest

from server.errors import DamagedPackage
from server.repository.package import fingerprint, open_package
from tests.packages import write_manifest, write_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole package."""
    path = tmp_path / "affine" / "1"
    write_package(path)
    return path


def test_a_whole_package_opens(folder: Path) -> None:
    """What was written can be read: manifest, golden arrays, digests."""
    package = open_package("affine", 1, folder)
    assert [s.name for s in package.manifest.signatures] == ["serving_default"]
    assert package.golden_arrays()["1/inputs/x"].shape == (1, 4)


def test_an_altered_file_is_named(folder: Path) -> None:
    """One flipped byte of the model is found before the model is loaded."""
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "model.onnx").write_bytes(bytes(data))
    with pytest.raises(DamagedPackage, match=r"model\.onnx is not the file that was published: its contents"):
        open_package("affine", 1, folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    """A copy that broke off is told from an altered file by its size."""
    (folder / "golden.npz").write_bytes((folder / "golden.npz").read_bytes()[:100])
    with pytest.raises(DamagedPackage, match=r"golden\.npz is not the file that was published: 100 bytes instead of"):
        open_package("affine", 1, folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    """The text says which file to copy again."""
    (folder / "golden.npz").unlink()
    with pytest.raises(DamagedPackage, match=r"lacks golden\.npz"):
        open_package("affine", 1, folder)


def test_an_unlisted_file_is_refused(folder: Path) -> None:
    """Nothing that the manifest does not vouch for can be read as a graph's external data."""
    (folder / "weights.bin").write_bytes(b"planted")
    with pytest.raises(DamagedPackage, match=r"holds weights\.bin"):
        open_package("affine", 1, folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    """A package's files are its own, even where a link's target has the right contents."""
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(DamagedPackage, match="not a regular file"):
        open_package("affine", 1, folder)


def test_a_saved_model_gets_the_command_that_converts_it(tmp_path: Path) -> None:
    """Whoever points the server at a TensorFlow Serving folder is told what to type."""
    folder = tmp_path / "resnet" / "3"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(DamagedPackage, match=f"convert-and-deploy {folder} --name resnet"):
        open_package("resnet", 3, folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"opset": "many"}', '{"unknown_field": 1}', "\xff"])
def test_a_manifest_that_is_none_is_a_named_error(folder: Path, text: str) -> None:
    """Whatever the manifest holds, reading it ends in a package or in DamagedPackage."""
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DamagedPackage, match="manifest"):
        open_package("affine", 1, folder)


def test_a_manifest_of_the_future_is_refused_with_advice(folder: Path) -> None:
    """An older server does not guess at a newer layout."""
    package = open_package("affine", 1, folder)
    package.manifest.schema_version = 99
    write_manifest(folder, package.manifest)
    with pytest.raises(DamagedPackage, match="schema version 99; this server reads 1 to 1"):
        open_package("affine", 1, folder)


def test_the_fingerprint_follows_every_change(folder: Path) -> None:
    """A damaged version is tried again after, and only after, its files change."""
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / "manifest.json").write_text("{}")
    assert fingerprint(folder) != before
