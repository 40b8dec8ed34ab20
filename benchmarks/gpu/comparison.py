"""What the check of the PyTorch path measures: a method for each step (`benchmarks.gpu.pytorch_path` takes them)."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import fx, nn
from torch.fx.experimental import _config as symbolic

from benchmarks.gpu import graph, native
from benchmarks.gpu.compiling import AUTOCAST, NATIVE, OURS, ROOT, Builds
from benchmarks.gpu.steps import LeftOut
from benchmarks.gpu.timing import Run, alternate, compared
from server.arrays import Array
from server.backends.aot_inductor import Device
from server.lowering.precision import PRECISIONS, AtPrecision
from server.lowering.walk import lower
from server.parity import compare, default_tolerance

MOST_ERROR: Final = 1.25
"""Times the native model's error, in a precision below float32."""
LEAST_SPEED: Final = 0.98
"""Of the native model's, as the median of paired ratios, whose interval must reach 1."""
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured.

    Attributes:
        device: "cuda" or "cpu".
        layers: Of ViT-Base's twelve.
        precisions: Of "fp32", "tf32", "bf16", "fp16".
        batches: Sizes for speed.
        rounds: For each ratio.
        images: For errors.
        native: Which native model; see `benchmarks.gpu.native.build`.
    """

    device: Device
    layers: int
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    rounds: int
    images: int
    native: str

    @property
    def compiled(self) -> list[str]:
        """The precisions that are compiled for: TF32 runs what float32 does."""
        return list(dict.fromkeys("fp32" if one == "tf32" else one for one in self.precisions))


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions on a GPU may take 10 bits of each number."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


class Comparison:
    """Both models, and everything that is measured of them."""

    def __init__(self, scope: Scope, folder: Path) -> None:
        """Name what will be made.

        Args:
            scope: How much.
            folder: An empty one of this user alone, for some gigabytes.
        """
        self.scope = scope
        self._folder = folder
        self._runs: dict[tuple[str, str], Run] = {}
        self._expected: Array = np.empty(0)

    def make(self) -> dict[str, Any]:
        """Fill both models with the same numbers, count these, and begin to compile."""
        bare = graph.load(self.scope.layers)
        values = graph.weights(bare)
        full = graph.filled(bare, values)
        onnx.save(full, self._folder / "vit.onnx")
        self.digest = hashlib.sha256((self._folder / "vit.onnx").read_bytes()).hexdigest()
        spec = graph.spec(self._folder / "vit.onnx", self.digest)
        self.builds = Builds(spec, self._folder, self.scope.device, self.scope.layers, self.scope.native)
        self.builds.start(self.scope.compiled)
        self.ours = lower(full, graph.variables(bare)).to(self.scope.device)
        self.native, name = native.build(values, self.scope.layers, self.scope.native)
        counts = {
            "ours": self.ours.trainable_elements(),
            "native": sum(one.numel() for one in self.native.parameters()),
            "tensorflow": sum(array.size for array in values.values()),
        }
        return {"native": name, "parameters": counts, "equal": len(set(counts.values())) == 1}

    def stop(self) -> None:
        """End what is being built, and remove what was written: for an end before the time."""
        if hasattr(self, "builds"):
            self.builds.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def graphs(self) -> dict[str, Any]:
        """Graph breaks, and how many graphs torch.compile makes for batches of 4, 16 and 1."""
        found: dict[str, Any] = {}
        plain = native.AtDtype(self.native, torch.float32, self.scope.device)
        for name, module in ((OURS, self.ours), (NATIVE, plain)):
            with torch.no_grad():
                breaks = torch._dynamo.explain(module)(self._images(2)).graph_break_count  # noqa: SLF001 - its public name
                found[name] = {"breaks": breaks, "graphs": self._graphs(module)}
        return found

    def _graphs(self, module: nn.Module) -> int:
        made: list[fx.GraphModule] = []

        def backend(one: fx.GraphModule, _: Sequence[torch.Tensor]) -> fx.GraphModule:
            made.append(one)
            return one

        torch.compiler.reset()
        with symbolic.patch(backed_size_oblivious=True):  # type: ignore[attr-defined] # put there when torch loads
            function = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
            for batch in (4, 16, 1):
                function(self._images(batch))
        return len(made)

    def answers(self) -> dict[str, Any]:
        """Ours beside the native one in float32, neither compiled nor in TF32; and float64 for what follows."""
        device, values = self.scope.device, graph.weights(graph.load(self.scope.layers))
        copy, _ = native.build(values, self.scope.layers, self.scope.native)
        with torch.no_grad(), tf32(allowed=False):
            ours = self._all(_first(self.ours))
            theirs = self._all(_first(native.AtDtype(self.native, torch.float32, device)))
            self._expected = self._all(_first(native.AtDtype(copy, torch.float64, device)))
        found = compare(theirs, ours, default_tolerance([theirs]))
        return {
            "images": self.scope.images,
            "difference": found.max_absolute,
            "problem": found.problem,
            "ours_to_float64": _errors(ours, self._expected),
            "native_to_float64": _errors(theirs, self._expected),
            "logits": [float(self._expected.min()), float(self._expected.max())],
        }

    def build(self, seconds: float) -> dict[str, Any]:
        """Wait for what is compiled, and load it as torch's own runners do."""
        built = self.builds.wait(seconds)
        for one in self.builds.every:
            if one.library is None:
                continue
            self._let_go()
            free = self._free()
            run = self._runner(one.library)
            with torch.no_grad():
                run(self._images(max(self.scope.batches)))
            self._runs[one.contender, one.precision] = run
            # With its weights, and everything that a run took: torch keeps that until it is told to let go.
            built[one.name]["gpu_memory_mib"] = round((free - self._free()) / _MIB)
        return built

    def _runner(self, library: Path) -> Run:
        kinds = torch._C._aoti  # noqa: SLF001 - the loader of shared objects has no other name
        runner: Any = (
            kinds.AOTIModelContainerRunnerCuda(str(library), 1, "cuda", str(library.parent))
            if self.scope.device == "cuda"
            else kinds.AOTIModelContainerRunnerCpu(str(library), 1)
        )
        return _first(lambda images: runner.run([images]))

    def _free(self) -> int:
        if self.scope.device == "cpu":
            return 0
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    def _let_go(self) -> None:
        if self.scope.device != "cpu":
            torch.cuda.empty_cache()

    def errors(self) -> dict[str, Any]:
        """How far the compiled models are from float64, and ours as a multiple of the native one's."""
        if not self._expected.size:
            raise LeftOut("there are no answers in float64")
        found: dict[str, Any] = {}
        for precision in self.scope.precisions:
            row: dict[str, Any] = {}
            with torch.no_grad(), tf32(allowed=precision == "tf32"):
                for contender, run in self._contenders(precision).items():
                    row[contender] = _errors(self._all(run), self._expected)
            if OURS in row and NATIVE in row:
                row["ratio"] = row[OURS]["rms"] / row[NATIVE]["rms"]
                row["holds"] = row["ratio"] <= MOST_ERROR
            found[precision] = row
        return found

    def speed(self, precision: str) -> dict[str, Any]:
        """Compiled, in one precision, by batch size."""
        contenders = self._contenders(precision)
        if not contenders:
            raise LeftOut("nothing was compiled")
        with torch.no_grad(), tf32(allowed=precision == "tf32"):
            return self._speeds(contenders)

    def compiled(self, precision: str) -> dict[str, Any]:
        """As `speed`, of what torch.compile makes within this process."""
        dtype = PRECISIONS.get(precision, torch.float32)
        values = graph.weights(graph.load(self.scope.layers))
        other, _ = native.build(values, self.scope.layers, self.scope.native)
        modules: dict[str, nn.Module] = {
            OURS: AtPrecision(self.ours, precision, self.scope.device),
            NATIVE: native.AtDtype(other, dtype, self.scope.device),
        }
        torch.compiler.reset()
        with torch.no_grad(), tf32(allowed=False):
            runs = {
                name: _first(torch.compile(module, fullgraph=True, dynamic=True)) for name, module in modules.items()
            }
            return self._speeds(runs)

    def served(self, seconds: float) -> dict[str, Any]:
        """Each of our compiled models in the server's way, in a process without Python's torch."""
        found: dict[str, Any] = {}
        for precision in self.scope.compiled:
            if self.builds.library(OURS, precision) is None:
                found[precision] = {"problem": "it was not compiled"}
                continue
            answer = self._folder / f"served-{precision}.npy"
            command = [sys.executable, "-m", "benchmarks.gpu.served", str(self._folder / "vit.onnx"),
                       str(self._folder / f"ours-{precision}"), precision, self.scope.device, "--digest", self.digest,
                       "--batches", ",".join(map(str, self.scope.batches)), "--answer", str(answer)]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
            if done.returncode != 0:
                found[precision] = {"problem": f"ended with {done.returncode}: {done.stderr.strip()[-1000:]}"}
                continue
            found[precision] = json.loads(done.stdout.splitlines()[-1]) | {"problem": ""}
            if (run := self._runs.get((OURS, precision))) is not None:
                with torch.no_grad(), tf32(allowed=False):
                    there = run(self._images(4)).cpu().numpy()
                found[precision]["difference_to_torch"] = float(np.abs(np.load(answer) - there).max())
        return found

    def _contenders(self, precision: str) -> dict[str, Run]:
        built = "fp32" if precision == "tf32" else precision
        return {name: self._runs[name, built] for name in (OURS, NATIVE, AUTOCAST) if (name, built) in self._runs}

    def _speeds(self, runs: Mapping[str, Run]) -> dict[str, Any]:
        found = {}
        for batch in self.scope.batches:
            samples = alternate(runs, self._images(batch), self.scope.rounds)
            row: dict[str, Any] = {
                name: {"median_ms": 1e3 * float(np.median(one)), "rounds_ms": [round(1e3 * s, 4) for s in one]}
                for name, one in samples.items()
            }
            for native_one in (NATIVE, AUTOCAST):
                if (ratio := compared(samples, OURS, native_one)) is not None:
                    row[f"times {native_one}"] = [ratio.median, ratio.low, ratio.high]
                    if native_one == NATIVE:
                        row["holds"] = ratio.median >= LEAST_SPEED and ratio.high >= 1
            found[str(batch)] = row
        return found

    def _images(self, batch: int) -> torch.Tensor:
        return torch.from_numpy(graph.images(batch)).to(self.scope.device)

    def _all(self, run: Run) -> Array:
        """Answers to all images, 16 at a time."""
        parts = torch.split(self._images(self.scope.images), 16)
        return np.asarray(torch.cat([run(part) for part in parts]).cpu().numpy())


def _first(function: Callable[..., Any]) -> Run:
    """What answers with a tuple of one, as what answers with that one."""

    def run(images: torch.Tensor) -> torch.Tensor:
        (answer,) = function(images)
        return answer  # type: ignore[no-any-return] # of whatever was compiled

    return run


def _errors(got: Array, expected: Array) -> dict[str, float]:
    error = got.astype(np.float64) - expected
    return {"largest": float(np.abs(error).max()), "rms": float(np.sqrt(np.mean(error**2)))}
