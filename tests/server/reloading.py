"""What tests of configurations share: servers that start with one, and reloads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from protos.serving import model_service_pb2
from protos.serving.config_pb2 import ModelServerConfig
from server.app import Server
from server.config import ServerConfig
from server.model_config import parse
from server.services.model import RELOAD
from server.wire.responses import encode_predict_request, parse_predict_response
from tests.server.test_app import Client, Code

ROW = np.ones((1, 4), np.float32)
INPUTS = {"x": ROW, "bias": 0 * ROW}
SECONDS = 20
ANYTHING = "/tensorflow/serving/anything"
COUNTER = "/tensorflow/serving/request_count"


@contextmanager
def running(config: ServerConfig) -> Iterator[tuple[Server, Client]]:
    """A server that has started, and a client of it."""
    server = Server(config)
    try:
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, Client(channel)
    finally:
        server.stop()


def settings(root: Path, **others: object) -> ServerConfig:
    """A server of nothing but what the other settings say."""
    settings = {"port": 0, "metrics_port": -1, "lame_duck_seconds": 0, "backends": "onnxruntime", **others}
    return ServerConfig(repository=root / "none", **settings)  # type: ignore[arg-type]


def entry(name: str, folder: Path, more: str = "") -> str:
    """One model of a configuration."""
    return f"config {{ name: '{name}' base_path: '{folder}' model_platform: 'tensorflow' {more} }}"


def listing(*entries: str) -> ModelServerConfig:
    """A configuration."""
    return parse(f"model_config_list {{ {' '.join(entries)} }}", "test")


def reload(client: Client, config: ModelServerConfig) -> model_service_pb2.ReloadConfigResponse:
    """A HandleReloadConfigRequest that must succeed."""
    request = model_service_pb2.ReloadConfigRequest(config=config, metric_names=[ANYTHING, COUNTER, ANYTHING])
    return model_service_pb2.ReloadConfigResponse.FromString(client.call(RELOAD, request, "ModelService"))


def reload_error(client: Client, config: ModelServerConfig) -> tuple[Code, str | None]:
    """A HandleReloadConfigRequest that must fail."""
    return client.error(RELOAD, model_service_pb2.ReloadConfigRequest(config=config), "ModelService")


def served(client: Client, name: str, **spec: int | str) -> int:
    """The version that answers a Predict."""
    request = encode_predict_request(INPUTS, name=name, **spec)  # type: ignore[arg-type]
    version = parse_predict_response(client.call("Predict", request))[0].version
    assert version is not None
    return version
