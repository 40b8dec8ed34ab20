"""PyTorch, compiled ahead of time, as a backend: the one place where the errors of compiled models are mapped.

What is loaded is a shared object, called through C (`server.backends.aot_abi`). Python's torch takes part in building
it alone, in a process of its own (`server.backends.aot_build`).
"""

import functools
import importlib.metadata
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from server.arrays import Array
from server.backends import aot_build
from server.backends.aot_abi import AbiError, CompiledModel, Torch
from server.backends.aot_cache import Artefact, ArtefactCache, Recipe, graph_digest, processor
from server.backends.cores import physical_cores
from server.backends.gpu import gpu_identity
from server.backends.interface import GraphSpec, Precision, TensorPort
from server.backends.sizes import SizeRule
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers, OutOfMemory, RunFailed, SegueError
from server.wire.dtypes import SERVED

Device = Literal["cpu", "cuda"]

# How many calls may be in a model at once, more wait. An instance holds no weights, some kilobytes on a CPU; on a GPU
# each loads its kernels anew, and one run fills it anyway.
_RUNNERS: Final[Mapping[str, int]] = {"cpu": 16, "cuda": 2}
_CACHE_BYTES: Final = 32 << 30
_ALLOCATION_WORDS: Final = ("bad_alloc", "can't allocate memory", "not enough memory", "out of memory")
_BROKEN: Final = (
    "the model cannot compute this input: a position is outside of the table that it looks up, or a whole number is "
    "divided by zero"
)
# How many combinations of shapes are remembered as having passed.
_KNOWN_SHAPES: Final = 256


def map_run_error(error: AbiError) -> SegueError:
    """The one table from what a run says to our errors."""
    text = " ".join(str(error).split())
    if any(word in text for word in _ALLOCATION_WORDS):
        return OutOfMemory(f"PyTorch could not allocate memory for this request: {text}")
    return RunFailed(f"the compiled model failed: {text}")


class AotInductorGraph:
    """One compiled model."""

    def __init__(self, model: CompiledModel, artefact: Artefact, torch: Torch, threads: int) -> None:
        self._model: CompiledModel | None = model
        self._torch = torch
        self._threads = threads
        self._lock = threading.Lock()
        self._runs = 0
        self._closed = False
        ports = artefact.ports
        self._inputs = [_Input(one["name"], _dtype(one["dtype"]), tuple(one["dims"])) for one in ports["inputs"]]
        self._outputs = {one["name"]: index for index, one in enumerate(ports["outputs"])}
        self._rules = [SizeRule(text) for text in ports["rules"]]
        self._guarded: bool = ports["guarded"]
        self._passes = functools.lru_cache(_KNOWN_SHAPES)(self._broken_rule)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run."""
        arrays = [port.take(inputs) for port in self._inputs]
        if broken := self._passes(tuple(array.shape for array in arrays)):
            sizes = ", ".join(f"{port.name} {a.shape}" for port, a in zip(self._inputs, arrays, strict=True))
            msg = f"the compiled model holds only where {broken} (d[i][j]: axis j of input i), and was given {sizes}"
            raise LeftToOthers(msg)
        if not all(array.size for array in arrays):
            # torch's attention divides by the batch and takes the whole process with it.
            msg = "a compiled model answers no empty input"
            raise LeftToOthers(msg)
        if self._threads:
            self._torch.set_threads(self._threads)
        model = self._enter()
        try:
            answers = model.run(arrays)
        except AbiError as error:
            raise map_run_error(error) from error
        finally:
            self._leave()
        if self._guarded and answers[-1]:
            raise InvalidRequest(_BROKEN)
        return [answers[self._outputs[name]] for name in outputs]

    def close(self) -> None:
        """Free weights and code, if a run is under way at its end: its code must not go from under it."""
        with self._lock:
            self._closed = True
            model = self._take_if_free()
        if model is not None:
            model.close()

    def _enter(self) -> CompiledModel:
        with self._lock:
            if self._closed or self._model is None:
                raise RunFailed("the graph is closed")
            self._runs += 1
            return self._model

    def _leave(self) -> None:
        with self._lock:
            self._runs -= 1
            model = self._take_if_free() if self._closed else None
        if model is not None:
            model.close()

    def _take_if_free(self) -> CompiledModel | None:
        """The model, once, when no run is under way any more. Called with the lock held."""
        if self._runs:
            return None
        model, self._model = self._model, None
        return model

    def _broken_rule(self, shapes: tuple[tuple[int, ...], ...]) -> str:
        return next((rule.text for rule in self._rules if not rule.holds(shapes)), "")


class _Input:
    """An input and what an array must be to be one: the model reads memory by what it expects, and checks nothing."""

    def __init__(self, name: str, dtype: np.dtype[np.generic], dims: tuple[int | None, ...]) -> None:
        self.name, self._dtype, self._dims = name, dtype, dims

    def take(self, inputs: Mapping[str, Array]) -> Array:
        """The array for this input, laid out as the model reads it."""
        if self.name not in inputs:
            raise InvalidRequest(f"input {self.name!r} is missing")
        array = np.asarray(inputs[self.name])
        if array.dtype != self._dtype:
            raise InvalidRequest(f"input {self.name!r} is of {array.dtype} and should be of {self._dtype}")
        fits = array.ndim == len(self._dims) and all(
            wanted in {None, size} for size, wanted in zip(array.shape, self._dims, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in self._dims)
            raise InvalidRequest(f"input {self.name!r} has shape {array.shape} and should have ({wanted})")
        return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


class AotInductorBackend:
    """PyTorch's ahead-of-time compiler on one device."""

    def __init__(
        self,
        cache: Path,
        *,
        precision: Precision = Precision.FP32,
        device: Device = "cpu",
        build_seconds: float = 900,
        threads: int = 0,
    ) -> None:
        """Make a backend.

        Args:
            cache: Folder for compiled models, of this user alone; made when needed.
            precision: What is computed in.
            device: "cuda" uses the first GPU.
            build_seconds: What compiling one graph may take.
            threads: Threads within one operator; 0 is one per physical core that this process may use.
        """
        self.precision = precision
        self.device = device
        self._cache = ArtefactCache(cache, limit_bytes=_CACHE_BYTES)
        self._build_seconds = build_seconds
        # Left to itself OpenMP would count hardware threads, those of the machine, or those left while a version loads.
        self._threads = threads or (physical_cores() if device == "cpu" else 0)

    @property
    def name(self) -> str:
        """The metric label."""
        return f"torch-{self.device}" + ("" if self.precision is Precision.FP32 else f"-{self.precision.value}")

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Compile the graph in a process of its own, unless the cache has it; see Backend.prepare."""
        recipe = self._recipe(graph)
        if self._cache.find(recipe) is not None:
            return
        aot_build.require_tools()
        with self._cache.building(stop) as work:
            if self._cache.find(recipe) is not None:  # another process built it while this one waited
                return
            library, ports = aot_build.build(
                graph.path, work, self._cache.root / "toolchain", device=self.device, precision=self.precision.value,
                seconds=self._build_seconds, stop=stop,
            )  # fmt: skip
            self._cache.publish(recipe, work, library, ports)

    def load(self, graph: GraphSpec) -> AotInductorGraph:
        """Load what `prepare` compiled; see Backend.load."""
        artefact = self._cache.find(self._recipe(graph))
        if artefact is None:
            msg = f"there is no whole compiled form of {graph.path.name} for {self.name} in {self._cache.root}"
            raise GraphNotLoadable(msg)
        _check_ports("input", graph.inputs, artefact.ports["inputs"])
        _check_ports("output", graph.outputs, artefact.ports["outputs"])
        try:
            torch = _torch()
            model = CompiledModel(torch, artefact.library, self.device, _RUNNERS[self.device])
        except AbiError as error:
            msg = f"the compiled form of {graph.path.name} does not load: {' '.join(str(error).split())}"
            raise GraphNotLoadable(msg) from error
        ports = artefact.ports
        if (model.inputs, model.outputs) != (len(ports["inputs"]), len(ports["outputs"]) + ports["guarded"]):
            model.close()
            msg = f"the compiled form of {graph.path.name} has other inputs or outputs than were written down"
            raise GraphNotLoadable(msg)
        return AotInductorGraph(model, artefact, torch, self._threads)

    def _recipe(self, graph: GraphSpec) -> Recipe:
        try:
            digest = graph_digest(graph.path, graph.digest)
        except OSError as error:
            msg = f"{graph.path} cannot be read: {error.strerror or error}"
            raise GraphNotLoadable(msg) from error
        processors = processor() + (f"+{gpu_identity()}" if self.device == "cuda" else "")
        return Recipe(digest, self.device, self.precision.value, _torch_version(), processors)


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError as error:
        msg = "PyTorch is not installed: install segue-serving[torch]"
        raise GraphNotLoadable(msg) from error


@functools.cache
def _torch() -> Torch:
    """libtorch, without importing Python's torch: where that lies is known without running it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        msg = "PyTorch is not installed: install segue-serving[torch]"
        raise GraphNotLoadable(msg)
    return Torch(Path(spec.origin).parent / "lib")


def _dtype(name: str) -> np.dtype[np.generic]:
    found = {element.name: element.dtype for element in SERVED.values()}.get(name)
    return np.dtype(name) if found is None else found


def _check_ports(side: str, expected: Sequence[TensorPort], actual: Sequence[Mapping[str, str]]) -> None:
    types = {port["name"]: _dtype(port["dtype"]) for port in actual}
    for port in expected:
        wanted = SERVED[port.dtype].dtype if port.dtype in SERVED else None
        if wanted is None or types.get(port.name) != wanted:
            found = types.get(port.name, "not there")
            msg = f"the compiled model's {side} {port.name!r} should be {wanted} but is {found}"
            raise GraphNotLoadable(msg)
    missing = sorted(set(types) - {port.name for port in expected}) if side == "input" else []
    if missing:
        msg = f"the compiled model wants inputs that the manifest does not bind: {', '.join(missing)}"
        raise GraphNotLoadable(msg)
