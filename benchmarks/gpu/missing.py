"""What a machine lacks for ONNX Runtime's providers, and what would install it."""

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Final

from server.backends.onnx_runtime import choose_device, find_libraries

_DRIVER: Final = "libcuda"
_ADVICE: Final = {
    "has no CUDA execution provider": (
        "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' (Linux on x86-64)"
    ),
    "no CUDA driver": "install NVIDIA's driver (nvidia-smi must work), or start the container with --gpus all",
    "finds no usable GPU": "look at what nvidia-smi says, and at CUDA_VISIBLE_DEVICES",
}
_INSTALLS: Final = (
    (r"libnv(infer|onnxparser)", "pip install tensorrt-cu13 and put its folder tensorrt_libs into LD_LIBRARY_PATH"),
    (r"libcudnn", "pip install 'onnxruntime-gpu[cudnn]'"),
    (r"libcublas", "pip install nvidia-cublas"),
    (r"lib(cu|nv)", "pip install 'onnxruntime-gpu[cuda]'"),
)


def missing(provider: str) -> list[str]:
    """What is not there, in sentences that say what to install; nothing if the provider can be tried.

    Args:
        provider: "cpu", "cuda" or "tensorrt".
    """
    if provider == "cpu":
        return []
    device = choose_device()
    find_libraries()
    found = []
    if device.device != "cuda":
        advice = next(text for words, text in _ADVICE.items() if words in device.reason)
        found.append(f"{device.reason}: {advice}")
    for kind in ("cuda", "tensorrt") if provider == "tensorrt" else ("cuda",):
        found += [f"{name} is not found: {_install(name)}" for name in absent(_library(kind))]
    return found


def absent(library: Path | None) -> list[str]:
    """The libraries that a provider's library names and that are not found, in any of the named versions.

    Args:
        library: The provider's; None or a path without a file if this build of ONNX Runtime has none.
    """
    if library is None or not library.is_file():
        return []
    named: dict[str, list[str]] = {}
    for name in sorted(set(re.findall(rb"\0(lib[\w+-]+\.so\.\d+)(?=\0)", library.read_bytes()))):
        named.setdefault(name.decode().partition(".")[0], []).append(name.decode())
    # Of the driver more is said elsewhere.
    return [names[-1] for stem, names in named.items() if stem != _DRIVER and not any(map(_loads, names))]


def _install(name: str) -> str:
    return next((text for pattern, text in _INSTALLS if re.match(pattern, name)), "install it")


def _library(kind: str) -> Path | None:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "capi" / f"libonnxruntime_providers_{kind}.so"


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
