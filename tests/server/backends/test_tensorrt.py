"""TensorRT as far as a machine without a GPU can tell."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from server.backends import tensorrt
from server.backends.interface import GraphSpec, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend, cuda
from server.backends.tensorrt import LARGEST_BATCH, TensorRtBackend, TensorRtGraph, engine_options, providers
from server.errors import GraphNotLoadable, LeftToOthers
from tests.server.backends.graphs import write_graph

LIBRARIES = Path(onnxruntime.__file__).parent / "capi"


def _spec(folder: Path) -> GraphSpec:
    return write_graph(folder, "g (float[B,3] x, float[B] z) => (float[B,3] y) {y = Neg(x)}")


@pytest.mark.parametrize("precision", Precision)
def test_every_option_is_one_that_the_provider_knows(tmp_path: Path, precision: Precision) -> None:
    """The names that we set are in the provider's library; a misspelt one would only show on a GPU."""
    spec = _spec(tmp_path)
    for provider, library in zip(
        providers(tmp_path, engine_options(spec, precision), precision)[:2], ("tensorrt", "cuda"), strict=True
    ):
        assert not isinstance(provider, str)
        file = LIBRARIES / f"libonnxruntime_providers_{library}.so"
        if not file.exists():
            pytest.skip("this build of ONNX Runtime has no CUDA")
        known = file.read_bytes()
        assert [name for name in provider[1] if b"\0" + name.encode() + b"\0" not in known] == []


def test_float32_is_float32(tmp_path: Path) -> None:
    """No provider may compute float32 with 10 bits, as both do by default, unless that is the precision."""
    for precision in Precision:
        for provider in (cuda(precision), providers(tmp_path, {}, precision)[1]):
            assert provider == ("CUDAExecutionProvider", {"use_tf32": "1" if precision is Precision.TF32 else "0"})


@pytest.mark.parametrize("precision", Precision)
def test_engines_of_float32_alone_are_built_without_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """TensorRT takes 10 bits unless its process is told not to."""
    told: list[str | None] = []

    class Child(subprocess.Popen[bytes]):
        def __init__(self, _command: object, *, env: Mapping[str, str], **_rest: object) -> None:
            told.append(env.get("NVIDIA_TF32_OVERRIDE"))
            super().__init__([sys.executable, "-c", "raise SystemExit(1)"], stdin=subprocess.PIPE)

    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(subprocess, "Popen", Child)
    with pytest.raises(GraphNotLoadable, match="cannot be built"):
        TensorRtBackend(tmp_path / "cache", precision=precision).prepare(_spec(tmp_path), threading.Event())
    assert told == ["0" if precision is Precision.FP32 else None]


def test_an_engine_is_for_batches_from_one_to_the_largest(tmp_path: Path) -> None:
    """The profile has every input that varies, so that no request makes TensorRT build."""
    options = engine_options(_spec(tmp_path), Precision.FP16)
    assert options["trt_profile_min_shapes"] == "x:1x3,z:1"
    assert options["trt_profile_max_shapes"] == f"x:{LARGEST_BATCH}x3,z:{LARGEST_BATCH}"
    assert options["trt_fp16_enable"] == "1"


def test_sizes_that_vary_otherwise_are_refused(tmp_path: Path) -> None:
    """How long a sequence may get, nobody can say for the profile."""
    spec = write_graph(tmp_path, "g (float[B,S] x) => (float[B,S] y) {y = Neg(x)}")
    with pytest.raises(GraphNotLoadable, match="'x' varies in more than the batch"):
        engine_options(spec, Precision.FP32)


def test_a_batch_beyond_the_profile_does_not_reach_the_engine(tmp_path: Path) -> None:
    """It is left to another backend, in words, instead of building for minutes."""
    graph = TensorRtGraph(OnnxRuntimeBackend(threads=1).load(_spec(tmp_path)))
    for rows in (1, LARGEST_BATCH):
        x = np.ones((rows, 3), np.float32)
        assert graph.run({"x": x, "z": x[:, 0]}, ["y"])[0].shape == (rows, 3)
    for rows in (0, LARGEST_BATCH + 1):
        x = np.ones((rows, 3), np.float32)
        with pytest.raises(LeftToOthers, match=f"this one has {rows} rows"):
            graph.run({"x": x, "z": x[:, 0]}, ["y"])


def test_what_was_not_built_is_not_loaded(tmp_path: Path) -> None:
    """Loading never builds."""
    with pytest.raises(GraphNotLoadable, match="is not built"):
        TensorRtBackend(tmp_path / "cache").load(_spec(tmp_path))


@pytest.mark.skipif(tensorrt._gpu() != "", reason="this machine has a GPU")
def test_without_a_gpu_the_building_fails_in_words_and_leaves_nothing(tmp_path: Path) -> None:
    """The child's reason is the error, and a failed build is not taken for an engine."""
    backend, spec = TensorRtBackend(tmp_path / "cache"), _spec(tmp_path)
    with pytest.raises(GraphNotLoadable, match=r"cannot be built: .*provider did not start"):
        backend.prepare(spec, threading.Event())
    assert list((tmp_path / "cache" / "tensorrt").iterdir()) == []


def test_nobody_waits_for_what_nobody_wants(tmp_path: Path) -> None:
    """A build ends soon after `stop` is set, without an engine and without an error."""
    stop = threading.Event()
    stop.set()
    begin = time.monotonic()
    TensorRtBackend(tmp_path / "cache").prepare(_spec(tmp_path), stop)
    assert time.monotonic() - begin < 5
    assert list((tmp_path / "cache" / "tensorrt").iterdir()) == []


def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The time is bounded, and the child does not outlive it."""
    with pytest.raises(GraphNotLoadable, match="took too long"):
        TensorRtBackend(tmp_path / "cache", build_seconds=0).prepare(_spec(tmp_path), threading.Event())


def test_each_precision_has_an_engine_of_its_own(tmp_path: Path) -> None:
    """What is kept is known by everything that it depends on."""
    spec = _spec(tmp_path)
    folders = {TensorRtBackend(tmp_path, precision=precision)._folder(spec) for precision in Precision}
    assert len(folders) == len(Precision)
    assert {TensorRtBackend(tmp_path, precision=p).name for p in Precision} == {
        "onnxruntime-tensorrt", "onnxruntime-tensorrt-tf32", "onnxruntime-tensorrt-bf16", "onnxruntime-tensorrt-fp16",
    }  # fmt: skip


def test_each_kind_of_gpu_has_an_engine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine is known by the GPU's name and capability, as every backend that compiles for one is."""
    spec, backend = _spec(tmp_path), TensorRtBackend(tmp_path)
    folders = set()
    for identity in ("A 8.0", "A 8.6", "B 8.0"):
        monkeypatch.setattr(tensorrt, "gpu_identity", partial(str, identity))
        folders.add(backend._folder(spec))
    assert len(folders) == 3
