"""Tests of `benchmarks.gpu.pytorch_path` on the processor: the script that a GPU machine runs, made small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.comparison import Comparison, Scope
from benchmarks.gpu.pytorch_path import measure
from benchmarks.gpu.report import show
from benchmarks.gpu.steps import Steps
from tests.conftest import ROOT


@pytest.mark.slow
def test_both_models_are_one_function_and_one_graph(tmp_path: Path) -> None:
    """What needs no compiler: counts, graphs and float32; what does is left out, and said."""
    scope = Scope("cpu", layers=1, precisions=(), batches=(1,), rounds=1, images=4, native="")
    steps = Steps(None, 250)
    result = measure(Comparison(scope, tmp_path), steps)
    steps.end()
    assert result["weights"]["equal"]
    assert result["graphs"]["ours"] == {"breaks": 0, "graphs": 1}
    assert result["graphs"]["native"]["breaks"] == 0
    assert result["answers"]["problem"] == ""
    assert result["answers"]["ours_to_float64"]["rms"] < 1e-5
    assert result["builds"] == result["errors"] == {}
    assert not [step["problem"] for step in result["steps"].values() if step["problem"]]
    assert "parameters: ours 7,833,602" in show(result)


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_the_whole_script(tmp_path: Path) -> None:
    """Compiled both ways, timed, and served without Python's torch: every step is taken."""
    out = tmp_path / "result.json"
    options = "--device cpu --layers 1 --images 4 --precisions fp32 --batches 1,2 --rounds 2 --seconds 800 --out"
    command = [sys.executable, "-m", "benchmarks.gpu.pytorch_path", *options.split(), str(out)]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    subprocess.run(command, cwd=ROOT, check=True, env=environment, timeout=850)
    result = json.loads(out.read_text())
    assert not [step["problem"] for step in result["steps"].values() if step["problem"]]
    assert not [build["problem"] for build in result["builds"].values() if build["problem"]]
    assert result["errors"]["fp32"]["ours"]["largest"] < 1e-5
    for what in ("speed fp32", "compiled fp32"):
        assert set(result[what]) == {"1", "2"}
        assert all(len(row["times native"]) == 3 for row in result[what].values())
    served = result["served"]["fp32"]
    assert not served["python_torch"]
    assert served["difference_to_torch"] == 0
    assert all(row["two_threads_differ"] == 0 for row in served["batches"].values())


def test_a_report_of_what_went_wrong() -> None:
    """A table does not need every figure, and no problem is left out of it."""
    result = {
        "steps": {"machine": {"problem": ""}, "answers": {"problem": "failed: RuntimeError: CUDA"}},
        "builds": {
            "ours fp32": {"seconds": 40, "bytes": 2**21, "problem": "", "gpu_memory_mib": 7},
            "native fp32": {"seconds": 2, "bytes": 0, "problem": "its process ended with 1"},
        },
        "errors": {"fp32": {"ours": {"rms": 1e-6, "largest": 2e-6}}},
        "speed fp32": {"1": {"ours": {"median_ms": 1.5, "rounds_ms": [1.5]}}},
        "served": {"fp32": {"problem": "it was not compiled"}},
    }
    text = show(result)
    for part in ("| ours fp32 | 40 | 2 | 7 |", "its process ended with 1", "1.00e-06 (2.00e-06)", "| speed fp32 | 1 |",
                 "it was not compiled", "answers failed: RuntimeError: CUDA"):  # fmt: skip
        assert part in text
