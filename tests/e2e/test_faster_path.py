"""Each batch goes the faster way, by what a client measures; the long form is `python -m benchmarks.faster_path`."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.faster_path import models
from benchmarks.faster_path.judge import judge
from benchmarks.faster_path.measuring import (
    Client,
    Pace,
    measure,
    request_of,
    serving,
    settle,
    wait_for_backends,
    wait_for_calibration,
)
from tests.e2e.processes import ROOT

PACE = Pace(rounds=5, seconds=0.08, settling=10)
LIMIT = 1.25  # short turns on a busy machine; the two backends are farther apart than that
ATTEMPTS = 3
SIZES: Mapping[str, int] = {"gestures": 1, "sensors": 16}
"""By model the batch size in which one of the two backends is plainly the faster one: ONNX Runtime, and OpenVINO."""

Bench = Mapping[str, tuple[Client, bytes]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A client and a request for each model of one server process with two backends, both of which have settled."""
    pytest.importorskip("openvino", reason="an optional install")
    folder = tmp_path_factory.mktemp("faster-path")
    repository = folder / "models"
    for model in SIZES:
        models.write(models.OURS[model](), repository / model / "1")
    with serving(repository, folder, "--backends", "onnxruntime,openvino") as channel:
        both = {name: (Client(channel, name), request_of(repository, name, size)) for name, size in SIZES.items()}
        for client, _ in both.values():
            assert wait_for_backends(client, 60) == {}
        wait_for_calibration(client, 10)  # one thread calibrates all models
        for name, (client, request) in both.items():
            assert settle(client, SIZES[name], request, PACE)
        yield both


def holds(bench: Bench, choice: Sequence[str] = ()) -> bool:
    """Whether a choice holds for all models, in one of some attempts: for a machine that others use too."""
    return any(
        all(judge(measure(client, SIZES[name], request, PACE, choice), LIMIT).holds for name, (client, request) in each)
        for each in [tuple(bench.items())] * ATTEMPTS
    )


@pytest.mark.slow
def test_the_server_chooses_the_faster_backend_for_each_model(bench: Bench) -> None:
    """What it selects by itself is what a client finds to be faster with either pinned, and is served as fast."""
    assert holds(bench)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_policy_that_always_answers_the_same_fails_that_test(bench: Bench, backend: str) -> None:
    """The same measurement, judged alike, of a server that always answers by one of the two: it does not hold."""
    assert not holds(bench, [backend])


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_real_models_take_the_faster_path(tmp_path: Path) -> None:
    """The whole benchmark: every choice holds, each family of backends wins somewhere, every constant policy fails."""
    command = [sys.executable, "-m", "benchmarks.faster_path", "--result", str(tmp_path / "result.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
