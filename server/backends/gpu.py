"""Which GPU this machine has, asked of the driver."""

import ctypes
from typing import Final

from server.errors import GraphNotLoadable

# CUdevice_attribute numbers of cuda.h.
_CAPABILITY: Final = (75, 76)


def gpu_identity() -> str:
    """What code compiled for the first GPU is known by: its name and compute capability.

    Raises:
        GraphNotLoadable: there is none that works.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        msg = "no CUDA driver (libcuda.so.1) on this machine"
        raise GraphNotLoadable(msg) from error
    name, device, number = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    statuses = [
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, len(name), device),
    ]
    capability = []
    for attribute in _CAPABILITY:
        statuses.append(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
        capability.append(str(number.value))
    if any(statuses):
        msg = "the CUDA driver finds no usable GPU"
        raise GraphNotLoadable(msg)
    return f"{name.value.decode(errors='replace')} {'.'.join(capability)}"
