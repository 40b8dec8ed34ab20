"""When a server says that it serves: the health of `server.app`, for every state that it may find its models in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.app import MODEL, PREDICTION, Server
from server.config import ServerConfig
from tests.packages import Affine, write_package
from tests.server.reloading import entry, listing, reload, running, settings
from tests.server.test_app import Client

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", PREDICTION.full_name, MODEL.full_name)
UNPROVED = Affine(scale=2.0, claimed_scale=3.0)


def health(client: Client) -> int:
    """What all services say, which must be the same."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    (status,) = {int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status) for name in SERVICES}
    return status


def watch(client: Client) -> Any:
    """The server's status from now on."""
    return health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)


@contextmanager
def watching(repository: Path) -> Iterator[tuple[Server, Client]]:
    """A server that looks at a repository very often."""
    config = ServerConfig(repository=repository, port=0, metrics_port=-1, backends="onnxruntime", poll_seconds=0.05)
    with running(config) as both:
        yield both


def test_nothing_is_said_before_the_first_look(tmp_path: Path) -> None:
    """While models load the server answers NOT_SERVING, for it may yet turn out that none does."""
    write_package(tmp_path / "affine" / "1")
    server = Server(ServerConfig(repository=tmp_path, port=0, metrics_port=-1, backends="onnxruntime"))
    seen = []
    load = server.models.start

    def start() -> None:
        load()
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            seen.append(health(Client(channel)))

    server.models.start = start  # type: ignore[method-assign] # to look at the moment between loading and saying so
    try:
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            seen.append(health(Client(channel)))
    finally:
        server.stop()
    assert seen == [NOT_SERVING, SERVING]


def test_an_empty_repository_is_a_server_that_waits_for_its_first_model(tmp_path: Path) -> None:
    """It serves, also when that model turns out to be damaged; folders without versions are no models."""
    (tmp_path / "notes").mkdir()
    with watching(tmp_path) as (_, client):
        assert health(client) == SERVING


def test_one_available_model_of_several_is_enough(tmp_path: Path) -> None:
    """A damaged model beside a sound one costs the sound one's clients nothing."""
    write_package(tmp_path / "affine" / "1")
    write_package(tmp_path / "other" / "1", UNPROVED)
    with watching(tmp_path) as (_, client):
        assert health(client) == SERVING


def test_models_of_which_none_loads_make_no_server(tmp_path: Path) -> None:
    """NOT_SERVING until one becomes available, said to those who watch; then SERVING, whatever fails or goes later."""
    write_package(tmp_path / "affine" / "1", UNPROVED)
    with watching(tmp_path) as (server, client):
        assert health(client) == NOT_SERVING
        changes = watch(client)
        assert next(changes).status == NOT_SERVING
        write_package(tmp_path / "affine" / "2")
        assert next(changes).status == SERVING
        server.models.stop(timeout=10)
        assert server.models.servables() == []
        assert health(client) == SERVING


def test_a_repository_that_is_not_there_yet_makes_no_server(tmp_path: Path) -> None:
    """A missing folder may be a disk that is not mounted yet: when it is there with its models, the server serves."""
    with watching(tmp_path / "disk" / "models") as (_, client):
        assert health(client) == NOT_SERVING
        changes = watch(client)
        assert next(changes).status == NOT_SERVING
        write_package(tmp_path / "elsewhere" / "affine" / "1")
        (tmp_path / "disk").mkdir()
        (tmp_path / "elsewhere").rename(tmp_path / "disk" / "models")
        assert next(changes).status == SERVING


def test_a_repository_that_cannot_be_read_makes_no_server(tmp_path: Path) -> None:
    """What cannot be listed is not taken for empty."""
    (tmp_path / "models").write_text("no folder")
    with watching(tmp_path / "models") as (_, client):
        assert health(client) == NOT_SERVING


def test_a_server_that_ends_does_not_come_back(tmp_path: Path) -> None:
    """A first model that loads during the drain calls no clients."""
    with watching(tmp_path / "models") as (server, client):
        server._health.drain()
        changes = watch(client)
        assert next(changes).status == NOT_SERVING
        write_package(tmp_path / "elsewhere" / "affine" / "1")
        (tmp_path / "elsewhere").rename(tmp_path / "models")
        while not server.models.servables():
            assert health(client) == NOT_SERVING
        assert health(client) == NOT_SERVING


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_configured_model_is_to_be_served(tmp_path: Path, folder: str) -> None:
    """A model that somebody has named, but that has no version yet, is waited for: without it there is no answer."""
    (tmp_path / "empty").mkdir()
    single = settings(tmp_path, model_name="affine", model_base_path=str(tmp_path / folder), poll_seconds=0.05)
    with running(single) as (_, client):
        assert health(client) == NOT_SERVING
        changes = watch(client)
        assert next(changes).status == NOT_SERVING
        write_package(tmp_path / "elsewhere" / "1")
        (tmp_path / "elsewhere").rename(tmp_path / folder)
        assert next(changes).status == SERVING


def test_an_empty_configuration_waits_for_another(tmp_path: Path) -> None:
    """Nothing is named, so nothing is missing."""
    file = tmp_path / "models.config"
    file.write_text("model_config_list {}")
    with running(settings(tmp_path, model_config_file=file)) as (_, client):
        assert health(client) == SERVING


def test_a_model_that_comes_by_request_makes_a_server_of_it(tmp_path: Path) -> None:
    """HandleReloadConfigRequest brings the first model where the repository was missing: SERVING."""
    write_package(tmp_path / "place" / "1")
    with running(settings(tmp_path, admin=True)) as (_, client):
        changes = watch(client)
        assert next(changes).status == NOT_SERVING
        reload(client, listing(entry("affine", tmp_path / "place")))
        assert next(changes).status == SERVING
