"""What TensorFlow really exports: models whose rows keep apart are proved, and none whose rows touch is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from converter.rows.proof import why_not_apart
from server.arrays import Array
from tests.conftest import ROOT
from tests.converter.conftest import Exporter
from tests.converter.running import open_session

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graphs(export: Exporter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exports of tests.models.rows, by signature."""
    folder = tmp_path_factory.mktemp("rows") / "saved_model"
    command = [sys.executable, "-m", "tests.models.rows", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {signature.name: signature.onnx for signature in export(str(folder)).signatures}


def test_rows_that_keep_apart_are_proved(graphs: dict[str, Path]) -> None:
    """Dense layers, attention, convolutions, loops over steps, and what else stays within a row."""
    reasons = {name: why_not_apart(onnx.load(path)) for name, path in graphs.items() if name.startswith("apart_")}
    assert len(reasons) >= 18
    assert {name: reason for name, reason in reasons.items() if reason} == {}


def test_rows_that_touch_are_never_proved(graphs: dict[str, Path]) -> None:
    """Statistics, orders and choices over the batch, its size as a value, and thresholds that no golden row meets."""
    touching = {name: why_not_apart(onnx.load(path)) for name, path in graphs.items() if name.startswith("touching_")}
    assert len(touching) >= 25
    assert [name for name, reason in touching.items() if not reason] == []
    assert "ReduceMax" in touching["touching_threshold"]
    assert "NonZero" in touching["touching_kept"]


def test_what_is_proved_is_so(graphs: dict[str, Path]) -> None:
    """Rows answered together get what they get alone, wild values beside them or not."""
    x = np.random.default_rng(0).standard_normal((5, 6, 4)).astype(np.float32)
    x[3] *= 1000
    for name, path in graphs.items():
        if name.startswith("apart_"):
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            alone = np.concatenate([_run(session, x[row : row + 1]) for row in range(5)])
            np.testing.assert_allclose(_run(session, x), alone, rtol=1e-4, atol=1e-4, err_msg=name)


def _run(session: onnxruntime.InferenceSession, x: Array) -> Array:
    answer: Array = session.run(["y"], {"x": x})[0]
    return answer


@pytest.mark.parametrize(
    ("model", "signature", "reason"),
    [
        ("corners", "linear.serving_default", ""),
        ("corners", "shared.serving_default", ""),
        ("corners", "tokens.serving_default", ""),
        ("corners", "string_table.serving_default", ""),
        ("corners", "gelu.serving_default", ""),
        ("corners", "positive.serving_default", ""),
        ("corners", "convolution.serving_default", ""),
        ("corners", "control.serving_default", "ReduceSum"),
        ("corners", "plumbing.serving_default", "output 'constant'"),
        ("corners", "dtypes.serving_default", "input 'scale'"),
        ("corners", "ranks.fixed", "input 'x'"),
        ("corners", "ranks.unknown", "input 'x'"),
        ("gru.keras", "serving_default", ""),
        ("keras_2.h5", "serving_default", ""),
        ("bicubic", "serving_default", ""),
    ],
)
def test_the_zoo(export: Exporter, model: str, signature: str, reason: str) -> None:
    """The plain models are proved, recurrent ones with their loops too; the others say why not."""
    (found,) = [one for one in export(model).signatures if one.name == signature]
    said = why_not_apart(onnx.load(found.onnx))
    assert (reason in said) if reason else said == ""
    open_session(found)


@pytest.mark.parametrize("activation", ["gelu", pytest.param("gelu_new", marks=pytest.mark.prove)])
def test_a_vision_transformer(export: Exporter, tmp_path: Path, activation: str) -> None:
    """Transformers' ViT: its reshapes ask for the batch's size in every layer, and still keep rows apart."""
    folder = tmp_path / activation
    config = ("hidden_size=32", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=32", "image_size=32")
    command = [sys.executable, "-m", "tests.models.vit", str(folder), activation, *config]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert why_not_apart(onnx.load(export(str(folder)).signatures[0].onnx)) == ""
