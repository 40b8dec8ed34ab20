"""Tests of compiling: in a process of its own, once, bounded, and with a reason where it fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import GraphSpec
from server.errors import GraphNotLoadable
from tests.conftest import ROOT
from tests.server.backends.compiled import affine, spec
from tests.server.lowering.graphs import model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def entries(cache: Path) -> list[tuple[int, int]]:
    """The compiled models in a folder, by inode and time of change: a new build is a new one."""
    states = [path.stat() for path in cache.glob("*/model.so")]
    return [(state.st_ino, state.st_mtime_ns) for state in states]


def builders(cache: Path) -> list[int]:
    """The processes that compile into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"server.lowering.compile" in words and any(word.startswith(os.fsencode(cache)) for word in words):
            found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Look until it holds."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def require_right(cache: Path, graph: GraphSpec) -> None:
    """Assert that a folder's compiled form of the small graph computes what that says."""
    loaded = AotInductorBackend(cache).load(graph)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(loaded.run({"x": x}, ["y"])[0], 3 * x)
    loaded.close()


def test_it_is_built_once_and_again_when_damaged(cache: Path, bench: GraphSpec, small: GraphSpec) -> None:
    """Several ask at once: one builds. Later ones find it, and a damaged one is not served but built anew."""
    assert bench.path.is_file()  # its compilation has filled the folder's knowledge of the toolchain
    before = set(entries(cache))
    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(AotInductorBackend(cache).prepare, small, threading.Event()) for _ in range(3)]:
            each.result()
    (built,) = set(entries(cache)) - before
    require_right(cache, small)
    AotInductorBackend(cache).prepare(small, threading.Event())
    assert set(entries(cache)) - before == {built}

    (library,) = [path for path in cache.glob("*/model.so") if path.stat().st_ino == built[0]]
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    copy = library.with_name("copy")
    copy.write_bytes(data)
    copy.rename(library)  # as a restored backup would: what is mapped must not change under who runs it
    with pytest.raises(GraphNotLoadable, match="no whole compiled form"):
        AotInductorBackend(cache).load(small)
    AotInductorBackend(cache).prepare(small, threading.Event())
    require_right(cache, small)
    assert sorted(path.name for path in cache.iterdir() if len(path.name) != 40) == ["building.lock", "toolchain"]


def test_stop_ends_it_at_once(small: GraphSpec, tmp_path: Path) -> None:
    """Nothing of it runs on, and nothing of it stays."""
    stop, cache = threading.Event(), tmp_path / "cache"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(AotInductorBackend(cache).prepare, small, stop)
        wait_for(lambda: builders(cache))
        begin = time.monotonic()
        stop.set()
        with pytest.raises(GraphNotLoadable, match="nobody waits"):
            waiting.result(20)
    assert time.monotonic() - begin < 5
    assert builders(cache) == []
    assert not (cache / "work").exists()


def test_its_time_is_limited(small: GraphSpec, tmp_path: Path) -> None:
    """And the text says what the limit was."""
    with pytest.raises(GraphNotLoadable, match="more than 0 s and was stopped"):
        AotInductorBackend(tmp_path / "cache", build_seconds=0.1).prepare(small, threading.Event())
    assert builders(tmp_path) == []


def test_it_may_crash(small: GraphSpec, tmp_path: Path) -> None:
    """That is said, with what ended it; here the way in which the kernel ends who takes too much memory."""
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(AotInductorBackend(cache).prepare, small, threading.Event())
        wait_for(lambda: builders(cache))
        os.kill(builders(cache)[0], signal.SIGKILL)
        with pytest.raises(GraphNotLoadable, match="killed from outside, most likely for want of memory"):
            waiting.result(20)


def test_it_ends_with_the_server(small: GraphSpec, tmp_path: Path) -> None:
    """However that ends."""
    script = f"""
import threading, pathlib
from pathlib import PosixPath
from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import GraphSpec, TensorPort
AotInductorBackend(pathlib.Path({str(tmp_path)!r}) / "cache").prepare({small!r}, threading.Event())
"""
    server = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        wait_for(lambda: builders(tmp_path))
    finally:
        server.kill()
        server.wait(10)
    wait_for(lambda: not builders(tmp_path))


def test_a_missing_compiler_is_said(small: GraphSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With advice, before anything is started."""
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(GraphNotLoadable, match=r"no C\+\+ compiler '/nowhere/g\+\+': install g\+\+"):
        AotInductorBackend(tmp_path / "cache").prepare(small, threading.Event())
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraphNotLoadable, match=r"no C\+\+ compiler 'g\+\+'"):
        AotInductorBackend(tmp_path / "cache").prepare(small, threading.Event())


def test_a_compiler_that_does_not_work_is_said(
    small: GraphSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and fails."""
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(GraphNotLoadable, match=r"finds no C\+\+ compiler that works"):
        AotInductorBackend(tmp_path / "cache").prepare(small, threading.Event())


def test_what_cannot_be_lowered_is_said(tmp_path: Path) -> None:
    """With the operator's name."""
    graph = spec(model("g (float[n,3] x) => (float[n,3] y) { y = Bernoulli(x) }"), tmp_path / "model.onnx")
    with pytest.raises(GraphNotLoadable, match=r"model\.onnx cannot be compiled: Bernoulli"):
        AotInductorBackend(tmp_path / "cache").prepare(graph, threading.Event())


def test_missing_packages_are_said(small: GraphSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the installation that has them."""
    monkeypatch.setattr("server.backends.aot_build._NEEDED", ("torch", "no_such_package"))
    with pytest.raises(GraphNotLoadable, match=r"needs no_such_package: install segue-serving\[torch\]"):
        AotInductorBackend(tmp_path / "cache").prepare(small, threading.Event())


def test_an_onnx_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Rather than a trace of the child's."""
    graph = spec(affine(), tmp_path / "model.onnx")
    graph.path.unlink()
    with pytest.raises(GraphNotLoadable, match=r"model\.onnx cannot be read: No such file"):
        AotInductorBackend(tmp_path / "cache").prepare(graph, threading.Event())
