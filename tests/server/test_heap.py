"""Tests of `server.heap`."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, threading
from server.heap import share_arenas
if sys.argv[1] == "shared":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
both = threading.Barrier(16)
def use() -> None:
    libc.malloc(1000)
    both.wait()
threads = [threading.Thread(target=use) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_threads_share_two_heaps() -> None:
    """However many threads allocate at once, there are two arenas; without the call there are more."""

    def arenas(mode: str) -> int:
        command = [sys.executable, "-c", SCRIPT, mode]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr.count("Arena ")

    assert arenas("shared") == 2
    assert arenas("own") > 2
