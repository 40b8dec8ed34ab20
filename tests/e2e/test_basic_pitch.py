"""The main job on a real model: basic-pitch's SavedModel, served to the published client."""

import re
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import onnxruntime as ort
import pytest

from server.arrays import load_arrays
from tests.e2e.conftest import Deployed
from tests.e2e.processes import ROOT, client_calls, convert, tree

pytestmark = pytest.mark.slow


def test_one_command_serves_what_tensorflow_answered(basic_pitch: Deployed) -> None:
    """Every output of every golden request, asked through Predict, is within 1e-5 of TensorFlow's."""
    report = basic_pitch.report
    (signature,) = report["signatures"]
    assert report["server"] == report["server"] | {"served": True, "golden_requests": 3}
    assert set(signature["outputs"]) == {"note", "onset", "contour"}
    for output in signature["outputs"].values():
        assert output["elements_compared"] > 100_000
        assert output["max_absolute_difference"] <= 1e-5
        assert output["served_max_absolute_difference"] <= 1e-5
    assert signature["batchable"] is True


def test_conversion_takes_less_than_a_minute(basic_pitch: Deployed) -> None:
    """The promise for this model on two cores: 60 s from reading to publishing."""
    assert sum(basic_pitch.report["seconds"][step] for step in ("read", "convert", "prove", "publish")) <= 60


def test_the_unmodified_client_gets_tensorflows_answer(basic_pitch: Deployed) -> None:
    """tensorflow-serving-api in a process with TensorFlow itself: the demonstration's client checks to 1e-5."""
    command = [sys.executable, "-m", "examples.client", basic_pitch.server.address, "basic-pitch"]
    done = subprocess.run(
        [*command, str(basic_pitch.saved_model)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("largest difference from TensorFlow") == 3


def test_the_printed_snippet_runs(basic_pitch: Deployed) -> None:
    """What the command prints for calling the model can be pasted and works."""
    done = subprocess.run(
        [sys.executable, "-c", basic_pitch.report["snippet"]], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()} == {"note", "onset", "contour"}


def test_the_vendors_own_export_agrees(basic_pitch: Deployed) -> None:
    """An ONNX file that we did not make, from the same wheel, gives the same answers to our golden inputs."""
    vendor = ort.InferenceSession(str(basic_pitch.saved_model.parent / "nmp.onnx"), providers=["CPUExecutionProvider"])
    arrays = load_arrays(basic_pitch.repository / "basic-pitch" / "1" / "golden.npz")
    (theirs,) = vendor.get_inputs()
    # The vendor's outputs are called StatefulPartitionedCall:N; the order is that of TensorFlow's own outputs.
    for case in range(3):
        answers = vendor.run(None, {theirs.name: arrays[f"0/{case}/inputs/input_2"]})
        ours = [arrays[f"0/{case}/outputs/{alias}"] for alias in ("contour", "note", "onset")]
        for expected in ours:
            distances = [float(np.abs(a - expected).max()) for a in answers if a.shape == expected.shape]
            assert min(distances) <= 1e-5


def test_names_dtypes_and_dynamic_dimensions_survive(basic_pitch: Deployed) -> None:
    """GetModelMetadata says what TensorFlow Serving would have said."""
    call = {"method": "GetModelMetadata", "spec": {"name": "basic-pitch"}, "fields": ["signature_def"]}
    (answer,) = client_calls(basic_pitch.server.address, [call])
    (signature,) = answer["signatures"].values()
    assert signature == {
        "method": "tensorflow/serving/predict",
        "inputs": {"input_2": ["serving_default_input_2:0", "float32", [-1, 43844, 1]]},
        "outputs": {
            "contour": ["StatefulPartitionedCall:0", "float32", [-1, 172, 264]],
            "note": ["StatefulPartitionedCall:1", "float32", [-1, 172, 88]],
            "onset": ["StatefulPartitionedCall:2", "float32", [-1, 172, 88]],
        },
    }


def test_converting_again_converts_nothing(basic_pitch: Deployed) -> None:
    """The same source with the same options is a cache hit: no new version, no TensorFlow, the repository untouched."""
    before = tree(basic_pitch.repository)
    arguments = ("--name", "basic-pitch", "--repository", basic_pitch.repository)
    done = convert(basic_pitch.saved_model, *arguments, "--server", basic_pitch.server.address)
    assert done.returncode == 0, done.stderr
    assert "unchanged since version 1: nothing to convert" in done.stderr
    assert "TensorFlow in a process" not in done.stderr
    assert tree(basic_pitch.repository) == before


def test_prometheus_sees_the_latency(basic_pitch: Deployed) -> None:
    """Latency is there by model, version, signature and backend."""
    with urlopen(basic_pitch.server.metrics, timeout=30) as page:  # noqa: S310 - our own server
        text = page.read().decode()
    found = re.findall(r"^segue_request_latency_seconds_count\{(.*)\} (.*)$", text, re.MULTILINE)
    labels = ('backend="onnxruntime-cpu",bucket="', 'model="basic-pitch",signature="serving_default",version="1"')
    counts = [float(count) for each, count in found if each.startswith(labels[0]) and each.endswith(labels[1])]
    assert sum(counts) >= 3
