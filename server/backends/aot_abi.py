"""The C interfaces of compiled models and of libtorch, through ctypes: every handle is made and freed here.

Nothing here knows of ONNX, packages or caches. Python's torch is never imported: what is called lies in shared
libraries, so nothing of it needs the GIL, and ctypes releases it around every call. The declarations are those of
headers that torch ships under torch/include/torch/csrc:

    inductor/aoti_runtime/interface.h   AOTInductorModelContainer*, AOTInductorGetLastError: in each compiled model
    inductor/aoti_torch/c/shim.h        aoti_torch_*: in libtorch_cpu.so
    stable/c/shim.h                     torch_exception_get_what_without_backtrace: in libtorch_cpu.so

The two that tell what went wrong came after torch 2.11 and are done without where they are not. Besides those stable
ones, three of ATen's own are called by their mangled names: at::set_num_threads (ATen/Parallel.h), which sets OpenMP's
and MKL's number too, and at::globalContext's setAllowTF32CuDNN and setAllowTF32CuBLAS (ATen/Context.h).

On a GPU everything happens on the legacy default stream of the first one: the runs are given the null stream, and the
copies to and from it go through each thread's current stream, which is that one as long as nobody sets another. Both
copies are blocking, so an answer is complete when it is read, and what a run still reads is freed in stream order.
"""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np

from server.arrays import Array

# numpy dtype -> what libtorch calls the element type.
DTYPES: Final = {
    np.dtype(kind): name
    for kind, name in (
        *((name, name) for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")),
        *((name, name) for name in ("uint8", "uint16", "uint32", "uint64", "complex64", "complex128")),
        (ml_dtypes.bfloat16, "bfloat16"),
    )
}


class AbiError(Exception):
    """A call failed; the text is the library's own. The backend makes one of our errors of it."""


class _Libc:
    """dlopen and dlclose by themselves: ctypes' own way of opening a library holds the GIL until it is mapped."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self.dlopen = _declare(library, "dlopen", c_void_p, c_char_p, c_int)
        self.dlclose = _declare(library, "dlclose", c_int, c_void_p)
        self.dlerror = _declare(library, "dlerror", c_char_p)

    def open(self, path: Path, mode: int) -> tuple[ctypes.CDLL, int]:
        """Map a shared library."""
        handle = self.dlopen(os.fsencode(path), mode)
        if not handle:
            raise AbiError(_text(self.dlerror()))
        return ctypes.CDLL(str(path), handle=handle), handle


class Torch:
    """libtorch in this process: loaded once, never unloaded, since its threads outlive every model."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Args:
            folder: torch's folder `lib`.

        Raises:
            AbiError: it does not load, or lacks a function that is needed.
        """
        self._libc = _Libc()
        self._folder = folder
        # Global, so that a compiled model finds the same copy of everything.
        library, _ = self._libc.open(folder / "libtorch_cpu.so", os.RTLD_NOW | os.RTLD_GLOBAL)
        self._library = library
        try:
            self._bind(library)
        except AttributeError as error:
            raise AbiError(f"libtorch lacks a function that this version of Segue calls: {error}") from error

    def _bind(self, library: ctypes.CDLL) -> None:
        handle, sizes = c_void_p, POINTER(c_int64)
        place = (c_int32, c_int32, c_int32)  # dtype, device type, device index
        self._from_blob = _declare(
            library, "aoti_torch_create_tensor_from_blob", c_int32, c_void_p, c_int64, sizes, sizes, c_int64, *place,
            POINTER(handle),
        )  # fmt: skip
        self._empty = _declare(
            library, "aoti_torch_empty_strided", c_int32, c_int64, sizes, sizes, *place, POINTER(handle)
        )
        self._copy = _declare(library, "aoti_torch_copy_", c_int32, handle, handle, c_int32)
        self._delete = _declare(library, "aoti_torch_delete_tensor_object", c_int32, handle)
        self._data = _declare(library, "aoti_torch_get_data_ptr", c_int32, handle, POINTER(c_void_p))
        self._rank = _declare(library, "aoti_torch_get_dim", c_int32, handle, POINTER(c_int64))
        self._dtype = _declare(library, "aoti_torch_get_dtype", c_int32, handle, POINTER(c_int32))
        self._sizes = _declare(library, "aoti_torch_get_sizes", c_int32, handle, POINTER(sizes))
        self._strides = _declare(library, "aoti_torch_get_strides", c_int32, handle, POINTER(sizes))
        self._what = _declared(library, "torch_exception_get_what_without_backtrace", c_char_p)
        self._set_threads = _declare(library, "_ZN2at15set_num_threadsEi", None, c_int)
        self._cpu = _declare(library, "aoti_torch_device_type_cpu", c_int32)()
        self._devices = {"cpu": self._cpu, "cuda": _declare(library, "aoti_torch_device_type_cuda", c_int32)()}
        self._codes = {
            dtype: _declare(library, f"aoti_torch_dtype_{name}", c_int32)() for dtype, name in DTYPES.items()
        }
        self._kinds = {code: dtype for dtype, code in self._codes.items()}

    def set_threads(self, threads: int) -> None:
        """How many threads an operator may use in runs that the calling thread starts from now on.

        OpenMP and MKL keep the number per thread, and so does what this sets. ATen also keeps it as what threads get
        that it has not met before: whoever wants a number must set it before each run.
        """
        self._set_threads(threads)

    def use(self, device: str) -> None:
        """Make ready for a device: on a GPU float32 is computed in float32, convolutions included.

        Raises:
            AbiError: libtorch's part for it does not load, or lacks a function that is needed.
        """
        if device == "cpu":
            return
        # A compiled model would bring it, and take it along when it is unmapped: it is never unloaded, like the rest.
        self._libc.open(self._folder / "libtorch_cuda.so", os.RTLD_NOW | os.RTLD_GLOBAL)
        try:
            context = _declare(self._library, "_ZN2at13globalContextEv", c_void_p)()
            # By default cuDNN's convolutions take 10 bits of each number (TF32); matrix products do where a variable
            # of the environment says so.
            for setter in ("17setAllowTF32CuDNNEb", "18setAllowTF32CuBLASEb"):
                _declare(self._library, f"_ZN2at7Context{setter}", None, c_void_p, c_bool)(context, False)  # noqa: FBT003 - C has no keywords
        except AttributeError as error:
            raise AbiError(f"libtorch lacks a function that this version of Segue calls: {error}") from error

    def enter(self, device: str) -> None:
        """Bind the GPU's context to the calling thread, for calls of the driver that expect one."""
        if device != "cpu":
            self.delete(self.tensor(np.zeros(1, np.float32), device))

    def open(self, path: Path) -> tuple[ctypes.CDLL, int]:
        """Map a compiled model."""
        return self._libc.open(path, os.RTLD_NOW | os.RTLD_LOCAL)

    def unmap(self, handle: int) -> None:
        """Undo `open`."""
        self._libc.dlclose(handle)

    def last_error(self) -> str:
        """What the last exception within libtorch in this thread said."""
        return _text(self._what and self._what())

    def tensor(self, array: Array, device: str) -> c_void_p:
        """A tensor of an array: on the CPU it borrows the array's memory, elsewhere it is a copy.

        Args:
            array: C-contiguous and aligned; for the CPU it must outlive the tensor.
            device: "cpu", or "cuda" for the current GPU.
        """
        rank = array.ndim
        sizes = (c_int64 * rank)(*array.shape)
        strides = (c_int64 * rank)(*(step // array.itemsize for step in array.strides))
        code = self._codes[array.dtype]
        host = c_void_p()
        self._check(
            self._from_blob(array.ctypes.data, rank, sizes, strides, 0, code, self._cpu, 0, byref(host)), "from_blob"
        )
        if device == "cpu":
            return host
        there = c_void_p()
        try:
            place = (code, self._devices[device], 0)
            self._check(self._empty(rank, sizes, strides, *place, byref(there)), "empty_strided")
            self._move(there, host)
        finally:
            self.delete(host)
        return there

    def array(self, tensor: c_void_p, device: str) -> Array:
        """A copy of a tensor, C-contiguous. The tensor stays the caller's to delete."""
        rank, code = c_int64(), c_int32()
        self._check(self._rank(tensor, byref(rank)), "get_dim")
        self._check(self._dtype(tensor, byref(code)), "get_dtype")
        sizes, strides = POINTER(c_int64)(), POINTER(c_int64)()
        self._check(self._sizes(tensor, byref(sizes)), "get_sizes")
        self._check(self._strides(tensor, byref(strides)), "get_strides")
        dtype = self._kinds.get(code.value)
        if dtype is None:
            raise AbiError(f"an output has torch's element type {code.value}, which no array can hold")
        shape = tuple(sizes[: rank.value])
        if 0 in shape:
            return np.empty(shape, dtype)
        if device != "cpu":
            return self._fetched(tensor, shape, dtype, code.value)
        data = c_void_p()
        self._check(self._data(tensor, byref(data)), "get_data_ptr")
        steps = tuple(step * dtype.itemsize for step in strides[: rank.value])
        extent = sum((size - 1) * step for size, step in zip(shape, steps, strict=True)) + dtype.itemsize
        memory = (ctypes.c_char * extent).from_address(data.value or 0)
        return np.ndarray(shape, dtype, memory, strides=steps).copy(order="C")

    def _fetched(self, tensor: c_void_p, shape: tuple[int, ...], dtype: np.dtype[Any], code: int) -> Array:
        """A copy of a tensor that lies on a device: the copy waits for the device."""
        answer: Array = np.empty(shape, dtype)
        sizes = (c_int64 * len(shape))(*shape)
        strides = (c_int64 * len(shape))(*(step // dtype.itemsize for step in answer.strides))
        host = c_void_p()
        place = (code, self._cpu, 0)
        self._check(
            self._from_blob(answer.ctypes.data, len(shape), sizes, strides, 0, *place, byref(host)), "from_blob"
        )
        try:
            self._move(host, tensor)
        finally:
            self.delete(host)
        return answer

    def delete(self, tensor: c_void_p | int) -> None:
        """Free a tensor."""
        self._delete(tensor)

    def _move(self, target: c_void_p, source: c_void_p) -> None:
        self._check(self._copy(target, source, 0), "copy_")

    def _check(self, status: int, call: str) -> None:
        if status != 0:
            raise AbiError(f"aoti_torch_{call}: {self.last_error()}")


class CompiledModel:
    """A compiled model in memory, its weights shared by all that run it.

    A container holds as many instances as may run at once; torch has a call wait for a free one, outside of Python.
    """

    def __init__(self, torch: Torch, path: Path, device: str, runners: int) -> None:
        """Map it and read its weights.

        Raises:
            AbiError: it does not load.
        """
        self._torch, self._device = torch, device
        torch.use(device)
        self._library, self._mapping = torch.open(path)
        self._container = c_void_p()
        try:
            self._bind(self._library)
            self._check(self._create(byref(self._container), runners, device.encode(), os.fsencode(path.parent)))
            self.inputs = self._count("Inputs")
            self.outputs = self._count("Outputs")
        except BaseException as error:
            self.close()
            if isinstance(error, AttributeError):
                raise AbiError(f"the file is no compiled model of this kind: {error}") from error
            raise

    def _bind(self, library: ctypes.CDLL) -> None:
        name, handle = "AOTInductorModelContainer", c_void_p
        self._delete = _declare(library, f"{name}Delete", c_int32, handle)
        self._create = _declare(
            library, f"{name}CreateWithDevice", c_int32, POINTER(handle), c_size_t, c_char_p, c_char_p
        )
        self._run = _declare(
            library, f"{name}Run", c_int32, handle, POINTER(handle), c_size_t, POINTER(handle), c_size_t, handle, handle
        )
        self._error = _declared(library, "AOTInductorGetLastError", c_int32, POINTER(c_char_p))

    def _count(self, side: str) -> int:
        count = c_size_t()
        function = _declare(
            self._library, f"AOTInductorModelContainerGetNum{side}", c_int32, c_void_p, POINTER(c_size_t)
        )
        self._check(function(self._container, byref(count)))
        return count.value

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Answer.

        Args:
            arrays: one for each input, in order, C-contiguous and aligned. Dtype, rank and shape are what the caller
                has checked: the model reads by what it was compiled for.

        Raises:
            AbiError: the run failed.
        """
        given, made = (c_void_p * self.inputs)(), (c_void_p * self.outputs)()
        try:
            for index, array in enumerate(arrays):
                given[index] = self._torch.tensor(array, self._device).value
            self._check(self._run(self._container, given, self.inputs, made, self.outputs, None, None))
            return [self._torch.array(c_void_p(handle), self._device) for handle in made]
        finally:
            # The run takes the inputs over, and leaves in their place null; so here is only what it did not take.
            # Outputs that are the same to the compiler have one handle.
            for handle in {*given, *made} - {None}:
                self._torch.delete(handle)

    def close(self) -> None:
        """Free the weights and unmap the file. No run may be under way; a second call does nothing."""
        if self._container:
            with contextlib.suppress(AbiError):  # a GPU that fails now has nothing left to free
                self._torch.enter(self._device)  # the kernels are unloaded through the driver
            self._delete(self._container)
            self._container = c_void_p()
        if self._mapping:
            self._torch.unmap(self._mapping)
            self._mapping = 0

    def _check(self, status: int) -> None:
        if status == 0:
            return
        text = c_char_p()
        if self._error is not None:
            self._error(byref(text))
        said = _text(text.value)
        if "API call failed" in said:  # then libtorch knows why, and the model only where
            said = self._torch.last_error()
        raise AbiError(said)


# ctypes has no public type for its types, nor for the functions it makes of them.
def _declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as above
    function = library[name]
    function.restype, function.argtypes = result, arguments
    return function


def _declared(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as above
    """The function, or None where the library has none of that name."""
    return _declare(library, name, result, *arguments) if hasattr(library, name) else None


def _text(raw: bytes | None) -> str:
    return (raw or b"it gave no reason; its standard error may").decode(errors="replace")
