"""Compiles every contender, all at the same time: `Builds`; and in a process of its own one native one (`main`).

Ours goes the server's own way (`AotInductorBackend.prepare`). The native models go through the same export and the same
options of the compiler.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.backends.aot_inductor import AotInductorBackend, Device
from server.backends.interface import GraphSpec, Precision
from server.errors import GraphNotLoadable

ROOT: Final = Path(__file__).parents[2]
OURS, NATIVE, AUTOCAST = "ours", "native", "native-autocast"


@dataclass(slots=True)
class Build:
    """One contender in one precision.

    Attributes:
        contender: OURS, NATIVE (all cast to the precision) or AUTOCAST (what autocast casts, as ours).
        precision: "fp32", "bf16" or "fp16".
        library: The shared object, once it is made.
        seconds: What it took.
        problem: Why there is none; "under way" until there is.
    """

    contender: str
    precision: str
    library: Path | None = None
    seconds: float = 0
    problem: str = "under way"

    @property
    def name(self) -> str:
        """Contender and precision."""
        return f"{self.contender} {self.precision}"


@dataclass(slots=True)
class Builds:
    """All of them, each built by a thread that waits for a process.

    Attributes:
        graph: The filled model.
        folder: For everything that is written.
        device: "cpu" or "cuda".
        layers: Of the model.
        native: Which native model; see `benchmarks.gpu.native.build`.
        every: What is built.
    """

    graph: GraphSpec
    folder: Path
    device: Device
    layers: int
    native: str
    every: list[Build] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, precisions: Sequence[str]) -> None:
        """Begin to build for these precisions."""
        for precision in precisions:
            contenders = (OURS, NATIVE) if precision == "fp32" else (OURS, NATIVE, AUTOCAST)
            self.every += [Build(contender, precision) for contender in contenders]
        for build in self.every:
            thread = threading.Thread(target=self._make, args=(build,), name=build.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for all of them, then end those that are not done."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        self.stop()
        for thread in self._threads:
            thread.join(10)
        return {
            one.name: {
                "seconds": round(one.seconds, 1),
                "bytes": one.library.stat().st_size if one.library else 0,
                "problem": one.problem,
            }
            for one in self.every
        }

    def stop(self) -> None:
        """End the processes that are not done."""
        self._stop.set()
        for child in self._children:
            child.kill()

    def backend(self, precision: str) -> AotInductorBackend:
        """Our backend of a precision, with a cache of its own: in one, models are built in turn."""
        cache = self.folder / f"ours-{precision}"
        return AotInductorBackend(cache, precision=Precision(precision), device=self.device)

    def library(self, contender: str, precision: str) -> Path | None:
        """What was built, if it was."""
        found = (one.library for one in self.every if (one.contender, one.precision) == (contender, precision))
        return next(found, None)

    def _make(self, build: Build) -> None:
        begin = time.monotonic()
        try:
            build.library = self._ours(build) if build.contender == OURS else self._native(build)
            build.problem = ""
        except (OSError, GraphNotLoadable, subprocess.SubprocessError) as error:
            build.problem = " ".join(str(error).split())
        build.seconds = time.monotonic() - begin

    def _ours(self, build: Build) -> Path:
        backend = self.backend(build.precision)
        backend.prepare(self.graph, self._stop)
        (library,) = (self.folder / f"ours-{build.precision}").glob("*/model.so")
        return library

    def _native(self, build: Build) -> Path:
        work = self.folder / build.name.replace(" ", "-")
        work.mkdir()
        library = work / "model.so"
        command = [sys.executable, "-P", "-m", "benchmarks.gpu.compiling", str(library), build.precision, self.device]
        options = ["--layers", str(self.layers), "--native", self.native]
        options += ["--autocast"] if build.contender == AUTOCAST else []
        environment = os.environ | _quiet(work)
        with (work / "log").open("wb") as log:
            child = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)
        self._children.append(child)
        if self._stop.is_set():
            child.kill()
        if child.wait() != 0:
            words = (work / "log").read_text("utf-8", "replace").strip()[-1000:]
            raise subprocess.SubprocessError(f"its process ended with {child.returncode}: {words}")
        return library


def _quiet(work: Path) -> Mapping[str, str]:
    """Variables for a process that shares neither folders nor compilers' threads with the others."""
    (work / "tmp").mkdir()
    paths = filter(None, (str(ROOT), os.getenv("PYTHONPATH")))
    return {
        "TMPDIR": str(work / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "tmp"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def compile_native(library: Path, precision: str, device: str, layers: int, kind: str, *, autocast: bool) -> None:
    """Write the shared object of the native model."""
    import torch  # noqa: PLC0415 - only in the process that compiles

    from benchmarks.gpu import graph, native  # noqa: PLC0415 - as above
    from server.lowering.compile import forbid_tf32, to_shared_object  # noqa: PLC0415 - as above
    from server.lowering.exporting import export  # noqa: PLC0415 - as above
    from server.lowering.module import Port  # noqa: PLC0415 - as above
    from server.lowering.precision import PRECISIONS  # noqa: PLC0415 - as above

    forbid_tf32()
    with torch.no_grad():
        model, _ = native.build(graph.weights(graph.load(layers)), layers, kind)
        module = native.AtDtype(model, PRECISIONS.get(precision, torch.float32), device, autocast=autocast)
        exported = export(module.eval(), (Port("pixel_values", 1, ("batch", *graph.IMAGE)),), device)
        to_shared_object(exported, library, {"freezing": True})


def main() -> None:
    """Compile one native model."""
    parser = argparse.ArgumentParser(description="Compile one native model.")
    parser.add_argument("library", type=Path)
    parser.add_argument("precision", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--native", default="")
    parser.add_argument("--autocast", action="store_true")
    one = parser.parse_args()
    compile_native(one.library, one.precision, one.device, one.layers, one.native, autocast=one.autocast)


if __name__ == "__main__":
    main()
