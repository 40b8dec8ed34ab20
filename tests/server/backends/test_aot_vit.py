"""The network of the published attempt, compiled: how long it takes, what it answers, and whom it holds up."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.export import ExportJob, run_export
from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import GraphSpec, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend
from tests.conftest import ROOT
from tests.server.backends.compiled import ports
from tests.server.backends.test_aot_inductor import longest_gap

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> GraphSpec:
    """ViT-Base as TensorFlow exports it."""
    folder = tmp_path_factory.mktemp("vit")
    made = subprocess.run(
        [sys.executable, "-m", "tests.models.vit", str(folder / "saved"), "gelu_new"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with run_export(ExportJob(folder / "saved", "saved_model"), on_progress=lambda event: None) as result:  # noqa: ARG005
        onnx_file = result.signatures[0].onnx.rename(folder / "model.onnx")
    graph = onnx.load(onnx_file, load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    return GraphSpec(onnx_file, ports([one for one in graph.input if one.name not in held]), ports(graph.output))


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 5e-6), (Precision.BF16, 3e-2)])
def test_vit_base(vit: GraphSpec, tmp_path: Path, precision: Precision, tolerance: float) -> None:
    """Built in 90 s, ready and answered in 1 s, ONNX Runtime's numbers, and no long gap for anyone else."""
    backend, outputs = AotInductorBackend(tmp_path / "cache", precision=precision), [port.name for port in vit.outputs]
    begin = time.perf_counter()
    backend.prepare(vit, threading.Event())
    built = time.perf_counter() - begin
    pixels = np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32)
    feeds = {vit.inputs[0].name: pixels}
    loading, load_gap = longest_gap(lambda: backend.load(vit).close())
    begin = time.perf_counter()
    loaded = AotInductorBackend(tmp_path / "cache", precision=precision).load(vit)
    (one,) = loaded.run({vit.inputs[0].name: pixels[:1]}, outputs)
    first = time.perf_counter() - begin
    running, run_gap = longest_gap(lambda: loaded.run(feeds, outputs))
    (four,), (want,) = loaded.run(feeds, outputs), OnnxRuntimeBackend().load(vit).run(feeds, outputs)
    apart = max(float(np.abs(four - want).max()), float(np.abs(one - want[:1]).max()))
    print(f"{precision}: built {built:.1f} s, first answer {first:.2f} s, apart {apart:.2g}")
    print(f"gaps {load_gap * 1e3:.0f} ms of {loading:.2f} s, {run_gap * 1e3:.0f} ms of {running:.2f} s")
    assert apart <= tolerance
    assert built <= 90
    assert first <= 1 + vit.path.stat().st_size / 500e6  # the weights are read, checked and copied
    assert load_gap < 0.1
    assert run_gap < running / 3
    loaded.close()
