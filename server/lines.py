"""The thread that writes the log, so that no other waits for whoever reads it.

A pipe that nobody empties, or a disk that does not answer, stops a thread that writes to it. Lines are made where
something happens, and queue here to be written; when the queue is full, new ones are left out, and counted.
"""

import contextlib
import logging
import os
import queue
import threading
from typing import IO

MOST_LINES = 10_000
"""Lines that may wait: some megabytes, and a second or so of a busy server's requests."""

LAST_SECONDS = 2.0
"""How long the end of the process waits for a reader."""


class LineWriter(logging.Handler):
    """Writes what is logged to a stream, in a thread of its own."""

    def __init__(self, stream: IO[str], most: int = MOST_LINES) -> None:
        """Begin to write.

        Args:
            stream: Where to. If it is a file, lines go past the stream's own buffer: a thread that waits for the file
                would keep that locked, and at its end the process would wait for the lock.
            most: Lines that may wait to be written; more are left out.
        """
        super().__init__()
        self._stream = stream
        self._file = _file_of(stream)
        self._waiting: queue.Queue[str | None] = queue.Queue(most)
        self._left_out = 0
        self._counting = threading.Lock()  # not the handler's own, which logging.shutdown holds while it flushes
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler: never waits."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._leave_out()
        except Exception:  # noqa: BLE001 - what cannot be formatted must not end a request: as in logging's own handlers
            self.handleError(record)

    def flush(self) -> None:
        """Return when all lines so far are written, or when nobody has read them for LAST_SECONDS."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, LAST_SECONDS)

    def close(self) -> None:
        """Write what waits, if it is read, and end."""
        self.flush()
        with contextlib.suppress(queue.Full):  # then the thread ends with the process
            self._waiting.put_nowait(None)
        super().close()

    def _write_all(self) -> None:
        while True:
            line = self._waiting.get()
            try:
                if line is None:
                    return
                self._write(self._with_gap(line))
            except (OSError, ValueError):
                self._leave_out()  # the reader has gone, the disk is full, the stream is closed
            finally:
                self._waiting.task_done()

    def _leave_out(self) -> None:
        with self._counting:
            self._left_out += 1

    def _with_gap(self, line: str) -> str:
        """A line; behind it how many others are missing, said once."""
        with self._counting:
            left_out, self._left_out = self._left_out, 0
        if not left_out:
            return line
        text = "%d line(s) of the log were left out: they came faster than they were read"
        gap = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (left_out,), None)
        return f"{line}\n{self.format(gap)}"

    def _write(self, line: str) -> None:
        if self._file is None:
            self._stream.write(f"{line}\n")
            self._stream.flush()
            return
        data = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        while data:
            data = data[os.write(self._file, data) :]


def _file_of(stream: IO[str]) -> int | None:
    """The descriptor of a stream that is a file."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
