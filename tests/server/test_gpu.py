"""Tests of `server.gpu` with a driver's library that is made up: the real one is on no machine without a GPU."""

from typing import Any

from prometheus_client import CollectorRegistry

from server.gpu import GpuCollector, GpuFigures, Gpus
from tests.loaded import Nvml


class Broken(Nvml):
    """A driver that is there, and does not work."""

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the function's name
        """NVML_ERROR_DRIVER_NOT_LOADED."""
        return 9


class Counts(Broken):
    """One that begins, and cannot count."""

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the function's name
        """Success."""
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - the function's name
        """NVML_ERROR_UNKNOWN."""
        del count
        return 999


def test_figures_are_the_drivers_in_base_units() -> None:
    """Bytes, a share, watts."""
    assert list(Gpus(Nvml()).figures()) == [GpuFigures(0, 20 << 30, 80 << 30, 0.35, 250.5)]


def test_what_a_gpu_does_not_tell_has_no_series() -> None:
    """Some know no power: the others' figures are there all the same."""
    registry = CollectorRegistry()
    registry.register(GpuCollector(Gpus(Nvml(tells=False))))
    assert [family.name for family in registry.collect()] == [
        "segue_gpu_memory_used_bytes",
        "segue_gpu_memory_bytes",
        "segue_gpu_utilization_ratio",
    ]
    assert registry.get_sample_value("segue_gpu_memory_used_bytes", {"gpu": "0"}) == 20 << 30


def test_a_driver_that_does_not_work_is_no_gpu() -> None:
    """The server serves on processors, and its metrics say nothing of GPUs."""
    for library in (Broken(), Counts()):
        assert not Gpus(library).figures()
        assert not list(GpuCollector(Gpus(library)).collect())


def test_this_machine_tells_what_it_has() -> None:
    """With a driver or without one, asking does no harm."""
    assert all(figures.index >= 0 for figures in Gpus().figures())
