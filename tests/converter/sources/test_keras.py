"""Tests of `converter.sources.keras` and `converter.sources.recognise`; loading is tested with the worker."""

import hashlib
import zipfile
from pathlib import Path

import h5py
import pytest

from converter.errors import NotAModel
from converter.sources.keras import KerasSource
from converter.sources.recognise import recognise


def test_a_keras_archive_is_recognised(tmp_path: Path) -> None:
    """A .keras file is told by its archive, and known by its bytes' digest."""
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert recognise(path, ["serve"]) == KerasSource(
        path, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    )


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "m.model"])
def test_an_hdf5_file_is_recognised_by_content(tmp_path: Path, name: str) -> None:
    """Keras 2 files have many names; the first bytes decide."""
    h5py.File(tmp_path / name, "w").close()
    assert isinstance(recognise(tmp_path / name, ["serve"]), KerasSource)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.keras", b"", "neither a .keras archive nor an HDF5 file"),
        ("m.h5", b"\x89HD", "neither a .keras archive nor an HDF5 file"),
        ("m.keras", b"PK\x03\x04 cut off", "damaged .keras archive"),
        ("notes.txt", b"hello", "is no model of a kind known here"),
        ("frozen.pb", b"\n\x00", "is no model of a kind known here"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """The user reads what the file is not, and what to give instead."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAModel) as caught:
        recognise(tmp_path / name, ["serve"])
    assert words in caught.value.cause
    assert caught.value.advice


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    """An archive without config.json has no model to convert."""
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(NotAModel, match=r"without config\.json"):
        recognise(tmp_path / "m.keras", ["serve"])
