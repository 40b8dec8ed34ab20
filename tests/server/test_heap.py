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


HOLES = """
import ctypes, sys
from server.heap import share_arenas
if sys.argv[1] == "shared":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def resident() -> int:
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmRSS:")[2].split()[0]) // 1024
libc.free(libc.malloc(24 * 2**20))
before = resident()
blocks = []
for _ in range(8):
    blocks.append(libc.malloc(16 * 2**20))
    ctypes.memset(ctypes.c_void_p(blocks[-1]), 1, 16 * 2**20)
    ctypes.memset(ctypes.c_void_p(libc.malloc(100_000)), 1, 100_000)  # it stays: what follows cannot shrink the heap
for block in blocks:
    libc.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_weights_that_are_freed_go_back_to_the_system() -> None:
    """Small things that were allocated between large ones do not keep these resident; without the call they do."""

    def kept(mode: str) -> int:
        command = [sys.executable, "-c", HOLES, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert kept("own") > 64
    assert kept("shared") < 8
