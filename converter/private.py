"""The private folder of one conversion process: who owns it, and what becomes of it when its owner is killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "segue-export-"
_OWNED: Final = "owner.lock"  # locked by a living owner; the operating system unlocks it when the owner dies


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, removed at the end; folders of owners that were killed are removed, too.

    Raises:
        OSError: There is no room, or no folder for temporary files.
    """
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:  # mode 0700
        folder = Path(name)
        draft = folder / f"{_OWNED}.new"  # locked before it has its name, or a sweep could find it unlocked
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            draft.rename(folder / _OWNED)
            yield folder
        finally:
            os.close(file)


def _sweep(temporary: Path) -> None:
    for folder in temporary.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or in use, or swept by somebody else
            file = os.open(folder / _OWNED, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if folder.lstat().st_uid == os.getuid():
                    shutil.rmtree(folder)
            finally:
                os.close(file)
