"""ONNX Runtime as a backend: the only module that imports onnxruntime, and the one place where its errors are mapped.

Strings cross its Python interface as str, so a string tensor must hold UTF-8 here (TensorFlow takes any bytes);
bfloat16, which numpy lacks, crosses as OrtValue.
"""

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np

# Its official builds report their use to Microsoft unless this is set before they load: what a server or a
# conversion does is nobody else's business, and the reporting leaves files behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.cores import physical_cores
from server.backends.interface import GraphSpec, LoadedGraph, Precision, TensorPort
from server.backends.one_thread import MaybeOnOneThread
from server.errors import GraphNotLoadable, InvalidRequest, OutOfMemory, RunFailed, SegueError, UnreadableText

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]

# onnx.TensorProto.BFLOAT16: the serving environment has no onnx package to take the name from.
_ONNX_BFLOAT16 = 16

# ONNX Runtime's spelling of a port's type, by tensorflow.DataType.
_TYPE_NAMES: Mapping[int, str] = {
    tensor_pb2.DT_FLOAT: "tensor(float)",
    tensor_pb2.DT_DOUBLE: "tensor(double)",
    tensor_pb2.DT_HALF: "tensor(float16)",
    tensor_pb2.DT_BFLOAT16: "tensor(bfloat16)",
    tensor_pb2.DT_INT8: "tensor(int8)",
    tensor_pb2.DT_INT16: "tensor(int16)",
    tensor_pb2.DT_INT32: "tensor(int32)",
    tensor_pb2.DT_INT64: "tensor(int64)",
    tensor_pb2.DT_UINT8: "tensor(uint8)",
    tensor_pb2.DT_UINT16: "tensor(uint16)",
    tensor_pb2.DT_UINT32: "tensor(uint32)",
    tensor_pb2.DT_UINT64: "tensor(uint64)",
    tensor_pb2.DT_BOOL: "tensor(bool)",
    tensor_pb2.DT_STRING: "tensor(string)",
}

# Everything that a session's creation or run can raise: the pybind module's own classes (direct children of Exception)
# and the built-in ones that pybind11 translates C++ exceptions and conversions into.
# MemoryError is what becomes of std::bad_alloc.
ORT_EXCEPTIONS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    *(RuntimeError, ValueError, TypeError, MemoryError),
)

# Where in its own source files ONNX Runtime failed: a path of the machine that built it, of no use to anyone here.
_SOURCE_LINE = re.compile(r"/\S+\.\w+:\d+ ")

_ALLOCATION_WORDS = ("Failed to allocate memory", "bad_alloc", "out of memory", "BFCArena")


def map_run_error(error: Exception) -> SegueError:
    """The one table from ONNX Runtime's exceptions at a run to ours.

    INVALID_ARGUMENT is what its kernels return for values out of range and shapes that do not fit, as TensorFlow's do.
    """
    text = _one_line(error)
    if isinstance(error, MemoryError) or any(word in text for word in _ALLOCATION_WORDS):
        return OutOfMemory(f"ONNX Runtime could not allocate memory for this request: {text}")
    if isinstance(error, (ort_errors.InvalidArgument, ort_errors.Fail, ort_errors.RuntimeException)):
        return InvalidRequest(f"the model cannot compute this input: {text}")
    return RunFailed(f"ONNX Runtime failed: {text}")


def _one_line(error: Exception) -> str:
    return _SOURCE_LINE.sub("", " ".join(str(error).split()))


class OnnxRuntimeGraph:
    """One InferenceSession."""

    def __init__(self, session: ort.InferenceSession, graph: GraphSpec) -> None:
        self._session: ort.InferenceSession | None = session
        self._strings_in = frozenset(p.name for p in graph.inputs if p.dtype == tensor_pb2.DT_STRING)
        self._strings_out = frozenset(p.name for p in graph.outputs if p.dtype == tensor_pb2.DT_STRING)
        ports = (*graph.inputs, *graph.outputs)
        self._has_bfloat16 = any(p.dtype == tensor_pb2.DT_BFLOAT16 for p in ports)
        self._dies_of_nothing = _has_recurrent_layer(graph.path)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch; see LoadedGraph.run."""
        session = self._session
        if session is None:
            msg = "the graph is closed"
            raise RunFailed(msg)
        if not all(array.size for array in inputs.values()) and self._dies_of_nothing:
            msg = "ONNX Runtime cannot compute the recurrent layers of this model for an input without elements"
            raise InvalidRequest(msg)
        feeds = self._encode_strings(inputs) if self._strings_in else inputs
        try:
            if self._has_bfloat16:
                answers = _run_with_ort_values(session, feeds, outputs)
            else:
                answers = session.run(outputs, feeds)
        except ORT_EXCEPTIONS as error:
            raise map_run_error(error) from error
        if self._strings_out:
            answers = [
                _to_bytes(array) if name in self._strings_out else array
                for name, array in zip(outputs, answers, strict=True)
            ]
        return [np.asarray(array) for array in answers]

    def close(self) -> None:
        """Drop the session; see LoadedGraph.close."""
        self._session = None

    def _encode_strings(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: _to_str(name, array) if name in self._strings_in else array for name, array in inputs.items()}


VERSION: str = ort.__version__

Provider = str | tuple[str, Mapping[str, str]]
"""An execution provider's name, perhaps with options."""

CPU: Provider = "CPUExecutionProvider"


def cuda(precision: Precision) -> Provider:
    """CUDA. By default it takes 10 bits of the numbers in float32 products (TF32): only where that is the precision."""
    return "CUDAExecutionProvider", {"use_tf32": "1" if precision is Precision.TF32 else "0"}


def open_session(graph: GraphSpec, providers: Sequence[Provider], threads: int = 0) -> ort.InferenceSession:
    """Create the session and check that its ports are the package's.

    Args:
        graph: What to load.
        providers: In order of preference. The first must start.
        threads: Threads within one operator; 0 means one per core that this process may use.

    Raises:
        GraphNotLoadable: the file is not the package's, or ONNX Runtime refuses it or the provider.
    """
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if first != CPU:
        find_libraries()
    try:
        session = ort.InferenceSession(str(graph.path), session_options(threads), providers=list(providers))
    except ORT_EXCEPTIONS as error:
        msg = f"ONNX Runtime {VERSION} does not load {graph.path.name}: {_one_line(error)}"
        raise GraphNotLoadable(msg) from error
    if first not in session.get_providers():
        msg = f"ONNX Runtime fell back to the CPU: its {first.removesuffix('ExecutionProvider')} provider did not start"
        raise GraphNotLoadable(msg)
    _check_ports("input", graph.inputs, session.get_inputs())
    _check_ports("output", graph.outputs, session.get_outputs())
    return session


@functools.cache
def find_libraries() -> None:
    """Load CUDA's and cuDNN's libraries from where pip puts them: the loader does not look there by itself."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the session then says so, too
        ort.preload_dlls()


def input_shapes(graph: GraphSpec) -> dict[str, tuple[int | None, ...]]:
    """The graph's inputs by ONNX name, None for what varies, as ONNX Runtime reads them without computing anything.

    Raises:
        GraphNotLoadable: see `open_session`.
    """
    session = open_session(graph, [CPU], threads=1)
    return {
        port.name: tuple(size if isinstance(size, int) else None for size in port.shape)
        for port in session.get_inputs()
    }


def session_options(threads: int = 0) -> ort.SessionOptions:
    """What every session is created with; what else was tried and gained nothing is in docs/backends.md."""
    options = ort.SessionOptions()
    # Left to itself (0), ONNX Runtime pins each worker to a core: those of all models to the same ones.
    options.intra_op_num_threads = threads or physical_cores()
    options.log_severity_level = 4  # its errors reach us as exceptions; printed too they would be said twice
    # A pool that spins after each run takes the cores that the request path needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


# A node's operator, as an ONNX file holds it.
_RECURRENT = (b"\x22\x04LSTM", b"\x22\x03GRU")
# A package that is larger is not loaded twice: its weights would take that memory once more.
_SMALL_BYTES = 16 << 20


class OnnxRuntimeBackend:
    """ONNX Runtime on one device."""

    def __init__(
        self,
        device: Device = "cpu",
        *,
        precision: Precision = Precision.FP32,
        threads: int = 0,
        variant: str = "",
    ) -> None:
        """Make a backend.

        Args:
            device: "cuda" places what it can on the first GPU and the rest on the CPU.
            precision: FP32, or on CUDA TF32; it tells backends apart by name, too.
            threads: threads within one operator; 0 means one per core that this process may use, and one alone for
                small batches of small graphs where that is faster.
            variant: What tells it from another of the same device, for its name.
        """
        self.device = device
        self.precision = precision
        # Now, and not while a version loads, which may be in a thread that leaves cores to others.
        self._threads = threads or physical_cores()
        self._may_choose = device == "cpu" and threads == 0 and self._threads > 1
        self._variant = variant

    @property
    def name(self) -> str:
        """The metric label."""
        lower = "" if self.precision is Precision.FP32 else f"-{self.precision.value}"
        return f"onnxruntime-{self.device}{lower}" + (f"-{self._variant}" if self._variant else "")

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Nothing needs to be made: the session is made in a moment; see Backend.prepare."""

    def load(self, graph: GraphSpec) -> LoadedGraph:
        """Create the session and check that its ports are the package's; see Backend.load."""
        providers = [cuda(self.precision), CPU] if self.device == "cuda" else [CPU]
        loaded = OnnxRuntimeGraph(open_session(graph, providers, self._threads), graph)
        if self._may_choose and _bytes_beside(graph.path) <= _SMALL_BYTES:
            return MaybeOnOneThread(loaded, lambda: OnnxRuntimeGraph(open_session(graph, [CPU], threads=1), graph))
        return loaded


def _has_recurrent_layer(path: Path) -> bool:
    """Whether a graph has an LSTM or a GRU: of an empty batch ONNX Runtime 1.31 ends the process in them.

    Looked for as what an ONNX file holds, the field of a node's operator, since the serving environment has no onnx
    package.
    """
    before = b""
    with path.open("rb") as file:
        while part := file.read(1 << 20):  # small, for the search holds the GIL
            before = before[-len(_RECURRENT[0]) :] + part
            if any(field in before for field in _RECURRENT):
                return True
    return False


def _bytes_beside(path: Path) -> int:
    """What a package's files take, weights outside of the ONNX file included; much if they cannot be looked at."""
    try:
        return sum(file.stat().st_size for file in path.parent.iterdir())
    except OSError:
        return sys.maxsize


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device to serve on and why, in words for the log."""

    device: Device
    reason: str


def choose_device() -> DeviceChoice:
    """CUDA when this build of ONNX Runtime has it and the machine has a GPU with a working driver, else the CPU."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return DeviceChoice("cpu", "this build of ONNX Runtime has no CUDA execution provider")
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return DeviceChoice("cpu", "no CUDA driver (libcuda.so.1) on this machine")
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return DeviceChoice("cpu", "the CUDA driver finds no usable GPU")
    return DeviceChoice("cuda", f"{count.value} GPU(s) found, using the first")


def _check_ports(side: str, expected: tuple[TensorPort, ...], actual: Sequence[ort.NodeArg]) -> None:
    types = {port.name: port.type for port in actual}
    for port in expected:
        wanted = _TYPE_NAMES.get(port.dtype, f"tensorflow.DataType {port.dtype}")
        if types.get(port.name) != wanted:
            found = types.get(port.name, "not there")
            msg = f"the ONNX file's {side} {port.name!r} should be {wanted} but is {found}"
            raise GraphNotLoadable(msg)
    missing = sorted(set(types) - {port.name for port in expected}) if side == "input" else []
    if missing:
        msg = f"the ONNX file wants inputs that the manifest does not bind: {', '.join(missing)}"
        raise GraphNotLoadable(msg)


def _run_with_ort_values(
    session: ort.InferenceSession, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), _ONNX_BFLOAT16)
        if array.dtype == ml_dtypes.bfloat16
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    return [_from_ort_value(value) for value in session.run_with_ort_values(list(outputs), values)]


def _from_ort_value(value: ort.OrtValue) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    size = int(np.prod(shape)) * 2
    if size == 0:
        return np.zeros(shape, ml_dtypes.bfloat16)
    raw = ctypes.string_at(value.data_ptr(), size)
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(shape)


def _to_str(name: str, array: Array) -> Array:
    texts = np.empty(array.shape, dtype=object)
    try:
        texts.reshape(-1)[:] = np.fromiter((value.decode() for value in array.flat), np.dtype(object), array.size)
    except UnicodeDecodeError as error:
        raise UnreadableText(name, "ONNX Runtime") from error
    return texts


def _to_bytes(array: Array) -> Array:
    raw = np.empty(array.shape, dtype=object)
    raw.reshape(-1)[:] = np.fromiter((value.encode() for value in array.flat), np.dtype(object), array.size)
    return raw
