"""A server process with one thread more, which wants to run every millisecond and writes down when it could not.

    python -m benchmarks.soak.ticking FILE [THE SERVER'S OPTIONS]

Without options there is no server: then the process is a control, whose thread is late only because the machine is
busy, never because somebody holds the interpreter. To FILE goes a line for each gap of 3 ms or more between two ticks:
when it ended, by time.monotonic(), and how long it was, in seconds. A control also writes such a line when a hypervisor
says that it gave a processor to others meanwhile: that stops whoever runs there, which need not be the control.
"""

import os
import sys
import threading
import time
from pathlib import Path

from server.cli import main

_TICK = 0.001
_WORTH_WRITING = 0.003
_LOOK = 0.01  # seconds between two looks at what was stolen, which is counted in hundredths


def tick(path: Path, *, control: bool) -> None:
    """Tick until the process ends."""
    with path.open("a", buffering=1) as file:
        before = looked = time.monotonic()
        taken = stolen()
        while True:
            time.sleep(_TICK)
            now = time.monotonic()
            if now - before >= _WORTH_WRITING:
                file.write(f"{now} {now - before}\n")
            if control and now - looked >= _LOOK:
                looked, known, taken = now, taken, stolen()
                if taken > known:
                    file.write(f"{now} {taken - known}\n")
            before = time.monotonic()


def stolen() -> float:
    """Seconds that a hypervisor gave to others while something wanted to run here, of all processors together.

    The eighth number of the first line of /proc/stat, in hundredths of a second (proc_stat(5)).
    """
    with Path("/proc/stat").open(encoding="ascii") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        threading.Thread(
            target=tick, args=(Path(sys.argv[1]),), kwargs={"control": False}, name="tick", daemon=True
        ).start()
        main(sys.argv[2:])
    else:
        tick(Path(sys.argv[1]), control=True)
