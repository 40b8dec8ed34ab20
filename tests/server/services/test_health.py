"""Tests of `server.services.health` through the published client."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.admission import Budget, Workers
from server.errors import MalformedRequest
from server.metrics import Metrics
from server.services import health
from server.services.edge import Edge
from server.services.health import Health
from server.services.transport import RpcServer

Code = grpc.StatusCode
SECONDS = 20
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def served() -> Iterator[tuple[Health, health_pb2_grpc.HealthStub]]:
    """Health of a server with the service "a", and a client of it."""
    mine = Health(["a"], most_watchers=400)
    rpc = RpcServer()
    edge = Edge(Metrics(), Workers("test", 1, waiting=1), Budget(1), may_answer_here=rpc.may_answer_here)
    edge.add_immediate(health.SERVICE, "Check", mine.check)
    edge.add_watch(health.SERVICE, "Watch", mine.watch)
    rpc.begin_calls_with(edge.begin)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield mine, health_pb2_grpc.HealthStub(channel)
    rpc.stop(None)


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    """Asks for a service's health."""
    return health_pb2.HealthCheckRequest(service=service)


def test_check_tells_the_status(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """NOT_SERVING until it is said otherwise, for the server and for its services."""
    mine, client = served
    assert client.Check(request(), timeout=SECONDS).status == NOT_SERVING
    mine.set_serving(serving=True)
    assert [client.Check(request(name), timeout=SECONDS).status for name in ("", "a")] == [SERVING] * 2


def test_an_unknown_service_is_not_found(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """So says the protocol: NOT_FOUND for Check, SERVICE_UNKNOWN for Watch."""
    _, client = served
    with pytest.raises(grpc.RpcError) as caught:
        client.Check(request("b"), timeout=SECONDS)
    assert caught.value.code() is Code.NOT_FOUND
    assert next(client.Watch(request("b"), timeout=SECONDS)).status == SERVICE_UNKNOWN


def test_watch_tells_each_change(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """The present status comes first, and every other one when it comes; the same twice is no news."""
    mine, client = served
    stream = client.Watch(request("a"), timeout=SECONDS)
    assert next(stream).status == NOT_SERVING
    mine.set_serving(serving=False)
    mine.set_serving(serving=True)
    assert next(stream).status == SERVING
    mine.drain()
    assert next(stream).status == NOT_SERVING
    mine.finish()
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is Code.UNAVAILABLE


def test_a_server_that_drains_does_not_come_back(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """A load that ends during the drain does not call clients back."""
    mine, client = served
    mine.drain()
    mine.set_serving(serving=True)
    assert client.Check(request(), timeout=SECONDS).status == NOT_SERVING


def test_watchers_cost_no_threads_and_are_forgotten(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """Hundreds of streams leave a check its answer, and nothing of them stays, whatever names they asked for."""
    mine, client = served
    streams = [client.Watch(request(f"made-up-{n}"), timeout=SECONDS) for n in range(300)]
    for stream in streams:
        assert next(stream).status == SERVICE_UNKNOWN
    assert client.Check(request(), timeout=SECONDS).status == NOT_SERVING
    assert len(mine._watchers) == 300
    for stream in streams:
        stream.cancel()
    last = client.Watch(request(), timeout=SECONDS)
    assert next(last).status == NOT_SERVING
    while len(mine._watchers) > 1:  # the cancellations are on their way
        client.Check(request(), timeout=SECONDS)


def test_too_many_watchers_are_refused(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """There is a bound; whoever meets it is told, and finds room when others have left."""
    _, client = served
    streams = [client.Watch(request(), timeout=SECONDS) for _ in range(400)]
    assert {next(stream).status for stream in streams} == {NOT_SERVING}
    with pytest.raises(grpc.RpcError) as caught:
        next(client.Watch(request(), timeout=SECONDS))
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()
    assert any(answered(client) for _ in range(1_000))


def answered(client: health_pb2_grpc.HealthStub) -> bool:
    """Whether there is room for one more."""
    try:
        return bool(next(client.Watch(request(), timeout=SECONDS)).status == NOT_SERVING)
    except grpc.RpcError:
        return False


def test_a_large_request_is_not_parsed(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """Nobody occupies the thread that answers everybody with a name of megabytes."""
    _, client = served
    with pytest.raises(grpc.RpcError) as caught:
        client.Check(request("x" * 100_000), timeout=SECONDS)
    assert caught.value.code() is Code.INVALID_ARGUMENT


def test_who_comes_during_the_end_is_sent_away(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """A stream that begins when the others have been ended does not hold the server."""
    mine, client = served
    mine.finish()
    stream = client.Watch(request(), timeout=SECONDS)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is Code.UNAVAILABLE


def test_bytes_that_do_not_parse_are_refused(served: tuple[Health, health_pb2_grpc.HealthStub]) -> None:
    """They are the client's error, not the server's."""
    mine, _ = served
    with pytest.raises(MalformedRequest):
        mine.check(b"\xff")
