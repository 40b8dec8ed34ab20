"""ONNX Runtime's TensorRT provider as a backend: engines are built in a child process and kept. No figure of it exists.

The provider builds an engine when a session is created and none is in its cache, and again when a request has a shape
outside of the engine's profile; both take minutes. So `prepare` has `python -m server.backends.tensorrt` do the first,
and a run refuses what would be the second. Written after ONNX Runtime's documentation and unmeasured: the machines that
this was made on have no GPU.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from server.arrays import Array
from server.backends.gpu import gpu_identity
from server.backends.interface import GraphSpec, LoadedGraph, Precision, TensorPort
from server.backends.onnx_runtime import CPU, VERSION, OnnxRuntimeGraph, Provider, cuda, input_shapes, open_session
from server.errors import GraphNotLoadable, LeftToOthers

_PROVIDER: Final = "TensorrtExecutionProvider"
# One engine serves batches from 1 to here, and is fastest at the middle one.
LARGEST_BATCH: Final = 32
_USUAL_BATCH: Final = 8
_BUILD_SECONDS: Final = 1800
_KEPT: Final = 16  # graphs whose engines stay in the cache
_DONE: Final = "done"

_PRECISION_OPTIONS: Final[Mapping[Precision, Mapping[str, str]]] = {
    Precision.FP32: {},
    Precision.TF32: {},  # what it does unless the environment forbids it
    Precision.BF16: {"trt_bf16_enable": "1"},
    # Sums of squares leave float16's range.
    Precision.FP16: {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
}


class TensorRtGraph:
    """A session whose engine is built, for batches that the engine's profile covers."""

    def __init__(self, graph: LoadedGraph) -> None:
        self._graph = graph

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run. Others are left to other backends."""
        rows = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
        if not 1 <= rows <= LARGEST_BATCH:
            msg = f"the TensorRT engine is built for batches of 1 to {LARGEST_BATCH}, and this one has {rows} rows"
            raise LeftToOthers(msg)
        return self._graph.run(inputs, outputs)

    def close(self) -> None:
        """Free the session; see LoadedGraph.close."""
        self._graph.close()


class TensorRtBackend:
    """TensorRT on the first GPU, CUDA for what it does not take."""

    def __init__(
        self, cache: Path, *, precision: Precision = Precision.FP32, build_seconds: float = _BUILD_SECONDS
    ) -> None:
        """Make a backend.

        Args:
            cache: Folder for engines, of this user alone; made when needed.
            precision: What engines may compute in where the graph says float32.
            build_seconds: What building one may take.
        """
        self.precision = precision
        self._cache = cache / "tensorrt"
        self._build_seconds = build_seconds

    @property
    def name(self) -> str:
        """The metric label."""
        return "onnxruntime-tensorrt" + ("" if self.precision is Precision.FP32 else f"-{self.precision.value}")

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Build the engine in a child process, unless it is there from before; see Backend.prepare."""
        folder = self._folder(graph)
        if (folder / _DONE).exists():
            return
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache, prefix="building-") as work:
            if not self._build(graph, Path(work), stop):
                return
            self._make_room()
            if not folder.exists():  # else another process was faster, and its engine is as good
                Path(work).rename(folder)
                Path(work).mkdir()  # for the end of this block to remove

    def load(self, graph: GraphSpec) -> LoadedGraph:
        """Create the session on the engine that `prepare` left; see Backend.load."""
        folder = self._folder(graph)
        if not (folder / _DONE).exists():
            msg = f"the TensorRT engine of {graph.path.name} is not built"
            raise GraphNotLoadable(msg)
        options: dict[str, str] = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        session = open_session(graph, providers(folder, options, self.precision))
        return TensorRtGraph(OnnxRuntimeGraph(session, graph))

    def _folder(self, graph: GraphSpec) -> Path:
        facts = [graph.digest, VERSION, _gpu(), self.precision.value, LARGEST_BATCH, _USUAL_BATCH]
        return self._cache / hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _build(self, graph: GraphSpec, work: Path, stop: threading.Event) -> bool:
        """Run the child; whether it was let to finish.

        Raises:
            GraphNotLoadable: it failed or took too long.
        """
        ports = json.dumps([[[p.name, p.dtype] for p in side] for side in (graph.inputs, graph.outputs)])
        command = [sys.executable, "-m", "server.backends.tensorrt", str(graph.path), str(work), self.precision.value]
        # In float32 without the 10-bit products (TF32) that TensorRT takes otherwise.
        environment = os.environ | ({"NVIDIA_TF32_OVERRIDE": "0"} if self.precision is Precision.FP32 else {})
        with (work / "log").open("w+", encoding="utf-8", errors="replace") as log:
            child = subprocess.Popen(
                [*command, ports], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
            try:
                status = _wait(child, stop, self._build_seconds)
            finally:
                child.kill()
                child.communicate()
            if status == 0 or stop.is_set():
                return status == 0
            log.seek(0)
            words = log.read().strip().splitlines()
        reason = "it took too long" if status is None else words[-1] if words else f"it ended with {status}"
        msg = f"the TensorRT engine of {graph.path.name} cannot be built: {reason}"
        raise GraphNotLoadable(msg)

    def _make_room(self) -> None:
        kept = sorted((f for f in self._cache.iterdir() if (f / _DONE).exists()), key=lambda f: f.stat().st_mtime)
        for folder in kept[: max(0, len(kept) - _KEPT + 1)]:
            shutil.rmtree(folder, ignore_errors=True)


def _wait(child: subprocess.Popen[bytes], stop: threading.Event, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        if stop.wait(0.2):
            return None
    return child.poll()


def _gpu() -> str:
    """The first GPU, since an engine is built for one kind; empty without one: the child says what is missing."""
    try:
        return gpu_identity()
    except GraphNotLoadable:
        return ""


def engine_options(graph: GraphSpec, precision: Precision) -> dict[str, str]:
    """What the provider must be told of one graph, at the building and at every use alike.

    Raises:
        GraphNotLoadable: an input's size varies otherwise than with the batch, which a profile would have to know.
    """
    options = dict(_PRECISION_OPTIONS[precision])
    shapes = input_shapes(graph)
    if any(dimension is None for shape in shapes.values() for dimension in shape):
        for kind, rows in (("min", 1), ("opt", _USUAL_BATCH), ("max", LARGEST_BATCH)):
            options[f"trt_profile_{kind}_shapes"] = ",".join(_profile(name, s, rows) for name, s in shapes.items())
    return options


def providers(folder: Path, options: Mapping[str, str], precision: Precision) -> list[Provider]:
    """What a session is created with: TensorRT with its engines in the folder, then CUDA, then the CPU."""
    caches = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    return [(_PROVIDER, {**caches, **options}), cuda(precision), CPU]


def _profile(name: str, shape: Sequence[int | None], rows: int) -> str:
    if any(dimension is None for dimension in shape[1:]):
        msg = f"input {name!r} varies in more than the batch: TensorRT would have to know how far"
        raise GraphNotLoadable(msg)
    return f"{name}:{'x'.join(str(rows if dimension is None else dimension) for dimension in shape)}"


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)  # the builder holds every other thread

    threading.Thread(target=watch, daemon=True).start()


def main(argv: Sequence[str]) -> None:
    """Build the engine of one graph into a folder, for `prepare`."""
    parser = argparse.ArgumentParser(prog="server.backends.tensorrt", description="Build one TensorRT engine.")
    for name in ("onnx", "folder", "precision", "ports"):
        parser.add_argument(name)
    options = parser.parse_args(argv)
    _end_with_parent()
    inputs, outputs = (tuple(TensorPort(*port) for port in side) for side in json.loads(options.ports))
    graph, folder = GraphSpec(Path(options.onnx), inputs, outputs), Path(options.folder)
    precision = Precision(options.precision)
    try:
        chosen = engine_options(graph, precision)
        open_session(graph, providers(folder, chosen, precision))
    except GraphNotLoadable as error:
        sys.exit(error.message)
    (folder / _DONE).write_text(json.dumps(chosen), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
