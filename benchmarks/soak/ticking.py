"""A server process with one thread more, which wants to run every millisecond and writes down when it could not.

    python -m benchmarks.soak.ticking FILE [THE SERVER'S OPTIONS]

Without options there is no server: then the process is a control, whose thread is late only because the machine is
busy, never because somebody holds the interpreter. To FILE goes a line for each gap of 3 ms or more between two ticks:
when it ended, by time.monotonic(), and how long it was, in seconds.
"""

import sys
import threading
import time
from pathlib import Path

from server.cli import main

_TICK = 0.001
_WORTH_WRITING = 0.003


def tick(path: Path) -> None:
    """Tick until the process ends."""
    with path.open("a", buffering=1) as file:
        before = time.monotonic()
        while True:
            time.sleep(_TICK)
            now = time.monotonic()
            if now - before >= _WORTH_WRITING:
                file.write(f"{now} {now - before}\n")
                now = time.monotonic()
            before = now


if __name__ == "__main__":
    if len(sys.argv) > 2:
        threading.Thread(target=tick, args=(Path(sys.argv[1]),), name="tick", daemon=True).start()
        main(sys.argv[2:])
    else:
        tick(Path(sys.argv[1]))
