"""Contenders run one at a time, each in its own process, and the long run keeps what the issue asks of precision."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.backends import models, options
from benchmarks.backends.children import ContenderError, Contenders, alternate
from benchmarks.backends.figures import summarise, table
from server.arrays import save_arrays
from server.backends.catalogue import processor_flags as flags
from tests.packages import write_package

ROOT = Path(__file__).parents[3]


def test_contenders_take_turns_and_answer_alike(tmp_path: Path) -> None:
    """Two backends load, run the same rounds and give the same answers; one that is not there is explained."""
    pytest.importorskip("openvino", reason="an optional install")
    write_package(tmp_path / "models" / "affine" / "1")
    save_arrays(tmp_path / "inputs.npz", models.inputs(tmp_path, "affine", [1, 3]))
    with Contenders(["onnxruntime-cpu", "openvino-cpu", "other"], "affine", tmp_path) as contenders:
        assert contenders.absent == {"other": "other: LookupError: other: there is no backend of that name"}
        samples = alternate(contenders, 3, 4)
        assert {name: len(seconds) for name, seconds in samples.items()} == {"onnxruntime-cpu": 4, "openvino-cpu": 4}
        answers = [contender.answer(3) for contender in contenders.here.values()]
    assert [answer["y"].shape for answer in answers] == [(3, 4), (3, 4)]
    assert abs(answers[0]["y"] - answers[1]["y"]).max() < 1e-5
    assert "| openvino-cpu |" in table([{"batch": 3, "contenders": summarise(samples)}])


def test_a_contender_that_dies_is_told(tmp_path: Path) -> None:
    """A run that its process does not survive ends in the process's last words, and not in silence."""
    write_package(tmp_path / "models" / "affine" / "1")
    save_arrays(tmp_path / "inputs.npz", models.inputs(tmp_path, "affine", [1]))
    with (
        Contenders(["onnxruntime-cpu"], "affine", tmp_path) as contenders,
        pytest.raises(ContenderError, match="KeyError: '2'"),
    ):
        contenders.here["onnxruntime-cpu"].run(2)


def test_session_options_are_measured_against_ours(tmp_path: Path) -> None:
    """Every variant of ONNX Runtime's options loads, and has its line in the table."""
    row = options.measure("perceptron", options.perceptron(tmp_path), 1, 3)
    assert set(row["gains"]) == set(options.VARIANTS) - {options.OURS}
    assert len(options.table([row]).splitlines()) == 2 + len(row["gains"])


def _measure(tmp_path: Path, *arguments: str) -> dict[str, dict[str, dict[str, float]]]:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.backends", "--result", str(result), *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=1500)
    assert done.returncode in {0, 1}, done.stderr  # 1: a claim about ViT-Base does not hold of this model or machine
    assert result.exists(), done.stderr
    read: dict[str, dict[str, dict[str, float]]] = json.loads(result.read_text())
    return read


@pytest.mark.prove
@pytest.mark.timeout(1600)
def test_the_whole_comparison_runs_on_a_small_model(tmp_path: Path) -> None:
    """From TensorFlow's model to the table, TensorFlow and PyTorch in processes of their own; all answer alike."""
    names = "tensorflow,onnxruntime-cpu,openvino-cpu,native-eager,native-compiled,native-compiled-autocast-bf16"
    read = _measure(tmp_path, "--model", "vit-small", "--batches", "1,3", "--rounds", "2", "--backends", names)
    assert read["absent"] == {}
    assert set(read["errors"]) == set(names.split(",")) - {"tensorflow"}
    exact = {name: error["largest"] for name, error in read["errors"].items() if not name.endswith("-bf16")}
    assert max(exact.values()) < 5e-6
    assert read["errors"]["native-compiled-autocast-bf16"]["largest"] < 0.05


@pytest.mark.prove
@pytest.mark.timeout(1600)
@pytest.mark.skipif(not {"avx512_bf16", "amx_bf16"} & flags(), reason="this processor has no bfloat16")
def test_bfloat16_is_no_worse_than_the_native_models(tmp_path: Path) -> None:
    """On ViT-Base, each of our bfloat16 backends is at most 1.25 times as far from TensorFlow as the native model."""
    names = "tensorflow,openvino-cpu-bf16,torch-cpu-bf16,native-eager-bf16"
    read = _measure(tmp_path, "--model", "vit", "--batches", "16", "--rounds", "1", "--backends", names)
    ours = [name for name in ("openvino-cpu-bf16", "torch-cpu-bf16") if name in read["errors"]]
    assert ours
    for name in ours:
        assert read["errors"][name]["rms"] <= 1.25 * read["errors"]["native-eager-bf16"]["rms"]
