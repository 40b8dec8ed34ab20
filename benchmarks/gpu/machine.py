"""What machine with a GPU a figure was measured on."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Final

from benchmarks.machine import processor

_PACKAGES: Final = ("torch", "triton", "transformers", "onnx", "onnx2torch", "onnxruntime-gpu", "onnxruntime", "numpy")
_QUERY: Final = "name,driver_version,memory.total,compute_cap,power.limit,clocks.max.sm"


def describe() -> dict[str, str]:
    """Processor, memory, GPUs and the versions that decide a model's speed, as far as they can be told."""
    facts = {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "gpu": _asked("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"),
        "compiler": _asked(os.environ.get("CXX", "g++").split()[0], "-dumpfullversion"),
    }
    for name in _PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _asked(*command: str) -> str:
    program = shutil.which(command[0])
    if program is None:
        return f"no {command[0]}"
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return done.stdout.strip() or done.stderr.strip()
