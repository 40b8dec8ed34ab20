"""Health as clients see it: one status now, or each as it changes; and no client can do harm by watching."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.processes import RunningServer, serving
from tests.packages import Affine, joined, write_package

pytestmark = pytest.mark.alone

Status = health_pb2.HealthCheckResponse
PREDICTION = "tensorflow.serving.PredictionService"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of one model."""
    write_package(tmp_path / "models" / "affine" / "1")
    with serving(tmp_path / "models") as running:
        yield running


def _watch(channel: grpc.Channel, service: str) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)


def test_services_have_a_status_and_other_names_have_none(server: RunningServer) -> None:
    """The server and its two services are SERVING; Check does not find other names, and Watch calls them unknown."""
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", PREDICTION, "tensorflow.serving.ModelService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status == Status.SERVING
            assert next(_watch(channel, name)).status == Status.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=30)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert next(_watch(channel, "nope")).status == Status.SERVICE_UNKNOWN


def test_who_watches_learns_of_the_end(server: RunningServer) -> None:
    """SIGTERM turns SERVING into NOT_SERVING for everybody who watches, before the server goes."""
    with grpc.insecure_channel(server.address) as channel:
        watches = [_watch(channel, PREDICTION) for _ in range(20)]
        assert [next(watch).status for watch in watches] == [Status.SERVING] * 20
        server.process.terminate()
        assert [next(watch).status for watch in watches] == [Status.NOT_SERVING] * 20
        assert server.process.wait(timeout=60) == 0


def test_a_server_whose_models_do_not_load_is_not_taken_for_ready(tmp_path: Path) -> None:
    """A damaged version alone leaves it NOT_SERVING, its repair makes it SERVING, a later failure changes nothing."""
    package = tmp_path / "models" / "affine" / "1"
    write_package(package)
    golden = (package / "golden.npz").read_bytes()
    (package / "golden.npz").write_bytes(b"damaged")
    with serving(tmp_path / "models") as server, grpc.insecure_channel(server.address) as channel:
        watches = [_watch(channel, name) for name in ("", PREDICTION)]
        assert [next(watch).status for watch in watches] == [Status.NOT_SERVING] * 2
        (package / "golden.npz").write_bytes(golden)
        assert [next(watch).status for watch in watches] == [Status.SERVING] * 2
        write_package(tmp_path / "models" / "affine" / "2", Affine(claimed_scale=3.0))
        server.log.wait_for("version 2 does not load")
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == Status.SERVING


@pytest.mark.slow
def test_watchers_that_come_and_go_do_not_stop_the_server(server: RunningServer) -> None:
    """Clients that watch and leave, thousands of times, side by side, are answered each time."""
    failures: list[str] = []

    def come_and_go() -> None:
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            for number in range(600):
                watch = _watch(channel, "" if number % 2 else "nope")
                try:
                    next(watch)
                except grpc.RpcError as error:
                    failures.append(str(error))
                    return
                watch.cancel()

    with joined(*[threading.Thread(target=come_and_go, name="watcher") for _ in range(4)]):
        pass
    assert not failures
    server.process.terminate()
    assert server.process.wait(timeout=60) == 0
