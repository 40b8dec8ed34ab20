"""Reading a model package: one version folder, checked before anything of it is used.

Nothing here runs a model; nothing here writes.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from protos.segue.package_pb2 import ModelPackage
from server.arrays import Array, load_arrays
from server.errors import DamagedPackage
from server.repository.names import GOLDEN, MANIFEST

# The manifest layout that this code writes and reads.
SCHEMA_VERSION = 1
# A manifest lists signatures and initializers: 64 MiB is far above any real one and bounds what parsing may cost.
_MAX_MANIFEST_BYTES = 64 * 2**20
_CHUNK = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Package:
    """A version folder whose files are exactly those that its manifest lists, each with the right digest."""

    name: str
    version: int
    path: Path
    manifest: ModelPackage

    def golden_arrays(self, *, verify: bool = False) -> Mapping[str, Array]:
        """The golden inputs and outputs, by the keys that the manifest's cases use.

        Args:
            verify: Read the file's digest anew: another package may be in the folder by now.

        Raises:
            DamagedPackage: the file does not hold named arrays, or is not the package's.
        """
        try:
            if verify and file_digest(self.path / GOLDEN)[0] not in {file.sha256 for file in self.manifest.files}:
                raise DamagedPackage(f"{self.path / GOLDEN} is not the file that was published")
            return load_arrays(self.path / GOLDEN)
        except (ValueError, OSError) as error:
            raise DamagedPackage(f"{self.path / GOLDEN}: {error}") from error


def open_package(name: str, version: int, path: Path) -> Package:
    """Read and verify a version folder.

    Raises:
        DamagedPackage: with the file and what is wrong with it.
    """
    try:
        manifest = _read_manifest(path)
        _verify_files(path, manifest)
    except OSError as error:
        raise DamagedPackage(f"{path} cannot be read: {error.strerror}") from error
    return Package(name, version, path, manifest)


def read_manifest(path: Path) -> ModelPackage:
    """The manifest alone, its files unverified: enough to list packages or to find one to reuse.

    Raises:
        DamagedPackage: there is none, or it does not parse.
    """
    try:
        return _read_manifest(path)
    except OSError as error:
        raise DamagedPackage(f"{path} cannot be read: {error.strerror}") from error


def file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hexadecimal and size in bytes. The digest is computed off the GIL."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def fingerprint(path: Path) -> tuple[object, ...]:
    """Changes whenever a file of the folder is added, removed, replaced or written; costs no reading.

    A version that failed to load is tried again only when this changes.
    """
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError as error:
        return ("unreadable", error.errno)
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)


def identity(path: Path) -> str | None:
    """What tells the package in a version folder from every other; None where there is none.

    It is the digest of the manifest, which has the digests of all other files: unlike `fingerprint` it stays the same
    when the same files are copied anew.
    """
    manifest = path / MANIFEST
    try:
        if not stat.S_ISREG(manifest.stat().st_mode) or manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            return None
        return file_digest(manifest)[0]
    except OSError:
        return None


def _read_manifest(path: Path) -> ModelPackage:
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        if (path / "saved_model.pb").exists():
            msg = (
                f"{path} holds a TensorFlow SavedModel, not a model package: "
                f"convert it with `convert-and-deploy {path} --name {path.parent.name}`"
            )
            raise DamagedPackage(msg)
        raise DamagedPackage(f"{path} has no {MANIFEST}: it is not a model package, or not all of it was copied")
    if manifest_path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise DamagedPackage(f"{manifest_path} is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = json_format.Parse(manifest_path.read_bytes(), ModelPackage())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise DamagedPackage(f"{manifest_path} is not a manifest: {error}") from error
    if not 1 <= manifest.schema_version <= SCHEMA_VERSION:
        msg = (
            f"{manifest_path} has schema version {manifest.schema_version}; this server reads 1 to {SCHEMA_VERSION}: "
            "serve it with the version of Segue that wrote it, or convert the model again"
        )
        raise DamagedPackage(msg)
    return manifest


def _verify_files(path: Path, manifest: ModelPackage) -> None:
    listed = {file.path: file for file in manifest.files}
    found = {entry.name for entry in os.scandir(path)} - {MANIFEST}
    if missing := sorted(set(listed) - found):
        raise DamagedPackage(
            f"{path} lacks {', '.join(missing)}, which its manifest lists: copy the whole folder again"
        )
    # An unlisted file could be named by an ONNX file as external data, so nothing unlisted may lie here.
    if extra := sorted(found - set(listed)):
        raise DamagedPackage(
            f"{path} holds {', '.join(extra)}, which its manifest does not list: remove what does not belong"
        )
    for name, file in listed.items():
        file_path = path / name
        if not stat.S_ISREG(file_path.lstat().st_mode):
            raise DamagedPackage(f"{file_path} is not a regular file")
        digest, size = file_digest(file_path)
        if (digest, size) != (file.sha256, file.bytes):
            what = f"{size} bytes instead of {file.bytes}" if size != file.bytes else "its contents have changed"
            msg = f"{file_path} is not the file that was published: {what}"
            raise DamagedPackage(msg)
