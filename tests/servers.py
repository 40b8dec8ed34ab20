"""Servers in the test's own process, and a client that calls them with bytes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from server.app import Server
from server.backends.interface import Backend
from server.config import ServerConfig
from server.wire.responses import encode_predict_request
from tests.packages import write_package

INPUTS = {"x": np.ones((1, 4), np.float32), "bias": np.zeros((1, 4), np.float32)}
PREDICT = encode_predict_request(INPUTS, name="affine")
"""A request that the model of `running` answers."""

SECONDS = 20.0


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Server]:
    """A server with one model, "affine", on free ports, with ONNX Runtime alone."""
    with running_with(None, folder, **settings) as server:
        yield server


@contextmanager
def running_with(backends: Sequence[Backend] | None, folder: Path, **settings: Any) -> Iterator[Server]:
    """The same with these backends."""
    if not (folder / "affine").exists():
        write_package(folder / "affine" / "1")
    defaults = {"port": 0, "metrics_port": -1, "lame_duck_seconds": 0, "grace_seconds": 5, "backends": "onnxruntime"}
    server = Server(ServerConfig(repository=folder, **{**defaults, **settings}), backends)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def call(
    channel: grpc.Channel,
    method: str = "/tensorflow.serving.PredictionService/Predict",
    request: bytes | Message = PREDICT,
    metadata: Sequence[tuple[str, str]] = (),
) -> bytes:
    """One unary call."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return stub(data, timeout=SECONDS, metadata=tuple(metadata))


def code_of(channel: grpc.Channel, **options: Any) -> tuple[grpc.StatusCode, str | None]:
    """How one unary call ends."""
    try:
        call(channel, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def writing_end(pipe: Path) -> int | None:
    """A pipe's other end, once there is somebody who reads."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
