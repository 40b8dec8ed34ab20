"""A repository in a folder: which models and versions are there, and how a new version gets in.

Publishing is atomic: the package is completed in a work folder inside the repository and renamed into place, so that a
crash at any point leaves either nothing or a whole version. Published versions are never written to again.
"""

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from server.errors import NameLocked, RepositoryUnwritable
from server.repository.names import WITHDRAWN, WORK_FOLDER, check_model_name, is_model_name, parse_version

logger = logging.getLogger(__name__)


class Repository:
    """REPOSITORY/NAME/VERSION folders below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_empty = False
        """See `places.Source`. A root that does not exist may be a disk that is not there yet."""
        self._unreadable: set[str] = set()

    def scan(self) -> Mapping[str, Mapping[int, Path] | None]:
        """Every model's version folders, whole or damaged; None for a model whose folder cannot be listed.

        Files and folders of other names are left alone.

        Raises:
            OSError: the root cannot be listed. A root that does not exist holds no models.
        """
        self.is_empty = False
        there = self.root.is_dir()
        models: dict[str, Mapping[int, Path] | None] = {}
        for entry in _folders(self.root):
            if is_model_name(entry.name):
                try:
                    models[entry.name] = version_folders(Path(entry.path))
                except OSError as error:
                    models[entry.name] = None
                    if entry.name not in self._unreadable:
                        logger.warning(
                            "model %s is left as it is: %s cannot be listed: %s", entry.name, entry.path, error
                        )
        self._unreadable = {name for name, versions in models.items() if versions is None}
        self.is_empty = there and not self._unreadable and not any(models.values())
        return models

    def versions(self, name: str) -> Mapping[int, Path]:
        """The version folders of one model, lowest first; empty if there is no such model."""
        return version_folders(self.root / check_model_name(name))

    def withdrawn(self, name: str) -> Mapping[int, Path]:
        """The versions of a model that were taken out of service, lowest first."""
        return version_folders(self.root / check_model_name(name) / WITHDRAWN)

    def withdraw(self, name: str, version: int) -> None:
        """Take a version out of service with one rename: servers unload it. It is kept, and can be restored.

        Raises:
            NameLocked: another process holds the name.
            RepositoryUnwritable: the folder cannot be written to.
        """
        folder = self.root / check_model_name(name)
        with self._changing(name):
            (folder / WITHDRAWN).mkdir(exist_ok=True)
            (folder / str(version)).rename(folder / WITHDRAWN / str(version))
            _sync(folder)

    def restore(self, name: str, version: int) -> None:
        """Put a withdrawn version back with one rename.

        Raises:
            NameLocked: another process holds the name.
            RepositoryUnwritable: the folder cannot be written to.
        """
        folder = self.root / check_model_name(name)
        with self._changing(name):
            (folder / WITHDRAWN / str(version)).rename(folder / str(version))
            with suppress(OSError):
                (folder / WITHDRAWN).rmdir()
            _sync(folder)

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        work = self.root / WORK_FOLDER
        try:
            with _lock(work, name), writing(self.root):
                yield
        finally:
            with suppress(OSError):
                work.rmdir()

    @contextmanager
    def publishing(self, name: str) -> Iterator["Publication"]:
        """Hold the name while a package for it is made; what was not published is removed at the end.

        Raises:
            NameLocked: another process holds the name.
            RepositoryUnwritable: the folder cannot be written to.
        """
        check_model_name(name)
        created = _make_root(self.root)
        work = self.root / WORK_FOLDER
        try:
            with _lock(work, name):
                _remove_leftovers(work, name)
                with writing(self.root):
                    staging = Path(tempfile.mkdtemp(prefix=f"{name}@", dir=work))
                try:
                    yield Publication(self, name, staging)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
        finally:
            # Leave a repository that nothing was published to exactly as it was.
            with suppress(OSError):
                work.rmdir()
            for folder in created:
                with suppress(OSError):
                    folder.rmdir()


def version_folders(folder: Path) -> Mapping[int, Path]:
    """The version folders in a model's folder, lowest first; empty if there is no such folder.

    Raises:
        OSError: the folder cannot be listed.
    """
    numbered = ((parse_version(entry.name), Path(entry.path)) for entry in _folders(folder))
    return dict(sorted((number, path) for number, path in numbered if number is not None))


class Publication:
    """The right to publish one new version under a name, and a private folder to complete it in.

    Attributes:
        name: The model's name.
        folder: The private folder.
        published: Version and folder as soon as the version is there, whatever else happens.
    """

    def __init__(self, repository: Repository, name: str, staging: Path) -> None:
        self._repository = repository
        self.name = name
        # The new version lies in a folder of the model's name, so that a first version appears with one rename too.
        self._model_folder = staging / name
        self.folder = self._model_folder / "0"
        with writing(repository.root):
            self.folder.mkdir(parents=True)
        self.published: tuple[int, Path] | None = None

    def commit(self) -> tuple[int, Path]:
        """Move the finished package into place under the next free version number, durably.

        Returns:
            The version and its folder.

        Raises:
            RepositoryUnwritable: the folder cannot be written to.
        """
        with writing(self._repository.root):
            for path in (*self.folder.iterdir(), self.folder):
                _sync(path)
            return self._rename()

    def _rename(self) -> tuple[int, Path]:
        target = self._repository.root / self.name
        while True:
            # A number is never given twice, or a client that asks for it would be answered by another model.
            taken = {*self._repository.versions(self.name), *self._repository.withdrawn(self.name)}
            version = max(taken, default=0) + 1
            try:
                if target.exists():
                    self.folder.rename(target / str(version))
                else:
                    first = self.folder.rename(self._model_folder / str(version)).parent
                    first.rename(target)
            except OSError as error:
                # Somebody copied a version in by hand at this very moment: take the next number.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                if not self.folder.exists():
                    (self._model_folder / str(version)).rename(self.folder)
                continue
            self.published = version, target / str(version)
            _sync(target)
            _sync(self._repository.root)
            return version, target / str(version)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the file system's refusals into our error, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise RepositoryUnwritable(
                f"No space is left for the package in {place} ({_free_bytes(place) / 2**20:.1f} MiB free).",
                "Free some space and run the same command again, or choose another folder with --repository.",
            ) from error
        raise RepositoryUnwritable(
            f"The repository {place} cannot be written to: {error.strerror}.",
            "Choose another folder with --repository, or have this one made writable.",
        ) from error


def _free_bytes(place: Path) -> int:
    return shutil.disk_usage(next(path for path in (place, *place.absolute().parents) if path.exists())).free


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        with suppress(OSError):  # a link to itself, or to where we may not look, is no folder
            if entry.is_dir():
                yield entry


def _make_root(root: Path) -> list[Path]:
    """Create the repository if it is missing; return the folders created, innermost first."""
    if root.exists() and not root.is_dir():
        raise RepositoryUnwritable(f"The repository {root} is not a folder.", "Choose another with --repository.")
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _lock(work: Path, name: str) -> Iterator[None]:
    """An exclusive lock that the operating system drops if we die."""
    path = work / f"{name}.lock"
    file = _open_locked(path, work, name)
    try:
        with writing(work.parent):
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still ours: a newcomer then makes a file of its own
        os.close(file)


def _open_locked(path: Path, work: Path, name: str) -> int:
    while True:
        with writing(work.parent):
            work.mkdir(exist_ok=True)
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # a publisher that had just finished removed the empty work folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 32).decode(errors="replace").strip()
            os.close(file)
            raise NameLocked(
                f"Another process (pid {holder or 'unknown'}) is converting a model of the name {name!r} right now.",
                "Wait until it has finished and run the same command again, or choose another --name.",
            ) from error
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        os.close(file)  # its last owner removed it between our open and our lock


def _remove_leftovers(work: Path, name: str) -> None:
    """Remove what a crashed publisher of this name left; we hold the lock, so it is nobody's."""
    for entry in work.glob(f"{name}@*"):
        shutil.rmtree(entry, ignore_errors=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
