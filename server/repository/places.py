"""Where a server's models lie: below one root, or each in a folder of its own, as a configuration says.

Nothing here writes.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from server.repository.folder import version_folders

logger = logging.getLogger(__name__)


class Source(Protocol):
    """What can be asked for models' version folders; a Repository can."""

    def scan(self) -> Mapping[str, Mapping[int, Path] | None]:
        """Every model's version folders, by number; None for a model about which nothing can be said at the moment.

        Raises:
            OSError: nothing can be said about any.
        """
        ...

    @property
    def is_empty(self) -> bool:
        """Whether the last scan could read everything and found nothing to serve: a first model is waited for."""
        ...


class Places:
    """A folder of version folders for each model. A folder's name need not be its model's."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self.is_empty = not folders
        """See Source. A model that somebody has named is to be served, also while its folder has no versions."""
        self._complaints: dict[str, str] = {}

    def scan(self) -> Mapping[str, Mapping[int, Path] | None]:
        """Every model's version folders; None while they cannot be known.

        A folder that is missing is not an empty one: it may be on a disk that is away for a moment, so what was loaded
        from it goes on, as in TensorFlow Serving.
        """
        return {name: self._look(name, folder) for name, folder in self.folders.items()}

    def _look(self, name: str, folder: Path) -> Mapping[int, Path] | None:
        complaint = ""
        versions: Mapping[int, Path] | None = None
        try:
            if folder.is_dir():
                versions = version_folders(folder)
            else:
                complaint = f"there is no folder {folder}"
        except OSError as error:
            complaint = f"{folder} cannot be listed: {error.strerror}"
        if versions is not None and not versions:
            complaint = f"{folder} has no version folders such as {folder}/1"
        if complaint != self._complaints.get(name, ""):
            self._complaints[name] = complaint
            if complaint:
                logger.warning("model %s: %s", name, complaint)
        return versions
