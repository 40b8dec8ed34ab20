"""Where a server listens besides its port, and what gRPC is told about it."""

from pathlib import Path

import grpc
import pytest

from server.app import Server, ServerStartError
from server.config import parse_channel_arguments
from server.wire.responses import encode_predict_request
from tests.server.reloading import INPUTS, running, served, settings
from tests.server.test_app import Client, Code


def test_a_socket_is_served_too(root: Path) -> None:
    """Clients on the same machine need no port."""
    socket = root / "segue.sock"
    config = settings(root, model_name="m", model_base_path=str(root / "place"), socket=socket)
    with running(config), grpc.insecure_channel(f"unix:{socket}") as channel:
        assert served(Client(channel), "m") == 2
    with pytest.raises(ServerStartError, match="cannot listen on the socket"):
        Server(settings(root, socket=root / "no" / "folder"))


def test_channel_arguments_reach_grpc(root: Path) -> None:
    """A limit that only such an argument can set is kept."""
    arguments = "grpc.max_receive_message_length=10,grpc.primary_user_agent=x"
    assert parse_channel_arguments(arguments) == (
        ("grpc.max_receive_message_length", 10),
        ("grpc.primary_user_agent", "x"),
    )
    config = settings(root, model_name="m", model_base_path=str(root / "place"), channel_arguments=arguments)
    with running(config) as (_, client):
        assert client.error("Predict", encode_predict_request(INPUTS, name="m"))[0] is Code.RESOURCE_EXHAUSTED


def test_channel_arguments_without_a_value_are_refused() -> None:
    """A typing error is found at the start."""
    with pytest.raises(ValueError, match="key=value"):
        parse_channel_arguments("grpc.a")
    assert parse_channel_arguments("") == ()
    assert parse_channel_arguments("grpc.a=99999999999") == (("grpc.a", "99999999999"),)
