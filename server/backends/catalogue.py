"""Which backends there can be on this machine, by their families' names; and for the others why not.

A runtime that is not installed is never imported.
"""

import ctypes
import importlib.util
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.backends.interface import Backend, Precision
from server.backends.onnx_runtime import Device, OnnxRuntimeBackend
from server.errors import InvalidRequest

ONNX_RUNTIME, OPENVINO, TORCH, TENSORRT = "onnxruntime", "openvino", "torch", "tensorrt"
FAMILIES = (ONNX_RUNTIME, OPENVINO, TORCH, TENSORRT)
"""In the order in which they can serve: the first at once, the last after a compilation."""

AUTO = "auto"
# TensorRT builds an engine of its own for every model, which takes minutes of the GPU: only for those who name it.
_AUTOMATIC = (ONNX_RUNTIME, OPENVINO, TORCH)
_TENSORRT_LIBRARY = "libnvinfer.so.10"  # what ONNX Runtime's provider is linked with
_EXTRAS = {OPENVINO: ("openvino",), TORCH: ("torch", "onnx", "onnx2torch")}
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "fp32": (Precision.FP32,),
    "tf32": (Precision.FP32, Precision.TF32),
    "bf16": (Precision.FP32, Precision.BF16),
    "fp16": (Precision.FP32, Precision.FP16),
    "fastest": (Precision.FP32, Precision.TF32, Precision.BF16, Precision.FP16),
}
"""What each word allows to compute in."""

# What Linux calls a processor's own arithmetic on each, on x86 and on Arm; emulated, they would only be slow.
_FLAGS: Mapping[Precision, frozenset[str]] = {
    Precision.TF32: frozenset(),  # GPUs alone have it
    Precision.BF16: frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}),
    Precision.FP16: frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}


@dataclass(slots=True)
class Offer:
    """The backends that there are, the quickest to start first, and for each that there is not the reason."""

    backends: list[Backend] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def offered(names: str, precision: str, *, device: Device, threads: int, cache: Path) -> Offer:
    """Make the backends that are wanted and possible.

    Args:
        names: "auto" for all that need no naming, or families with commas; the first answers from the start.
        precision: Words of PRECISIONS with commas: what may be computed in.
        device: Where.
        threads: Of a run; 0 is one per physical core.
        cache: Folder for what is compiled.

    Raises:
        InvalidRequest: A name or precision is unknown, or nothing of what was named can be had.
    """
    wanted = _AUTOMATIC if names == AUTO else tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise InvalidRequest(f"there is no backend {unknown[0]!r}; there are {', '.join(FAMILIES)}, or {AUTO} for all")
    words = precision.split(",")
    if unknown := [word for word in words if word not in PRECISIONS]:
        raise InvalidRequest(f"there is no precision {unknown[0]!r}; there are {', '.join(PRECISIONS)}")
    precisions = [each for each in Precision if any(each in PRECISIONS[word] for word in words)]
    offer = Offer()
    for family in wanted:
        for each in precisions:
            if each in _MAKERS[family].precisions:
                _try(offer, family, each, device, threads, cache)
    if not offer.backends:
        raise InvalidRequest("; ".join(f"{name}: {reason}" for name, reason in offer.absent.items()))
    return offer


def _try(offer: Offer, family: str, precision: Precision, device: Device, threads: int, cache: Path) -> None:  # noqa: PLR0917 - what `offered` is told of one backend
    maker = _MAKERS[family]
    label = family if precision is Precision.FP32 else f"{family} {precision}"
    missing = [name for name in _EXTRAS.get(family, ()) if importlib.util.find_spec(name) is None]
    if missing:
        offer.absent[family] = f"{missing[0]} is not installed: pip install 'segue-serving[{family}]'"
    elif family == TENSORRT and device == "cuda" and not _is_there(_TENSORRT_LIBRARY):
        offer.absent[family] = f"TensorRT ({_TENSORRT_LIBRARY}) is not where the loader looks for libraries"
    elif device not in maker.devices:
        offer.absent[family] = f"it has no {device} here"
    elif device == "cpu" and precision is not Precision.FP32 and not _FLAGS[precision] & processor_flags():
        offer.absent[label] = f"this processor has no {precision} arithmetic"
    else:
        offer.backends.append(maker.make(precision, device, threads, cache))


def _is_there(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def processor_flags() -> frozenset[str]:
    """What the processor can do, in Linux' words; nothing where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    key = "Features" if platform.machine() in {"aarch64", "arm64"} else "flags"
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith(key)), "").split())


def _onnx_runtime(precision: Precision, device: Device, threads: int, _cache: Path) -> Backend:
    return OnnxRuntimeBackend(device, precision=precision, threads=threads)


def _openvino(precision: Precision, _device: Device, threads: int, _cache: Path) -> Backend:
    from server.backends.openvino import OpenVinoBackend  # noqa: PLC0415 - an optional installation

    return OpenVinoBackend(precision=precision, threads=threads)


def _torch(precision: Precision, device: Device, threads: int, cache: Path) -> Backend:
    from server.backends.aot_inductor import AotInductorBackend  # noqa: PLC0415 - an optional installation

    return AotInductorBackend(cache / "torch", precision=precision, device=device, threads=threads)


def _tensorrt(precision: Precision, _device: Device, _threads: int, cache: Path) -> Backend:
    from server.backends.tensorrt import TensorRtBackend  # noqa: PLC0415 - only where there is a GPU

    return TensorRtBackend(cache, precision=precision)


@dataclass(frozen=True, slots=True)
class _Maker:
    make: Callable[[Precision, Device, int, Path], Backend]
    devices: tuple[Device, ...]
    precisions: tuple[Precision, ...]


_MAKERS: Mapping[str, _Maker] = {
    ONNX_RUNTIME: _Maker(_onnx_runtime, ("cpu", "cuda"), (Precision.FP32, Precision.TF32)),
    OPENVINO: _Maker(_openvino, ("cpu",), (Precision.FP32, Precision.BF16, Precision.FP16)),
    TENSORRT: _Maker(_tensorrt, ("cuda",), tuple(Precision)),
    # Libtorch's switch for TF32 is one for the whole process, so its float32 could not stay exact beside it.
    TORCH: _Maker(_torch, ("cpu", "cuda"), (Precision.FP32, Precision.BF16, Precision.FP16)),
}
