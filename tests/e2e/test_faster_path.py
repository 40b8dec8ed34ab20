"""Each batch goes the faster way, by what a client measures; the long form is `python -m benchmarks.faster_path`."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.faster_path import models
from benchmarks.faster_path.judge import Measured, Verdict, joined, judge
from benchmarks.faster_path.measuring import (
    Choice,
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

PACE = Pace(rounds=9, seconds=0.05, settling=10)
LIMIT = 1.25  # short turns on a busy machine; the two backends are farther apart than that
MORE = 3  # times so many rounds at the most, if the machine is so busy that the first do not tell
SIZES: Mapping[str, int] = {"gestures": 1, "sensors": 16}
"""By model the batch size in which one of the two backends is plainly the faster one: ONNX Runtime, and OpenVINO."""

BACKENDS = ("onnxruntime-cpu", "openvino-cpu")

Bench = Mapping[str, tuple[Client, bytes, Choice]]
Verdicts = Sequence[Verdict]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Of one server process with two backends, for each model: a client, a request, and what was chosen by itself."""
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
        yield {
            name: (client, request, settle(client, SIZES[name], request, PACE))
            for name, (client, request) in both.items()
        }


def verdicts(bench: Bench, pinned: Sequence[str], is_expected: Callable[[Verdicts], bool]) -> Verdicts:
    """A verdict for each model, of the server's choice or of pins; from more rounds if the first are unexpected."""
    seen: dict[str, list[Measured]] = {name: [] for name in bench}
    said: Verdicts = []
    for _ in range(MORE):
        for name, (client, request, own) in bench.items():
            choice = Choice(pinned[0]) if pinned else own
            seen[name].append(measure(client, request, PACE, choice, pinned))
        said = [judge(joined(parts), LIMIT) for parts in seen.values()]
        if is_expected(said):
            break
    return said


def all_hold(found: Verdicts) -> bool:
    """Whether the choice is as it must be for every model."""
    return all(verdict.holds for verdict in found)


@pytest.mark.slow
def test_the_server_chooses_the_faster_backend_for_each_model(bench: Bench) -> None:
    """What it selects by itself is what a client finds to be faster with either pinned, and is served as fast."""
    found = verdicts(bench, (), all_hold)
    assert all_hold(found), found


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_that_always_answers_the_same_fails_that_test(bench: Bench, backend: str) -> None:
    """The same measurement, judged alike, of a server that always answers by one of the two: it does not hold."""
    found = verdicts(bench, [backend], lambda said: not all_hold(said))
    if all_hold(found) and {verdict.winner for verdict in found} != set(BACKENDS):
        pytest.skip("the machine is so busy that no client could tell which backend is faster")
    assert not all_hold(found), found


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_real_models_take_the_faster_path(tmp_path: Path) -> None:
    """The whole benchmark: every choice holds, each family of backends wins somewhere, every constant policy fails."""
    command = [sys.executable, "-m", "benchmarks.faster_path", "--result", str(tmp_path / "result.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
