"""A server to which everything has happened that metrics tell of: engines good and bad, switches, failures."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import gpu
from server.arrays import Array
from server.backends.fake import FakeGraph
from server.errors import RunFailed
from server.selection.interface import Calibration
from server.wire.responses import encode_predict_request
from tests.pages import OTHER, OURS, Site, right, site
from tests.server.engines.explaining import Stands, Switched
from tests.servers import code_of

SIGNATURE = "serving_default"
BUCKETS = (1, 2, 4)


class Nvml:
    """Answers as libnvidia-ml.so.1 does on a machine with one GPU; `tells` says whether it knows the power."""

    def __init__(self, *, tells: bool = True) -> None:
        self._power = 0 if tells else 3

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the function's name
        """Success."""
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - likewise
        """One."""
        count._obj.value = 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802 - likewise
        """Any handle that is not null."""
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802 - likewise
        """A quarter of 80 GiB."""
        assert handle.value == 1
        memory._obj.total, memory._obj.used = 80 << 30, 20 << 30
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:  # noqa: N802 - likewise
        """Percent."""
        assert handle.value == 1
        rates._obj.gpu = 35
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:  # noqa: N802 - likewise
        """Milliwatts, or that this GPU does not know."""
        assert handle.value == 1
        milliwatts._obj.value = 250_500
        return self._power


@dataclass
class Loaded:
    """See this module."""

    site: Site
    metrics_port: int

    def ask_all(self) -> None:
        """Requests of each bucket, several at once."""
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(self.site.ask, rows, 4) for rows in (1, 1, 1, 2, 2, 3, 4, 4)]:
                done.result()

    def make_everything_happen(self) -> None:
        """Answers of both engines, a switch of each bucket, failures, refusals, calibrations, estimates."""
        shop = self.site
        self._say("eligible")
        shop.serve_with(OURS, *BUCKETS)
        self.ask_all()
        shop.policy.history.extend(Switched(1.0, bucket, OURS, OTHER, "it is faster") for bucket in BUCKETS)
        shop.serve_with(OTHER, *BUCKETS)
        self.ask_all()
        with shop.server.models.acquire("affine").leased() as servable:
            lane = servable.ensemble.lanes[SIGNATURE]
            graph = lane._engines[OTHER].graphs["model.onnx"]
            assert isinstance(graph, FakeGraph)
            graph._compute = _fails
            shop.ask(1)
            graph._compute = _slow
            shop.policy.wanted.append(Calibration(1, OTHER))
            feeds = {name: np.ones((1, 4), np.float32) for name in ("x_in", "bias_in")}
            assert lane.calibrate(lambda _: feeds, ["y_out", "z_out"])
        self._refuse()
        self._say("quarantined")

    def _say(self, state: str) -> None:
        for bucket in BUCKETS:
            self.site.policy.say(Stands(bucket, OURS, "eligible", "", 0.002, samples=7))
            self.site.policy.say(Stands(bucket, OTHER, state, "", 0.001, samples=9))

    def _refuse(self) -> None:
        """A request that is too large for what others leave."""
        shop = self.site
        shop.server._budget.hold(1 << 50)
        rows = np.zeros((1 << 15, 4), np.float32)
        code, _ = code_of(shop.channel, request=encode_predict_request({"x": rows, "bias": rows}, name="affine"))
        shop.server._budget.give_back(1 << 50)
        assert code.name == "RESOURCE_EXHAUSTED"


@contextmanager
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """A server to which everything has happened, and where its metrics are."""
    monkeypatch.setattr(gpu, "_installed", Nvml)
    with site(folder, monkeypatch) as made:
        port, stop = made.server._metrics.serve("127.0.0.1", 0)
        try:
            yield Loaded(made, port)
        finally:
            stop()


def _fails(_feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    raise RunFailed("injected")


def _slow(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    time.sleep(0.003)  # the work that it pretends to do
    return right(feeds)
