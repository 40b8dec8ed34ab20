"""The soak in its short form; `make soak` has the long one. Each test is a part of benchmarks/soak."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.soak import memory, restarts, stalls, switches
from benchmarks.soak.models import WIDTH, publish, write_heavy_package
from benchmarks.soak.servers import ServerProcess, running
from tests.e2e.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def assert_nothing_failed(figures: dict[str, Any], least: int) -> None:
    """Every request was answered, rightly, and there were enough of them."""
    assert (figures["failed"], figures["wrong"]) == (0, 0), figures
    assert figures["requests"] >= least, figures


def test_rolling_restarts_cost_no_request(tmp_path: Path) -> None:
    """Two servers are ended with SIGTERM in turn while the published client with our configuration asks."""
    figures = restarts.rolling(tmp_path, restarts=3, requests=500, pause=0.5, lame_duck=0.5, callers=1)
    assert figures["exit_codes"] == [0]
    assert_nothing_failed(figures, 500)


def test_a_killed_server_costs_no_request(tmp_path: Path) -> None:
    """One of two servers dies with requests in work; the other one answers them."""
    assert_nothing_failed(restarts.killing(tmp_path, kills=2, pause=0.5, callers=1), 200)


def test_version_switches_cost_no_request_and_no_wrong_answer(tmp_path: Path) -> None:
    """Clients ask for the latest version, one by its number, one by its label: each gets the one that it must get."""
    figures = switches.switching(tmp_path, switches=6, callers=1)
    assert figures["ended_versions_refused"] == 6
    assert_nothing_failed(figures, 200)


def test_memory_does_not_grow_with_requests(tmp_path: Path) -> None:
    """After some thousand requests the server is no larger than before them."""
    figures = memory.requests(tmp_path, warm_up=1_500, count=3_000, callers=1)
    assert_nothing_failed(figures, 4_500)
    assert figures["kilobytes"]["last"] - figures["kilobytes"]["first"] < 8_000


def test_memory_does_not_grow_with_loads(tmp_path: Path) -> None:
    """What an unloaded model took is given back."""
    figures = memory.cycles(tmp_path, count=24, settled=8)
    assert figures["growth_percent"] <= 5
    assert figures["kilobytes"]["last"] - figures["kilobytes"]["first"] < 16_000, "less than one layer's weights"


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with weights of ViT-Base's size."""
    folder = tmp_path_factory.mktemp("heavy") / "1"
    write_heavy_package(folder, layers=21)
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_large_model_that_loads_and_runs_holds_up_nobody(tmp_path: Path, heavy: Path, backend: str) -> None:
    """Neither a thread that wants to run every millisecond nor another model's requests wait for it.

    Judged by the best of several loads and the median of the runs, less what a process without a server had to wait at
    the same time: who holds the interpreter for long does so each time, a busy machine makes it seem so now and then.
    So the other model's answers may be ten times as late as otherwise; `make soak` allows half as much again. Holding
    the interpreter for a second in each load makes them later than that.
    """
    pytest.importorskip(backend, reason="an optional install")
    shutil.copytree(heavy, tmp_path / "models" / "heavy" / "1", copy_function=os.link)
    inputs = {"x": np.ones((1, WIDTH), np.float32)}
    options = ("--backends", backend, "--cache-folder", str(tmp_path / "cache"))
    figures = stalls.stalls(tmp_path, "heavy", inputs, loads=3, steady=1, server_options=options)
    gaps, late = figures["longest_gap_milliseconds"], figures["neighbour_p99_milliseconds"]
    assert gaps["loading"]["least"] <= 50, figures
    assert gaps["running"]["typical"] <= 10, figures
    assert figures["neighbour_failed"] == 0, figures
    assert late["best_of_loading"] <= 10 * max(late["steady"], 30), figures


def test_the_example_client_runs_as_it_is(tmp_path: Path) -> None:
    """What the documentation tells people to copy works, with one server of two there."""
    publish(tmp_path, 1)
    server, missing = ServerProcess(tmp_path), ServerProcess(tmp_path)
    with running(server):
        command = [sys.executable, "-m", "examples.client_resilient", "affine", missing.address, server.address]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "affine version 1: serving_default\n"
