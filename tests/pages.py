"""A server of two engines in the test's own process, and its status page."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from server import app
from server.arrays import Array
from server.backends.fake import FakeBackend
from server.backends.interface import Backend
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.batching.parameters import BatchingParameters
from server.config import ServerConfig
from server.engines.ensemble import Stage
from server.lifecycle.decisions import Decisions
from server.lifecycle.engine_room import EngineRoom
from server.wire.responses import encode_predict_request
from tests.packages import write_package
from tests.server.engines.explaining import Explains, Stands
from tests.servers import call, running

OURS = "onnxruntime-cpu"
OTHER = "torch-cpu"
BAD = "torch-bf16"


def right(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the package's graph computes."""
    y = 2 * feeds["x_in"] + 1 + feeds["bias_in"]
    return {"y_out": y, "z_out": -y}


def wrong(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """A sign is lost."""
    answer = right(feeds)
    return {"y_out": answer["y_out"], "z_out": answer["y_out"]}


@dataclass
class Site:
    """A server with its page.

    Attributes:
        server: The server.
        url: Of the page.
        policy: Of the model "affine"; says what the test wants.
        channel: To the server.
    """

    server: app.Server
    url: str
    policy: Explains
    channel: grpc.Channel

    def ask(self, rows: int, times: int = 1) -> None:
        """Send requests of so many rows."""
        inputs = {"x": np.ones((rows, 4), np.float32), "bias": np.zeros((rows, 4), np.float32)}
        request = encode_predict_request(inputs, name="affine")
        for _ in range(times):
            call(self.channel, request=request)

    def serve_with(self, backend: str, *buckets: int) -> None:
        """Have the policy choose a backend."""
        self.policy.order = [backend]
        self.policy.selected |= dict.fromkeys(buckets, backend)

    def say(self, bucket: int, backend: str, estimate: float, state: str = "eligible", reason: str = "") -> None:
        """Have the policy say this of a backend."""
        self.policy.say(Stands(bucket, backend, state, reason, estimate, samples=7, last_seen=1.0))


@contextmanager
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The model "affine": served by two engines, a third one is rejected; and a model that does not load."""
    policies: list[Explains] = []

    def make_policy(_buckets: object) -> Explains:
        policies.append(Explains())
        return policies[-1]

    def room() -> EngineRoom:
        backends: list[Backend] = [
            OnnxRuntimeBackend("cpu", threads=1),
            FakeBackend(right, OTHER),
            FakeBackend(wrong, BAD),
        ]
        return EngineRoom(backends, lambda _: BatchingParameters(max_batch_size=4), make_policy, Decisions(None))

    with (
        furnished(folder, monkeypatch, room) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Site(server, f"http://127.0.0.1:{server.metrics_port}/", policies[0], channel)


@contextmanager
def furnished(folder: Path, monkeypatch: pytest.MonkeyPatch, room: Callable[[], EngineRoom]) -> Iterator[app.Server]:
    """A server with the engine room given, of the models "affine" and "broken".

    It is there once OTHER is proved for "affine", and BAD rejected.
    """

    def made(_config: ServerConfig, _backends: object) -> EngineRoom:
        return room()

    monkeypatch.setattr(app, "engine_room", made)
    write_package(folder / "affine" / "1")
    write_package(folder / "broken" / "1")
    (folder / "broken" / "1" / "golden.npz").write_bytes(b"damaged")
    with running(folder, metrics_port=0) as server:
        _wait_for_candidates(server)
        yield server


def _wait_for_candidates(server: app.Server) -> None:
    with server.models.acquire("affine").leased() as servable:
        for _ in range(3000):
            stages = {one.backend: one.stage for one in servable.ensemble.candidates()}
            if stages.get(OTHER) is Stage.ELIGIBLE and stages.get(BAD) is Stage.REJECTED:
                return
            servable.ensemble.ended.wait(0.01)
    raise AssertionError(f"not ready: {stages}")
