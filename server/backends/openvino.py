"""OpenVINO's CPU runtime as a backend: the only module that imports openvino, and where its errors are mapped.

It reads the ONNX file as it is, takes tensors without strings, and computes in float32 or, where the processor has
instructions for it, in bfloat16. What it would silently compute otherwise than TensorFlow is refused at loading, or
checked before each run: see `openvino_integers`.
"""

import math
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import ml_dtypes
import numpy as np

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.cores import physical_cores
from server.backends.interface import GraphSpec, Precision, TensorPort
from server.backends.openvino_integers import Limits, faithful
from server.backends.openvino_shapes import FittingShapes, Infer
from server.backends.openvino_workers import Workers
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers, OutOfMemory, RunFailed, SegueError
from server.repository.package import fingerprint

# Importing openvino imports its model converter, and that a library which reports its use and leaves files in the
# user's home. Neither is needed to read ONNX: they are kept from being imported, which openvino is prepared for.
for _unwanted in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_unwanted, None)  # type: ignore[arg-type] # None is how Python marks what must not load

import openvino as ov  # noqa: E402 - only now

# OpenVINO's spelling of a port's type, by tensorflow.DataType.
_TYPE_NAMES: Mapping[int, str] = {
    tensor_pb2.DT_FLOAT: "f32",
    tensor_pb2.DT_DOUBLE: "f64",
    tensor_pb2.DT_HALF: "f16",
    tensor_pb2.DT_BFLOAT16: "bf16",
    tensor_pb2.DT_INT8: "i8",
    tensor_pb2.DT_INT16: "i16",
    tensor_pb2.DT_INT32: "i32",
    tensor_pb2.DT_INT64: "i64",
    tensor_pb2.DT_UINT8: "u8",
    tensor_pb2.DT_UINT16: "u16",
    tensor_pb2.DT_UINT32: "u32",
    tensor_pb2.DT_UINT64: "u64",
    tensor_pb2.DT_BOOL: "boolean",
}

_HINTS: Mapping[Precision, str] = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
_CAPABILITIES: Mapping[Precision, str] = {Precision.FP32: "FP32", Precision.BF16: "BF16", Precision.FP16: "FP16"}

# Everything that reading, compiling and running can raise: pybind11's translations of C++ exceptions.
OPENVINO_EXCEPTIONS: Final[tuple[type[Exception], ...]] = (RuntimeError, ValueError, TypeError, MemoryError)

# Where in its own source files OpenVINO failed, and by which condition: of no use to anyone here.
_PLACES: Final = re.compile(r"(Exception from|Check '.*?' failed at) \S+:\d+:?|\(?\S+\.[ch]pp:\d+\)?:?")
_ALLOCATION_WORDS: Final = ("failed to allocate", "bad_alloc", "out of memory", "could not create a memory")
# Shape inference comes before anything is computed, and names itself or the shapes.
_SHAPE_WORDS: Final = ("shape", "dimension", "broadcast")


def map_run_error(error: Exception) -> SegueError:
    """The one table from OpenVINO's exceptions at a run to ours; it has one class for all, so its words must tell."""
    text, words = _one_line(error), str(error).lower()
    if isinstance(error, MemoryError) or any(word in words for word in _ALLOCATION_WORDS):
        return OutOfMemory(f"OpenVINO could not allocate memory for this request: {text}")
    if any(word in words for word in _SHAPE_WORDS):
        return InvalidRequest(f"the model cannot compute this input: {text}")
    return RunFailed(f"OpenVINO failed: {text}")


def _one_line(error: Exception) -> str:
    return " ".join(_PLACES.sub("", str(error)).split())


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A model that the plug-in has compiled, and the one request that runs it."""

    request: ov.InferRequest
    inputs: Mapping[str, ov.ConstOutput]
    outputs: Mapping[str, ov.ConstOutput]


class OpenVinoGraph:
    """One compiled model. Runs take turns: each computes on all threads.

    After an error in the middle of a run, what the plug-in keeps of shapes is not to be trusted: the model is dropped
    at once, and loaded again by the next run that wants it. So the batch that failed goes on to another backend without
    waiting, and memory is given back before more is asked for.
    """

    def __init__(
        self, compiled: _Compiled, limits: Limits, shapes: FittingShapes, load_again: Callable[[], _Compiled]
    ) -> None:
        self._compiled: _Compiled | None = compiled
        self._limits = limits
        self._shapes = shapes
        self._load_again = load_again
        self._closed = False
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run."""
        try:
            self._shapes.check(inputs)
        except OPENVINO_EXCEPTIONS as error:
            if not all(array.size for array in inputs.values()):
                # Some operators take no rows here (MaxPool), and do elsewhere.
                raise LeftToOthers(f"OpenVINO cannot compute this empty input: {_one_line(error)}") from error
            raise InvalidRequest(f"the model cannot compute this input: {_one_line(error)}") from error
        self._limits.check(inputs)
        tensors = {name: _to_tensor(array) for name, array in inputs.items()}
        with self._lock, _WORKERS.beside_requests():
            compiled = self._loaded()
            try:
                return _infer(compiled, tensors, outputs)
            except OPENVINO_EXCEPTIONS as error:
                self._compiled = None
                raise map_run_error(error) from error

    def close(self) -> None:
        """Drop the request and the compiled model; see LoadedGraph.close."""
        self._closed = True
        self._compiled = None

    def _loaded(self) -> _Compiled:
        """The model, loaded again if an error has cost it. Called with the lock held."""
        if self._closed:
            raise RunFailed("the graph is closed")
        if self._compiled is None:
            try:
                self._compiled = self._load_again()
            except OPENVINO_EXCEPTIONS as error:
                msg = f"OpenVINO does not load the graph again after an error: {_one_line(error)}"
                raise RunFailed(msg) from error
        return self._compiled


def _infer(compiled: _Compiled, tensors: Mapping[str, ov.Tensor], outputs: Sequence[str]) -> list[Array]:
    for name, port in compiled.inputs.items():
        compiled.request.set_tensor(port, tensors[name])
    compiled.request.infer(share_outputs=True)
    return [_to_array(compiled.request.get_tensor(compiled.outputs[name])) for name in outputs]


class OpenVinoBackend:
    """OpenVINO on the processor."""

    def __init__(self, *, precision: Precision = Precision.FP32, threads: int = 0) -> None:
        """Make a backend.

        Args:
            precision: What is computed in; inputs and outputs keep their types.
            threads: Threads within one operator, at least 2; 0 means one per core that this process may use.
        """
        self.precision = precision
        cores = physical_cores()  # now, and not in a thread that leaves cores to others
        self._threads = min(threads or cores, cores)

    @property
    def name(self) -> str:
        """The metric label."""
        return "openvino-cpu" + ("" if self.precision is Precision.FP32 else f"-{self.precision.value}")

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Nothing needs to be made: the graph is compiled in a moment; see Backend.prepare."""

    def load(self, graph: GraphSpec) -> OpenVinoGraph:
        """Read and compile the graph, and check that it is the package's and computed faithfully; see Backend.load.

        A new batch size costs no compilation: its shapes are inferred once (`openvino_shapes`), kernels made as needed.
        """
        strings = [port.name for port in (*graph.inputs, *graph.outputs) if port.dtype == tensor_pb2.DT_STRING]
        if strings:
            msg = f"OpenVINO is given no strings, which {', '.join(strings)} of {graph.path.name} hold"
            raise GraphNotLoadable(msg)
        threads = self._threads
        if threads < 2:
            # Seen on 2026.4.1: inputs that contradict one another are then computed with, out of bounds.
            msg = "OpenVINO loses its own errors when it computes with one thread: give it two cores"
            raise GraphNotLoadable(msg)
        with _WORKERS.beside_requests():
            return self._load(graph, threads)

    def _load(self, graph: GraphSpec, threads: int) -> OpenVinoGraph:
        files = fingerprint(graph.path.parent)
        try:
            core = ov.Core()
            if _CAPABILITIES[self.precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                msg = f"this processor has no instructions for {self.precision.value}"
                raise GraphNotLoadable(msg)
            model = core.read_model(graph.path)
            _check_ports("input", graph.inputs, model.inputs)
            _check_ports("output", graph.outputs, model.outputs)
            limits = faithful(model.get_ordered_ops(), _constant)
            compiled = self._compile(core, model, graph, threads)
            shapes = FittingShapes(_inference(_without_weights(model), [port.name for port in graph.inputs]))

            def load_again() -> _Compiled:
                if fingerprint(graph.path.parent) != files:
                    raise RuntimeError("its files are others by now, and nobody has proved those")
                return self._compile(core, core.read_model(graph.path), graph, threads)

            return OpenVinoGraph(compiled, limits, shapes, load_again)
        except OPENVINO_EXCEPTIONS as error:
            msg = f"OpenVINO {_VERSION} does not load {graph.path.name}: {_one_line(error)}"
            raise GraphNotLoadable(msg) from error

    def _compile(self, core: ov.Core, model: ov.Model, graph: GraphSpec, threads: int) -> _Compiled:
        compiled = core.compile_model(model, "CPU", self._properties(threads))
        return _Compiled(
            compiled.create_infer_request(),
            {port.name: _port(compiled.inputs, port.name) for port in graph.inputs},
            {port.name: _port(compiled.outputs, port.name) for port in graph.outputs},
        )

    def _properties(self, threads: int) -> dict[str, str | int | bool]:
        """What is computed in, and with how many threads; nothing is cached and nothing quantized."""
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "EXECUTION_MODE_HINT": "ACCURACY" if self.precision is Precision.FP32 else "PERFORMANCE",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            # Each model has its own pool, and pinned pools would all be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }


_WORKERS: Final = Workers()
_VERSION: Final[str] = ov.__version__.partition("-")[0]


def _constant(node: ov.Node) -> Array:
    return np.asarray(node.data)


def _port(ports: Sequence[ov.ConstOutput], name: str) -> ov.ConstOutput:
    return next(port for port in ports if name in port.get_names())


def _check_ports(side: str, expected: tuple[TensorPort, ...], actual: Sequence[ov.Output]) -> None:
    types = {name: port.get_element_type().get_type_name() for port in actual for name in port.get_names()}
    for port in expected:
        wanted = _TYPE_NAMES.get(port.dtype, f"tensorflow.DataType {port.dtype}")
        if types.get(port.name) != wanted:
            found = types.get(port.name, "not there")
            msg = f"the ONNX file's {side} {port.name!r} should be {wanted} but is {found}"
            raise GraphNotLoadable(msg)
    names = {port.name for port in expected}
    missing = [port.get_any_name() for port in actual if not names & set(port.get_names())] if side == "input" else []
    if missing:
        msg = f"the ONNX file wants inputs that the manifest does not bind: {', '.join(sorted(missing))}"
        raise GraphNotLoadable(msg)


# Constants of fewer elements may be shapes.
_WEIGHTS: Final = 256


def _without_weights(model: ov.Model) -> ov.Model:
    """The model with inputs in place of its large constants, which decide no shape; for inference of shapes alone."""
    stand_ins = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().is_real():
            shape = node.get_output_shape(0)
            if math.prod(shape) >= _WEIGHTS:
                stand_ins.append(ov.opset13.parameter(shape, node.get_element_type()))
                node.output(0).replace(stand_ins[-1].output(0))
    model.add_parameters(stand_ins)
    model.validate_nodes_and_infer_types()
    return model


def _inference(model: ov.Model, names: Sequence[str]) -> Infer:
    """Inference of all shapes of a model from those of its inputs."""

    def infer(shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, port in ports.items():
            if not port.compatible(ov.PartialShape(list(shapes[name]))):
                raise ValueError(f"{name!r} has shape {list(shapes[name])}, which does not fit {port}")
        model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})

    ports = {name: _port(model.inputs, name).get_partial_shape() for name in names}
    return infer


def _to_tensor(array: Array) -> ov.Tensor:
    """The array's own memory where OpenVINO can take it, else a copy: it refuses views and what is read-only."""
    whole = np.require(array, requirements=["C", "W", "A"])
    if array.dtype == ml_dtypes.bfloat16:
        return ov.Tensor(whole.view(np.uint16), ov.Shape(list(array.shape)), ov.Type.bf16)
    return ov.Tensor(whole, shared_memory=True)


def _to_array(tensor: ov.Tensor) -> Array:
    """A copy: the request's next run writes into the same memory."""
    copy = np.array(tensor.data)
    return copy.view(ml_dtypes.bfloat16) if tensor.get_element_type() == ov.Type.bf16 else copy
