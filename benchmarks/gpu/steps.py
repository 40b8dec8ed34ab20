"""Steps of a check on a machine that one has for minutes only: what one of them loses, the others keep."""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

LATE: Final = 4
"""Exit status when the time ran out."""


class LeftOut(Exception):
    """A step has nothing to work on; the text says why."""


class Steps:
    """Runs steps, keeps what they give, and writes it to a file after each."""

    def __init__(self, out: Path | None, seconds: float, at_end: Callable[[], None] = lambda: None) -> None:
        """Begin to count.

        Args:
            out: The JSON file.
            seconds: When they have passed, the process writes what there is and ends.
            at_end: Called before it ends so.
        """
        self.result: dict[str, Any] = {"steps": {}}
        self._out, self._seconds, self._at_end = out, seconds, at_end
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._watch = threading.Timer(seconds, self._late)
        self._watch.daemon = True
        self._watch.start()

    def left(self) -> float:
        """Seconds until the end."""
        return self._seconds - (time.monotonic() - self._begin)

    def run(self, name: str, step: Callable[[], Mapping[str, Any]], *, needs: float = 0) -> bool:
        """Take a step, and keep what it returns under its name.

        Args:
            name: Of the step.
            step: What to do.
            needs: Seconds without which it is not begun.

        Returns:
            Whether it was taken to its end.
        """
        begin, problem, found = time.monotonic(), "", None
        if self.left() < needs:
            problem = f"left out: it takes up to {needs:.0f} s and {max(self.left(), 0):.0f} s are left"
        else:
            try:
                found = step()
            except LeftOut as error:
                problem = f"left out: {error}"
            except Exception as error:  # noqa: BLE001 - a step may fail in any way, and the next one goes on
                where = traceback.extract_tb(error.__traceback__)[-1]
                problem = f"failed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        with self._lock:
            self.result["steps"][name] = {"seconds": round(time.monotonic() - begin, 2), "problem": problem}
            if found is not None:
                self.result[name] = found
            self._write()
        print(f"{name}: {problem or 'done'}, {time.monotonic() - begin:.1f} s", flush=True)
        return not problem

    def end(self) -> None:
        """No step follows."""
        self._watch.cancel()
        with self._lock:
            self.result["seconds"] = round(time.monotonic() - self._begin, 1)
            self._write()

    def _late(self) -> None:
        print("the time is over", flush=True)
        with self._lock:  # for ever: nothing is written after this
            self.result["seconds"] = round(time.monotonic() - self._begin, 1)
            self.result["steps"]["end"] = {"seconds": 0, "problem": "the time was over before the last step"}
            self._write()
            try:
                self._at_end()
            finally:
                sys.stdout.flush()
                os._exit(LATE)  # a compiler or a GPU that hangs holds every other way

    def _write(self) -> None:
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._out.write_text(json.dumps(self.result, indent=1) + "\n", "utf-8")
