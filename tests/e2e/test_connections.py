"""How the server treats connections, good ones and bad ones: real sockets, no gRPC library in between."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.wire.responses import encode_predict_request
from tests.e2e.http2 import GOAWAY, MAX_CONCURRENT_STREAMS, SETTINGS, Connection, connected
from tests.e2e.processes import ROOT, RunningServer, serving
from tests.packages import write_package

pytestmark = pytest.mark.alone

PREDICT = "/tensorflow.serving.PredictionService/Predict"
ONES = np.ones((1, 4), np.float32)
REQUEST = encode_predict_request({"x": ONES, "bias": ONES}, name="affine")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model."""
    root = tmp_path_factory.mktemp("models")
    write_package(root / "affine" / "1")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    """A server with the settings that one gets."""
    with serving(repository) as made:
        yield made


def port(server: RunningServer) -> int:
    """Where it listens."""
    return int(server.address.partition(":")[2])


def settings(connection: Connection) -> dict[int, int]:
    """The server's first frame: its settings by number."""
    kind, _, payload = next(connection.frames())
    assert kind == SETTINGS
    pairs = [payload[i : i + 6] for i in range(0, len(payload), 6)]
    return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


def resident_megabytes(server: RunningServer) -> float:
    """Memory of the server's process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_a_connection_may_have_a_thousand_calls_open(server: RunningServer) -> None:
    """Clients learn the number when they connect."""
    with connected(port(server)) as connection:
        assert settings(connection)[MAX_CONCURRENT_STREAMS] == 1000


def test_three_hundred_calls_at_once_on_one_connection_are_all_answered(server: RunningServer) -> None:
    """The bound is beyond what clients do: gRPC's fails calls that a server refuses for their number."""
    with grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        calls = [call.future(REQUEST, timeout=60) for _ in range(300)]
        assert all(future.result() for future in calls)


@pytest.mark.slow
def test_a_flood_of_resets_costs_others_no_request(server: RunningServer) -> None:
    """One client begins and resets thousands of calls a second; another one is answered, and memory stays."""
    with grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        call(REQUEST, timeout=20)
        before = resident_megabytes(server)
        command = [sys.executable, "-m", "tests.e2e.http2", str(port(server)), "4"]
        answered = 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as flood:
            while flood.poll() is None:
                call(REQUEST, timeout=20)  # an error ends the test
                answered += 1
            assert flood.stdout is not None
            resets = int(flood.stdout.read())
        assert resets > 2_000
        assert answered > 20
        # Calls that are being reset take memory, by the hundred thousand a second some 65 MB; it is not a leak.
        assert resident_megabytes(server) - before <= 100
        begin = time.monotonic()
        for _ in range(20):
            call(REQUEST, timeout=20)
        assert time.monotonic() - begin < 5


def test_who_pings_without_end_is_sent_away(server: RunningServer) -> None:
    """A client that only asks whether we are there, hundreds of times a second, loses its connection."""
    with connected(port(server)) as connection:
        connection.ping(20)
        goodbye = [payload for kind, _, payload in connection.frames() if kind == GOAWAY]
    assert goodbye[-1].endswith(b"too_many_pings")


def test_headers_that_are_too_large_are_refused_and_harm_nobody(server: RunningServer) -> None:
    """The call ends with RESOURCE_EXHAUSTED; the next one on the same connection is answered."""
    with grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        with pytest.raises(grpc.RpcError) as caught:
            call(REQUEST, timeout=20, metadata=(("x-large", "x" * 20_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(REQUEST, timeout=20)


def test_idle_connections_are_cheap(server: RunningServer) -> None:
    """Four hundred clients that say hello and nothing else cost little memory and nobody an answer."""
    before = resident_megabytes(server)
    connections = [Connection(port(server)) for _ in range(400)]
    try:
        for connection in connections:
            assert settings(connection)
        with grpc.insecure_channel(server.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
            assert call(REQUEST, timeout=20)
        assert resident_megabytes(server) - before <= 50
    finally:
        for connection in connections:
            connection.socket.close()


def test_connections_have_a_bound(repository: Path) -> None:
    """Who comes when there are as many as may be is turned away, and let in when one of them has gone."""
    with serving(repository, "--max-connections", "3") as server:
        connections = [Connection(port(server)) for _ in range(3)]
        for connection in connections:
            assert settings(connection)
        with connected(port(server)) as surplus:
            assert list(surplus.frames()) == []
        for connection in connections:
            connection.socket.close()
        with grpc.insecure_channel(server.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
            assert call(REQUEST, timeout=20, wait_for_ready=True)


def test_old_connections_are_ended_without_a_failed_call(repository: Path) -> None:
    """With a greatest age each connection is told to go after about that long; clients go on over new ones."""
    with serving(repository, "--max-connection-age-seconds", "0.3") as server:
        with connected(port(server)) as connection:
            assert GOAWAY in {kind for kind, _, _ in connection.frames()}
        with grpc.insecure_channel(server.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert call(REQUEST, timeout=20)


def test_who_watches_health_learns_of_the_end_and_does_not_hold_it_up(repository: Path) -> None:
    """A stream that stays open says NOT_SERVING at once; the server does not wait for it the whole time of grace."""
    with serving(repository, "--grace-seconds", "60") as server, grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.process.wait(timeout=15) == 0
        with pytest.raises(grpc.RpcError):
            next(watch)


def test_health_of_made_up_services_is_unknown(server: RunningServer) -> None:
    """Check says NOT_FOUND; Watch says SERVICE_UNKNOWN and stays open, as the protocol demands."""
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="made.up"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="made.up"), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert watch.is_active()
        watch.cancel()
