"""More real models through the whole job: the published Vision Transformer, and Keras 3 models with GRU and masking."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from examples.published_models import fetch
from server.repository.package import read_manifest
from tests.e2e.processes import ROOT, SECONDS, RunningServer, client_calls, convert, serving

pytestmark = pytest.mark.slow


def deployed(source: Path, name: str, repository: Path, server: RunningServer) -> dict[str, Any]:
    """Convert and deploy; the command's JSON."""
    done = convert(source, "--name", name, "--repository", repository, "--server", server.address, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["server"]["served"] is True
    return report


@pytest.mark.timeout(900)
@pytest.mark.parametrize("hidden_act", [pytest.param("gelu_new", marks=pytest.mark.prove), "gelu"])
def test_the_vision_transformer(tmp_path: Path, hidden_act: str) -> None:
    """ViT-Base, with either GELU: served within 5e-6 of TensorFlow, in under 4 minutes, no parameter lost.

    The exact GELU is the one that stock tf2onnx breaks. The weights are random, the biases not zero.
    """
    source = tmp_path / "saved_model"
    command = [sys.executable, "-m", "tests.models.vit", str(source), hidden_act]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=SECONDS)
    repository = tmp_path / "models"
    with serving(repository) as server:
        report = deployed(source, "vit", repository, server)
    (signature,) = report["signatures"]
    logits = signature["outputs"]["logits"]
    assert logits["max_absolute_difference"] <= 5e-6
    assert logits["served_max_absolute_difference"] <= 5e-6
    assert sum(report["seconds"][step] for step in ("read", "convert", "prove", "publish")) <= 240
    manifest = read_manifest(repository / "vit" / "1")
    sizes = {v.name: v for entry in manifest.initializers for v in entry.variables if v.trainable}
    elements = 0
    for variable in sizes.values():
        size = 1
        for dimension in variable.shape:
            size *= dimension
        elements += size
    assert elements == 85_800_194
    assert not manifest.unmapped_variables


def test_a_keras_gru_with_masking(tmp_path: Path) -> None:
    """Sleepecg's classifier, a Keras 3 file with masked GRU layers, is served as Keras computes it, at any length."""
    with zipfile.ZipFile(fetch("sleepecg") / "wrn-gru-mesa.zip") as archive:
        source = Path(archive.extract("classifier.keras", tmp_path))
    repository = tmp_path / "models"
    with serving(repository) as server:
        report = deployed(source, "sleep", repository, server)
        spec = {"name": "sleep"}
        call = {"method": "GetModelMetadata", "spec": spec, "fields": ["signature_def"]}
        (metadata,) = client_calls(server.address, [call])
    for signature in report["signatures"]:
        for output in signature["outputs"].values():
            assert output["served_max_absolute_difference"] <= 1e-5
    default = metadata["signatures"]["serving_default"]
    ((_, dtype, shape),) = default["inputs"].values()
    assert dtype == "float32"
    assert shape[:2] == [-1, -1]


def test_tensorflow_1_and_several_signatures(tmp_path: Path, zoo: Path) -> None:
    """A TensorFlow 1 SavedModel: the signatures that can be converted are served under their names and aliases."""
    repository = tmp_path / "models"
    with serving(repository) as server:
        arguments = ("--name", "old", "--repository", repository, "--server", server.address, "--json")
        refused = convert(zoo / "version_1", *arguments)
        assert refused.returncode == 4
        assert "ParseExample" in json.loads(refused.stdout)["error"]["cause"]
        done = convert(zoo / "version_1", *arguments, "--signature", "predict images")
        assert done.returncode == 0, done.stderr
        inputs = {"in put/a:0": {"dtype": "float32", "value": [[1, 2, 3]]}, "größe": {"dtype": "float32", "value": 0.0}}
        spec = {"name": "old", "signature_name": "predict images"}
        (answer,) = client_calls(server.address, [{"method": "Predict", "spec": spec, "inputs": inputs}])
    assert answer["outputs"] == {"in": [[1.0, 2.0, 3.0]], "out:0": [[0.0, 0.0]]}
    assert answer["spec"] == ["old", 1, "predict images"]
