"""What machine a figure was measured on, and when."""

import calendar
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIME = "%Y-%m-%d %H:%M:%S UTC"
_DAY = 86_400.0


def describe() -> dict[str, str]:
    """Processor, cores, memory and the versions that decide a server's speed."""
    versions = {name: importlib.metadata.version(name) for name in ("grpcio", "protobuf", "numpy")}
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    """What the system calls the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    """The time, as results have it under "measured"."""
    return time.strftime(_TIME, time.gmtime())


def is_fresh(result: Mapping[str, Any] | None) -> bool:
    """Whether a result was measured within a day, on a machine like this one and with the same libraries."""
    if result is None or result["machine"] != describe():
        return False
    return time.time() - calendar.timegm(time.strptime(result["measured"], _TIME)) < _DAY
