"""OpenVINO's own runtime as a backend: the only module that imports openvino, and the one place for its errors.

It reads the ONNX file as it is. Two things that it does not do are done here: it takes any dtype for any input, so
dtypes are compared; and it answers for indices that are out of range as if nothing were wrong, so each lookup whose
indices depend on a request tells their smallest and largest too, which are checked before its answer counts.
"""

import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.cores import physical_cores
from server.backends.interface import GraphSpec, Precision, TensorPort
from server.errors import GraphNotLoadable, InvalidRequest, OutOfMemory, RunFailed, SegueError

_TYPES: Mapping[int, tuple[ov.Type, type[np.generic]]] = {
    tensor_pb2.DT_FLOAT: (ov.Type.f32, np.float32),
    tensor_pb2.DT_DOUBLE: (ov.Type.f64, np.float64),
    tensor_pb2.DT_HALF: (ov.Type.f16, np.float16),
    tensor_pb2.DT_INT8: (ov.Type.i8, np.int8),
    tensor_pb2.DT_INT16: (ov.Type.i16, np.int16),
    tensor_pb2.DT_INT32: (ov.Type.i32, np.int32),
    tensor_pb2.DT_INT64: (ov.Type.i64, np.int64),
    tensor_pb2.DT_UINT8: (ov.Type.u8, np.uint8),
    tensor_pb2.DT_UINT16: (ov.Type.u16, np.uint16),
    tensor_pb2.DT_UINT32: (ov.Type.u32, np.uint32),
    tensor_pb2.DT_UINT64: (ov.Type.u64, np.uint64),
    tensor_pb2.DT_BOOL: (ov.Type.boolean, np.bool_),
}
"""OpenVINO's and numpy's types by tensorflow.DataType; strings and bfloat16 have none that both understand."""

_HINTS: Mapping[Precision, str] = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}

_LOOKUP = "Gather"
# They look up, or write, where their indices say, and there is no cheap way to tell whether all of those are there.
_UNCHECKED = frozenset(
    {
        *("GatherND", "GatherElements", "ScatterUpdate", "ScatterElementsUpdate", "ScatterNDUpdate"),
        *("EmbeddingBagOffsetsSum", "EmbeddingBagPackedSum", "EmbeddingSegmentsSum"),
    }
)
# What comes out of them is in range whatever goes in, or does not depend on what a request holds.
_SAFE = frozenset({"ShapeOf", "TopK", "NonZero", "NonMaxSuppression", "Constant"})

_MOST_REQUESTS = 4
_MOST_BYTES = 1 << 24
"""Requests kept between runs, and inputs of one that is kept: it holds on to them, and to buffers of its own, until its
next run. More requests are made while more threads run, and dropped after."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Where the outputs that tell of one lookup's indices are: the smallest, the largest, and the rows there are."""

    name: str
    smallest: int
    largest: int
    rows: int


class OpenVinoGraph:
    """One compiled model."""

    def __init__(self, compiled: ov.CompiledModel, graph: GraphSpec, lookups: Sequence[_Lookup]) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._dtypes = {port.name: np.dtype(_TYPES[port.dtype][1]) for port in graph.inputs}
        self._places = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}
        self._lookups = tuple(lookups)
        self._requests: deque[ov.InferRequest] = deque(maxlen=_MOST_REQUESTS)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run."""
        compiled = self._compiled
        if compiled is None:
            msg = "the graph is closed"
            raise RunFailed(msg)
        feeds = {name: self._checked(name, array) for name, array in inputs.items()}
        try:
            try:
                request = self._requests.pop()
            except IndexError:
                request = compiled.create_infer_request()
            request.infer(feeds, share_inputs=True)
            # Copied, since the next run of this request writes over them.
            answers = [np.array(request.get_output_tensor(self._places[name]).data) for name in outputs]
            self._check_lookups(request)
        except (RuntimeError, TypeError, MemoryError) as error:
            raise _run_error(error) from error
        if sum(array.nbytes for array in feeds.values()) <= _MOST_BYTES:
            self._requests.append(request)
        return answers

    def close(self) -> None:
        """Drop the model; see LoadedGraph.close."""
        self._requests.clear()
        self._compiled = None

    def _checked(self, name: str, array: Array) -> Array:
        if array.dtype != self._dtypes[name]:
            raise InvalidRequest(f"input {name!r} is {array.dtype}, not {self._dtypes[name]}")
        return np.ascontiguousarray(array) if array.ndim else array

    def _check_lookups(self, request: ov.InferRequest) -> None:
        for lookup in self._lookups:
            smallest, largest, rows = (
                int(request.get_output_tensor(place).data.flat[0])
                for place in (lookup.smallest, lookup.largest, lookup.rows)
            )
            if largest >= rows or smallest < -rows:
                wrong = largest if largest >= rows else smallest
                raise InvalidRequest(
                    f"the model cannot compute this input: index {wrong} is not in [0, {rows}) ({lookup.name})"
                )


class OpenVinoBackend:
    """OpenVINO on the CPU."""

    def __init__(self, *, precision: Precision = Precision.FP32, threads: int = 0) -> None:
        """Make a backend.

        Args:
            precision: What it computes in where the graph says float32.
            threads: Of a run; 0 is one per physical core that this process may use.
        """
        self.precision = precision
        self._threads = threads or physical_cores()

    @property
    def name(self) -> str:
        """The metric label."""
        return "openvino-cpu" if self.precision is Precision.FP32 else f"openvino-cpu-{self.precision}"

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Nothing needs to be made: compiling takes a moment; see Backend.prepare."""

    def load(self, graph: GraphSpec) -> OpenVinoGraph:
        """Read and compile the file, and check that its ports are the package's; see Backend.load."""
        try:
            core = ov.Core()
            model = core.read_model(graph.path)
            _check_ports("input", graph.inputs, model.inputs)
            _check_ports("output", graph.outputs, model.outputs)
            lookups = _tell_lookups(model)
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self._threads,
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "ENABLE_CPU_PINNING": False,  # other models' threads would lie on the same cores
            }
            if self.precision is Precision.FP32:
                settings["EXECUTION_MODE_HINT"] = "ACCURACY"
            compiled = core.compile_model(model, "CPU", settings)
        except (RuntimeError, TypeError) as error:
            msg = f"OpenVINO {ov.__version__.partition('-')[0]} does not load {graph.path.name}: {_one_line(error)}"
            raise GraphNotLoadable(msg) from error
        return OpenVinoGraph(compiled, graph, lookups)


def _check_ports(side: str, expected: Iterable[TensorPort], actual: Iterable[ov.Output]) -> None:
    found = {name: port.get_element_type() for port in actual for name in port.get_names()}
    for port in expected:
        if port.dtype not in _TYPES:
            kind = tensor_pb2.DataType.Name(port.dtype)
            raise GraphNotLoadable(f"{side} {port.name!r} is {kind}, which OpenVINO's interface has no form for")
        if found.get(port.name) != _TYPES[port.dtype][0]:
            there = found.get(port.name, "not there")
            raise GraphNotLoadable(
                f"the ONNX file's {side} {port.name!r} should be {_TYPES[port.dtype][0]} but is {there}"
            )


def _tell_lookups(model: ov.Model) -> list[_Lookup]:
    """Have a model tell of each lookup whose indices depend on a request.

    Raises:
        GraphNotLoadable: Indices depend on a request in a way that cannot be checked.
    """
    found = []
    for node in list(model.get_ordered_ops()):
        kind = node.get_type_name()
        if kind not in {_LOOKUP, *_UNCHECKED} or not _depends_on_request(node.input_value(1)):
            continue
        if kind in _UNCHECKED:
            name = node.get_friendly_name()
            raise GraphNotLoadable(f"{name} ({kind}) takes indices from the request, which OpenVINO does not check")
        found.append(_tell(model, node))
    return found


def _tell(model: ov.Model, node: ov.Node) -> _Lookup:
    indices, data = node.input_value(1), node.input_value(0)
    flat = ops.convert(ops.reshape(indices, np.array([-1], np.int64), special_zero=False), "i64")
    axis = np.array([0], np.int64)
    rows = ops.gather(ops.shape_of(data, "i64"), node.input_value(2), np.int64(0))
    told = model.add_outputs(
        [
            ops.reduce_min(_beside(flat, 0), axis).output(0),
            ops.reduce_max(_beside(flat, -1), axis).output(0),
            ops.convert(rows, "i64").output(0),
        ]
    )
    return _Lookup(node.get_friendly_name(), *(_position(model, port) for port in told))


def _beside(indices: ov.Node, harmless: int) -> ov.Node:
    """The indices and one more that is never out of range, since an empty list has no smallest and no largest."""
    return ops.concat([indices, ops.constant(np.array([harmless], np.int64))], 0)


def _position(model: ov.Model, port: ov.Output) -> int:
    return next(i for i, other in enumerate(model.outputs) if other.get_node() is port.get_node())


def _depends_on_request(output: ov.Output) -> bool:
    """Whether a value depends on what the inputs hold, beyond their shapes."""
    seen: set[str] = set()
    todo = [output.get_node()]
    while todo:
        node = todo.pop()
        if node.get_name() in seen or node.get_type_name() in _SAFE:
            continue
        if node.get_type_name() == "Parameter":
            return True
        seen.add(node.get_name())
        todo += _sources(node)
    return False


def _sources(node: ov.Node) -> Iterator[ov.Node]:
    for number in range(node.get_input_size()):
        yield node.input_value(number).get_node()


# Where in its source files it failed: of no use to anyone here.
_SOURCE_LINE = re.compile(r"(Exception from |failed at )\S+:\d+:\s*")
_ALLOCATION_WORDS = ("bad_alloc", "out of memory", "Cannot allocate", "Failed to allocate")


def _run_error(error: Exception) -> SegueError:
    """The one table from what a run raises to our errors. OpenVINO has one class of exceptions for everything."""
    text = _one_line(error)
    if isinstance(error, MemoryError) or any(word in text for word in _ALLOCATION_WORDS):
        return OutOfMemory(f"OpenVINO could not allocate memory for this request: {text}")
    if "shape" in text or "Check" in text:
        return InvalidRequest(f"the model cannot compute this input: {text}")
    return RunFailed(f"OpenVINO failed: {text}")


def _one_line(error: Exception) -> str:
    return " ".join(_SOURCE_LINE.sub("", str(error)).split())[:600]
