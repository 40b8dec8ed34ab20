"""ONNX Runtime's providers on a GPU machine: `python -m benchmarks.gpu.onnx_runtime --out RESULT.json`.

The server's own backends for the processor, CUDA and TensorRT load a converted package (`--package`), or ViT-Base with
weights made of a seed; each answer is held against the package's golden ones by the server's own rules, or against
those of the processor, float32 being float32 and TF32 a backend of its own; then they answer by turns, batch by batch,
from arrays to arrays. What the machine lacks is said first, with what to install. It ends itself in time (`--seconds`),
with what it has. `--providers cpu` runs without a GPU.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.backends.figures import paired_ratio
from benchmarks.gpu.machine import describe
from benchmarks.gpu.missing import missing
from benchmarks.gpu.steps import LeftOut, Steps
from benchmarks.gpu.subjects import PackageSubject, SeededVit, Subject
from server.arrays import Array
from server.backends.interface import Backend, LoadedGraph, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.backends.tensorrt import LARGEST_BATCH, TensorRtBackend
from server.errors import SegueError
from server.gpu import Gpus

PROVIDERS: Final = ("cpu", "cuda", "tensorrt")
_BATCH_S: Final = 20
"""What one batch size may take: rounds that would take longer are left out, two at least are run."""


class Providers:
    """Backends that are loaded, and what was measured of them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._loaded: dict[str, dict[str, LoadedGraph]] = {}
        self._most: dict[str, int] = {}
        self._gpus = Gpus()

    def load(self, backend: Backend, build_seconds: float) -> dict[str, Any]:
        """Prepare, load and prove a backend.

        Raises:
            SegueError: it cannot be prepared or loaded.
        """
        stop = threading.Event()
        timer = threading.Timer(build_seconds, stop.set)
        timer.start()
        try:
            begin = time.perf_counter()
            for spec in self._subject.specs.values():
                backend.prepare(spec, stop)
            prepared, memory = time.perf_counter(), self._memory()
            if stop.is_set():
                raise LeftOut(f"preparing took more than {build_seconds:.0f} s")
            loaded = {name: backend.load(spec) for name, spec in self._subject.specs.items()}
        finally:
            timer.cancel()
        ready = time.perf_counter()
        difference, problem = self._subject.proof(backend.name, loaded, backend.precision)
        if not problem:
            self._loaded[backend.name] = loaded
            self._most[backend.name] = LARGEST_BATCH if isinstance(backend, TensorRtBackend) else 1 << 20
        return {
            "prepare_s": prepared - begin,
            "load_s": ready - prepared,
            "proof_s": time.perf_counter() - ready,
            "difference": difference,
            "problem": problem,
            "gpu_memory_mib": (self._memory() - memory) / 2**20,
            "process_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        }

    def speed(self, batch: int, rounds: int) -> dict[str, Any]:
        """Milliseconds of each backend that proved right, by turns, and as multiples of the processor's speed."""
        feeds = self._subject.feeds(batch)
        names = [name for name, most in self._most.items() if batch <= most]
        if feeds is None or not names:
            raise LeftOut("no backend takes part" if feeds else "the package has no golden rows to fill it with")
        for name in names:
            self._seconds(name, feeds)
        samples: dict[str, list[float]] = {name: [] for name in names}
        end = time.perf_counter() + _BATCH_S
        for number in range(rounds):
            if number > 1 and time.perf_counter() > end:
                break
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(self._seconds(name, feeds))
        first = names[0]
        found: dict[str, Any] = {}
        for name, seconds in samples.items():
            found[name] = {"median_ms": 1e3 * float(np.median(seconds)), "rounds_ms": [1e3 * one for one in seconds]}
            if name != first:
                ratio = paired_ratio(samples[first], seconds)
                found[name][f"times {first}"] = [ratio.median, ratio.low, ratio.high]
        return found

    def close(self) -> None:
        """Free everything."""
        for loaded in self._loaded.values():
            for one in loaded.values():
                one.close()

    def _seconds(self, name: str, feeds: Mapping[str, Array]) -> float:
        begin = time.perf_counter()
        self._loaded[name][self._subject.served].run(feeds, self._subject.outputs)
        return time.perf_counter() - begin

    def _memory(self) -> int:
        return sum(one.memory_used or 0 for one in self._gpus.figures())


def backends(provider: str, precisions: list[Precision], cache: Path, seconds: float) -> list[Backend]:
    """The server's backends of a provider: the precisions are TensorRT's; CUDA computes in float32 and in TF32."""
    if provider == "tensorrt":
        return [TensorRtBackend(cache, precision=one, build_seconds=seconds) for one in precisions]
    if provider == "cuda":
        return [OnnxRuntimeBackend("cuda", precision=one) for one in (Precision.FP32, Precision.TF32)]
    return [OnnxRuntimeBackend("cpu")]


def measure(options: argparse.Namespace, folder: Path, steps: Steps) -> dict[str, Any]:
    """Take all steps; what each gave, by its name."""
    steps.run("machine", describe)
    lacking = {name: missing(name) for name in options.providers}
    steps.run("missing", lambda: lacking)
    for text in dict.fromkeys(text for texts in lacking.values() for text in texts):
        print(f"  {text}", flush=True)
    subject = PackageSubject(options.package) if options.package else SeededVit(folder, options.layers)
    steps.result["subject"] = str(options.package or f"ViT-Base, {options.layers} layers, seeded weights")
    providers = Providers(subject)
    precisions = [Precision(one) for one in options.precisions.split(",")]
    for provider in options.providers:
        for backend in backends(provider, precisions, options.cache or folder / "cache", steps.left()):
            if lacking[provider]:
                steps.run(f"load {backend.name}", lambda: _leave_out(lacking[provider]))  # noqa: B023 - run at once
            else:
                steps.run(f"load {backend.name}", lambda: providers.load(backend, steps.left() * 0.6))  # noqa: B023 - run at once
    for batch in options.batches:
        steps.run(f"batch {batch}", lambda: providers.speed(batch, options.rounds), needs=2 * _BATCH_S)  # noqa: B023 - run at once
    providers.close()
    return steps.result


def _leave_out(reasons: list[str]) -> dict[str, Any]:
    raise LeftOut("; ".join(reasons))


def show(result: Mapping[str, Any]) -> str:
    """Tables of whatever there is."""
    lines = [f"{result['machine']['gpu']}; {result.get('subject', '')}", ""]
    lines += ["| backend | prepare, s | load, s | difference | GPU MiB | problem |", "|---|---|---|---|---|---|"]
    for name, step in result["steps"].items():
        if name.startswith("load ") and (one := result.get(name)) is not None:
            cells = [f"{one[key]:.2f}" for key in ("prepare_s", "load_s")]
            cells += [f"{one['difference']:.2e}", f"{one['gpu_memory_mib']:.0f}", one["problem"]]
            lines.append(f"| {name[5:]} | {' | '.join(cells)} |")
        elif name.startswith("load "):
            lines.append(f"| {name[5:]} | | | | | {step['problem'][:200]} |")
    lines += ["", "| batch | backend | median ms | times the first (95 %) |", "|---|---|---|---|"]
    for name in result:
        if name.startswith("batch "):
            for backend, row in result[name].items():
                ratio = next((value for key, value in row.items() if key.startswith("times ")), None)
                text = "{:.2f} ({:.2f}-{:.2f})".format(*ratio) if ratio else ""
                lines.append(f"| {name[6:]} | {backend} | {row['median_ms']:.2f} | {text} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help="REPOSITORY/NAME/VERSION; without it ViT-Base of seeded weights")
    parser.add_argument("--providers", default=",".join(PROVIDERS), help="with commas")
    parser.add_argument("--precisions", default="fp32,fp16", help="of TensorRT: fp32, tf32, bf16, fp16, with commas")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--layers", type=int, default=12, choices=range(1, 13), metavar="1-12", help="of ViT-Base")
    parser.add_argument("--cache", type=Path, help="keep TensorRT's engines here; by default they are thrown away")
    parser.add_argument("--seconds", type=float, default=465, help="when it ends at the latest")
    parser.add_argument("--out", type=Path, help="the JSON file")
    options = parser.parse_args()
    options.providers = options.providers.split(",")
    if unknown := set(options.providers) - set(PROVIDERS):
        parser.error(f"there is no provider {', '.join(sorted(unknown))}; there are {', '.join(PROVIDERS)}")
    if options.package and not options.package.absolute().name.isdigit():
        parser.error(f"{options.package} is no version of a package: it should be REPOSITORY/NAME/VERSION")
    options.batches = [int(batch) for batch in options.batches.split(",")]
    return options


def main() -> None:
    """Measure, write, print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="segue-gpu-") as folder:
        steps = Steps(options.out, options.seconds, at_end=lambda: print(show(steps.result)))
        try:
            print(show(measure(options, Path(folder), steps)))
        except SegueError as error:
            sys.exit(error.message)
        finally:
            steps.end()


if __name__ == "__main__":
    main()
