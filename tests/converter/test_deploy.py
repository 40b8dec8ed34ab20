"""Tests of `converter.deploy` and `converter.client` against a real server in this process."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converter.client import CallFailed, ServerUnreachable, ServingClient, connected
from converter.deploy import answers, ask_golden, wait_available
from converter.errors import NotDeployed
from examples.demo import free_port
from server.app import Server
from server.config import ServerConfig
from server.repository.package import open_package
from tests.packages import Affine, write_package


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with "affine" 1, and "broken" 1 that does not load."""
    root = tmp_path_factory.mktemp("models")
    write_package(root / "affine" / "1")
    write_package(root / "broken" / "1", Affine(scale=2, claimed_scale=3))
    made = Server(ServerConfig(repository=root, port=0, backends="onnxruntime", metrics_port=-1, lame_duck_seconds=0))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(server: Server) -> Iterator[ServingClient]:
    """A client of it."""
    with connected(f"localhost:{server.port}") as made:
        yield made


def test_an_available_version_is_not_waited_for(client: ServingClient) -> None:
    """Waiting ends with the first answer that says AVAILABLE."""
    assert answers(client, "affine", 1)
    assert wait_available(client, "affine", 1, 10) < 10


def test_a_version_that_failed_ends_the_waiting_with_its_reason(client: ServingClient) -> None:
    """The server's own words reach the person at the command line at once."""
    with pytest.raises(NotDeployed, match="does not reproduce TensorFlow's answer"):
        wait_available(client, "broken", 1, 60)


def test_a_version_that_the_server_never_sees(client: ServingClient) -> None:
    """Publishing to a folder that the server does not watch is the likely mistake, so it is named."""
    with pytest.raises(NotDeployed) as caught:
        wait_available(client, "affine", 9, 0.5)
    assert "has not seen it" in caught.value.cause
    assert "--repository" in caught.value.advice


def test_golden_questions_are_asked_and_compared(client: ServingClient, server: Server, tmp_path: Path) -> None:
    """Every case is one request; the differences come back by signature and output."""
    manifest = write_package(tmp_path / "same")
    arrays = open_package("affine", 1, tmp_path / "same").golden_arrays()
    served = ask_golden(client, "affine", 1, manifest, arrays)
    assert served.requests == 2
    assert {alias: d.max_absolute for (_, alias), d in served.differences.items()} == {"y": 0.0, "z": 0.0}
    assert server.models.acquire("affine").version == 1


def test_an_answer_that_differs_is_named(client: ServingClient, tmp_path: Path) -> None:
    """A server that answers otherwise than the package promises is not a success."""
    manifest = write_package(tmp_path / "other", Affine(scale=7))
    arrays = open_package("affine", 1, tmp_path / "other").golden_arrays()
    with pytest.raises(NotDeployed, match="does not answer signature 'serving_default' as TensorFlow did: output 'y'"):
        ask_golden(client, "affine", 1, manifest, arrays)
    shutil.rmtree(tmp_path / "other")


def test_a_refused_call_has_code_and_text(client: ServingClient) -> None:
    """What the server says about a bad call is passed on."""
    with pytest.raises(CallFailed, match="INVALID_ARGUMENT: input size does not match signature"):
        client.predict("affine", 1, "serving_default", {"x": np.ones((1, 4), np.float32)}, 10)


def test_no_server_is_no_answer() -> None:
    """Nobody listening is told from a refusal."""
    with connected(f"localhost:{free_port()}") as client:
        assert not answers(client, "affine", 1)
        with pytest.raises(ServerUnreachable):
            client.version_status("affine", 1, 5)
