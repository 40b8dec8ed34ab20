"""Figures of NVIDIA's GPUs, asked of the driver's own library when somebody asks for metrics; none where it is not.

The functions and structures are those of NVML's API (nvml.h), which every driver brings as libnvidia-ml.so.1.
"""

import ctypes
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LIBRARY: Final = "libnvidia-ml.so.1"
_SUCCESS = 0


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    """nvmlUtilization_t, in percent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """One GPU at one moment; None for what it does not tell.

    Attributes:
        index: NVML's number of it.
        memory_used: Bytes, of all processes.
        memory_total: Bytes.
        utilization: The share of time in which something ran, from 0 to 1.
        watts: Power drawn.
    """

    index: int
    memory_used: int | None
    memory_total: int | None
    utilization: float | None
    watts: float | None


class Gpus:
    """The GPUs that the driver tells of. Any thread may ask."""

    def __init__(self, library: Any = None) -> None:  # noqa: ANN401 - a ctypes library, which has no type
        """Look for the driver's library.

        Args:
            library: Instead of the one that is installed.
        """
        self._lock = threading.Lock()
        self._library = library if library is not None else _installed()
        self._handles: Sequence[ctypes.c_void_p] = self._find() if self._library is not None else ()

    def figures(self) -> Sequence[GpuFigures]:
        """Of each GPU, now."""
        with self._lock:
            return [self._read(index, handle) for index, handle in enumerate(self._handles)]

    def _find(self) -> Sequence[ctypes.c_void_p]:
        count = ctypes.c_uint()
        if self._library.nvmlInit_v2() != _SUCCESS:
            return ()
        if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
            return ()
        handles = [ctypes.c_void_p() for _ in range(count.value)]
        return [
            handle
            for index, handle in enumerate(handles)
            if self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == _SUCCESS
        ]

    def _read(self, index: int, handle: ctypes.c_void_p) -> GpuFigures:
        memory, rates, milliwatts = _Memory(), _Utilization(), ctypes.c_uint()
        library = self._library
        has_memory = library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == _SUCCESS
        has_rates = library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == _SUCCESS
        has_power = library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)) == _SUCCESS
        return GpuFigures(
            index,
            memory.used if has_memory else None,
            memory.total if has_memory else None,
            rates.gpu / 100 if has_rates else None,
            milliwatts.value / 1000 if has_power else None,
        )


class GpuCollector(Collector):
    """Tells Prometheus of GPUs."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client; no family where there is no GPU."""
        used = GaugeMetricFamily("segue_gpu_memory_used_bytes", "Memory in use, by all processes.", labels=("gpu",))
        size = GaugeMetricFamily("segue_gpu_memory_bytes", "Memory that the GPU has.", labels=("gpu",))
        busy = GaugeMetricFamily("segue_gpu_utilization_ratio", "Share of time in which it ran.", labels=("gpu",))
        power = GaugeMetricFamily("segue_gpu_power_watts", "Power that it draws.", labels=("gpu",))
        for figures in self._gpus.figures():
            values = (figures.memory_used, figures.memory_total, figures.utilization, figures.watts)
            for family, value in zip((used, size, busy, power), values, strict=True):
                if value is not None:
                    family.add_metric((str(figures.index),), value)
        yield from (family for family in (used, size, busy, power) if family.samples)


def _installed() -> Any:  # noqa: ANN401 - see Gpus
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None
