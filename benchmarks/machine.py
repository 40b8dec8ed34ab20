"""What machine a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path


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
