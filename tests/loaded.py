"""A server to which everything has happened that metrics tell of: engines good and bad, switches, failures.

Its policy is the real one. It is brought to its choices by pins and by backends that fail, and asked what it wants to
have calibrated by the test alone, so that nothing happens between two looks at the metrics.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from server import gpu
from server.app import Server
from server.arrays import Array
from server.backends.fake import FakeBackend, FakeGraph
from server.batching.parameters import BatchingParameters
from server.engines.ensemble import Ensemble
from server.errors import RunFailed
from server.lifecycle.decisions import Decisions
from server.lifecycle.engine_room import EngineRoom
from server.lifecycle.servable import Servable
from server.selection.policy import Selector
from server.selection.states import State
from server.wire.responses import encode_predict_request
from tests.pages import BAD, OTHER, OURS, furnished, right, wrong
from tests.servers import call, code_of

MODEL, SIGNATURE = "affine", "serving_default"
MOST_FAILURES = 10
"""Until the policy has put a backend into quarantine."""


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


class Room(EngineRoom):
    """Calibrates nothing by itself."""

    def start(self, servables: Callable[[], Iterable[Servable]], is_idle: Callable[[], bool]) -> None:  # noqa: ARG002 - see above
        """See EngineRoom.start."""
        super().start(servables, lambda: False)


@dataclass
class Loaded:
    """See this module."""

    server: Server
    channel: grpc.Channel
    room: EngineRoom

    @property
    def metrics_port(self) -> int:
        """Where Prometheus finds it."""
        port = self.server.metrics_port
        assert port is not None
        return port

    def ask(self, rows: int, times: int = 1) -> None:
        """Send requests of so many rows."""
        for _ in range(times):
            call(self.channel, request=_request(rows))

    def ask_all(self) -> None:
        """Requests of each bucket, several at once."""
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(self.ask, rows, 4) for rows in (1, 1, 1, 2, 2, 3, 4, 4)]:
                done.result()

    def make_everything_happen(self) -> None:
        """Answers of both engines, switches to and fro, failures of one and of both, refusals, calibrations."""
        for backend in (OURS, OTHER):
            self.room.pin(MODEL, [backend])
            self.ask_all()
        with self._ensemble() as ensemble:
            with _breaking(ensemble, OTHER):
                self.ask(1)
                with _breaking(ensemble, OURS):
                    code, _ = code_of(self.channel, request=_request(1))
                    assert code.name == "INTERNAL"
            self.room.pin(MODEL, [])  # nothing is calibrated while a pin decides
            while ensemble.lanes[SIGNATURE].calibrate(_feeds, ["y_out", "z_out"]):
                pass
        self._refuse()

    def quarantine(self) -> None:
        """Have OTHER answer, and fail until the policy leaves it out for batches of four."""
        self.room.pin(MODEL, [OTHER])
        with self._ensemble() as ensemble, _breaking(ensemble, OTHER):
            for _ in range(MOST_FAILURES):
                self.ask(4)
                explained = ensemble.lanes[SIGNATURE].explain()
                standings = explained.snapshot.standings if explained else ()
                if (4, OTHER, State.QUARANTINED.value) in {(one.bucket, one.backend, one.state) for one in standings}:
                    self.ask(4)  # another answers from now on
                    return
        raise AssertionError(f"{OTHER} is still trusted")

    @contextmanager
    def _ensemble(self) -> Iterator[Ensemble]:
        with self.server.models.acquire(MODEL).leased() as servable:
            yield servable.ensemble

    def _refuse(self) -> None:
        """A request that is too large for what others leave."""
        self.server._budget.hold(1 << 50)
        code, _ = code_of(self.channel, request=_request(1 << 15))
        self.server._budget.give_back(1 << 50)
        assert code.name == "RESOURCE_EXHAUSTED"


@contextmanager
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """A server to which everything can be made to happen."""
    monkeypatch.setattr(gpu, "_installed", Nvml)
    backends = [FakeBackend(right, OURS), FakeBackend(right, OTHER), FakeBackend(wrong, BAD)]
    room = Room(backends, lambda _: BatchingParameters(max_batch_size=4), Selector, Decisions(None))
    with (
        furnished(folder, monkeypatch, lambda: room) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Loaded(server, channel, room)


@contextmanager
def _breaking(ensemble: Ensemble, backend: str) -> Iterator[None]:
    """A backend fails for the length of the block."""
    (graph,) = [graph for engine in ensemble.engines() if engine.backend == backend for graph in engine.graphs.values()]
    assert isinstance(graph, FakeGraph)
    sound, graph._compute = graph._compute, _fails
    try:
        yield
    finally:
        graph._compute = sound


def _fails(_feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    raise RunFailed("injected")


def _feeds(rows: int) -> dict[str, Array]:
    """What calibrations run on."""
    return {name: np.ones((rows, 4), np.float32) for name in ("x_in", "bias_in")}


def _request(rows: int) -> bytes:
    ones = np.ones((rows, 4), np.float32)
    return encode_predict_request({"x": ones, "bias": ones}, name=MODEL)
