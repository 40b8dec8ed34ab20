"""Keras model files: `.keras` (Keras 3) and whole models in `.h5`. Recognised by content; never loaded here."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from converter.errors import NotAModel

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
_CHUNK = 4 * 2**20


@dataclass(frozen=True, slots=True)
class KerasSource:
    """A Keras file: `digest` is the SHA-256 of its bytes in hexadecimal, `size` their number."""

    path: Path
    digest: str
    size: int


def is_keras_file(path: Path) -> bool:
    """True if the file's first bytes or its name say that it should be a Keras model."""
    if path.suffix.lower() in {".keras", ".h5", ".hdf5"}:
        return True
    with path.open("rb") as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def read_keras(path: Path) -> KerasSource:
    """Check that the file is what its name says, and digest it.

    Raises:
        NotAModel: It is not, with what it is instead.
    """
    with path.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if magic.startswith(_ZIP_MAGIC):
        _check_archive(path)
    elif magic != _HDF5_MAGIC:
        raise NotAModel(
            f"The file {path} is neither a .keras archive nor an HDF5 file.",
            "Download or copy it again, or save the model again with model.save('NAME.keras').",
        )
    return KerasSource(path, digest.hexdigest(), path.stat().st_size)


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise NotAModel(
            f"The file {path} is a damaged .keras archive: {error}.",
            "Download or copy it again, or save the model again with model.save('NAME.keras').",
        ) from error
    if "config.json" not in names:
        raise NotAModel(
            f"The file {path} is an archive without config.json, so it is no Keras model.",
            "Save the whole model with model.save('NAME.keras'), not its weights alone.",
        )
