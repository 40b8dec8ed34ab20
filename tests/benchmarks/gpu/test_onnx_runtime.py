"""Tests of `benchmarks.gpu.onnx_runtime` and `missing` where there may be no GPU."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.missing import absent, missing
from benchmarks.gpu.onnx_runtime import measure, show
from benchmarks.gpu.steps import Steps
from server.backends.onnx_runtime import choose_device
from tests.conftest import ROOT
from tests.server.lowering.export.packages import package
from tests.server.lowering.graphs import model, numbers


def _measured(folder: Path, providers: list[str], **others: Any) -> dict[str, Any]:
    options = argparse.Namespace(
        providers=providers, package=None, layers=1, precisions="fp32", cache=None, batches=[2], rounds=3
    )
    vars(options).update(others)
    steps = Steps(None, 200)
    result = measure(options, folder, steps)
    steps.end()
    return result


def test_a_package_is_proved_and_timed(tmp_path: Path) -> None:
    """By its own golden answers, at the batch sizes that its rows fill."""
    own = package(
        tmp_path / "m" / "1",
        model("g (float[n,3] x) => (float[n,4] y) { y = MatMul(x, w) }", w=numbers(3, 4)),
        {"x": numbers(2, 3)},
    )
    with (own.path / "manifest.json").open("r+") as file:
        manifest = json.load(file)
        manifest["signatures"][0]["signature_def"] = {
            "inputs": {"X": {"dtype": "DT_FLOAT"}}, "outputs": {"Y": {"dtype": "DT_FLOAT"}},
        }  # fmt: skip
        manifest["signatures"][0]["golden"][0]["batch"] = 2
        file.seek(0)
        json.dump(manifest, file)
        file.truncate()
    result = _measured(tmp_path, ["cpu"], package=own.path, batches=[2, 5])
    loaded = result["load onnxruntime-cpu"]
    assert (loaded["problem"], loaded["difference"] < 1e-5) == ("", True)
    assert len(result["batch 2"]["onnxruntime-cpu"]["rounds_ms"]) == 3
    assert "no golden rows" in result["steps"]["batch 5"]["problem"]
    assert "| 2 | onnxruntime-cpu |" in show(result)


def test_the_seeded_model_runs_and_what_is_missing_is_said(tmp_path: Path) -> None:
    """Without a GPU the processor's backend is measured, and the others say what would install them."""
    if choose_device().device == "cuda":
        pytest.skip("this machine has a GPU")
    result = _measured(tmp_path, ["cpu", "cuda", "tensorrt"])
    assert set(result["batch 2"]) == {"onnxruntime-cpu"}
    for name in ("onnxruntime-cuda", "onnxruntime-cuda-tf32", "onnxruntime-tensorrt"):
        problem = result["steps"][f"load {name}"]["problem"]
        assert problem.startswith("left out: ")
        assert "install" in problem
        assert name in show(result)


def test_a_library_that_is_named_and_not_there_is_found_out(tmp_path: Path) -> None:
    """Of several versions one is enough; the driver is another matter."""
    library = tmp_path / "provider.so"
    library.write_bytes(b"x\0libc.so.6\0libnowhere.so.13\0libc.so.99\0libcuda.so.1\0libelse.so\0")
    assert absent(library) == ["libnowhere.so.13"]
    assert absent(tmp_path / "none.so") == []
    assert missing("cpu") == []


def test_cuda_is_found_where_pip_puts_it() -> None:
    """With NVIDIA's packages in this environment, nothing but the driver is missing for the CUDA provider."""
    if importlib.util.find_spec("nvidia") is None:
        pytest.skip("NVIDIA's packages are not installed")
    program = "import json; from benchmarks.gpu.missing import missing; print(json.dumps(missing('cuda')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not [text for text in json.loads(done.stdout) if text.startswith("lib")]


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    """Before anything is loaded, with what it should be."""
    command = [sys.executable, "-m", "benchmarks.gpu.onnx_runtime", "--package", str(tmp_path / "models")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "REPOSITORY/NAME/VERSION" in done.stderr
