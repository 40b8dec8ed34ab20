"""Files that are taken up again when they change, without a restart: tokens and certificates.

A thread of their own looks at each set of files, so that a disk that does not answer stalls no call and no handshake.
What the files mean is for those who read them to know.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# How long the end of the server waits for the watch, which may hang in a disk that does not answer.
_JOIN_SECONDS = 0.5

T = TypeVar("T")


class FilesRefused(Exception):
    """The files cannot be used; the text names them, and never what is in them."""


class Renewal(Generic[T]):
    """What some files hold: read at once, and again whenever they may have changed."""

    def __init__(
        self, files: Sequence[Path], read: Callable[[], T], renewed: Callable[[T], None], *, name: str, kept: str
    ) -> None:
        """Read the files.

        Args:
            files: Those that `read` reads.
            read: Raises FilesRefused if they cannot be used.
            renewed: Is told what they hold when that is something else than before.
            name: Of the thread.
            kept: For the log, when the files cannot be used: what goes on instead.

        Raises:
            FilesRefused: They cannot be used.
        """
        self._files = tuple(files)
        self._read = read
        self._renewed = renewed
        self._kept = kept
        self._complaint = ""
        # Taken before the files are read: what changes them from now on leaves another stamp than this.
        self._stamp = self._stamp_now()
        # Clocks of files are coarse: a change soon after the stamp may leave the same one, so one more look is due.
        self._settled = False
        self.value = read()
        """What the files held when they could last be used."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def watch(self) -> None:
        """Look at the files every second from now on, in a thread: a disk may take its time."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if there is one; one that hangs in a read is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def look(self) -> None:
        """Read the files again if they may have changed. What cannot be used changes nothing, and is tried again."""
        stamp = self._stamp_now()
        same = stamp == self._stamp
        if same and self._settled:
            return
        self._settled = False  # whatever the read ends with, only one that went well is not tried again
        try:
            value = self._read()
        except FilesRefused as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("%s: %s", self._kept, error)  # noqa: TRY400 - the text says it all
            return
        self._stamp, self._settled, self._complaint = stamp, same, ""
        if value != self.value:
            self.value = value
            self._renewed(value)

    def _stamp_now(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(map(_stamp, self._files))

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                logger.exception("%s", self._kept)  # a fault of ours must not end the watch for good


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Something that is not the same when a file, or who may read it, has changed; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
