"""A client of the serving API, for the command line: the only module of the converter that imports grpc."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from protos.segue import admin_pb2
from protos.serving import model_service_pb2
from server.arrays import Array
from server.services.dial import Keys
from server.wire.responses import encode_predict_request, parse_predict_response

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_GET_OVERVIEW = "/segue.Admin/GetOverview"
_SET_BACKENDS = "/segue.Admin/SetBackends"
_GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"


class ServerUnreachable(Exception):
    """Nothing answers at the address, or it stopped answering."""


class CallFailed(Exception):
    """The server answered a call with an error; the text has code and message."""


class ServingClient:
    """Calls one server."""

    def __init__(self, channel: grpc.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """Make a client.

        Args:
            channel: To the server.
            metadata: Goes with every call.
        """
        self._metadata = tuple(metadata)
        self._predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PREDICT)
        self._overview: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_GET_OVERVIEW)
        self._set_backends: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SET_BACKENDS)
        self._status: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_GET_MODEL_STATUS)

    def version_status(self, name: str, version: int, timeout: float) -> model_service_pb2.ModelVersionStatus | None:
        """What the server says of a version; None if it does not know it (yet).

        Args:
            name: The model.
            version: Its version.
            timeout: Seconds.

        Raises:
            ServerUnreachable: Nothing answers.
            CallFailed: The server refused.
        """
        request = model_service_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        request.model_spec.version.value = version
        try:
            data = self._status(request.SerializeToString(), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _as_ours(error) from error
        return next(iter(model_service_pb2.GetModelStatusResponse.FromString(data).model_version_status), None)

    def predict(
        self, name: str, version: int, signature: str, inputs: Mapping[str, Array], timeout: float
    ) -> dict[str, Array]:
        """Send one request to a given version and return the outputs by alias.

        Raises:
            ServerUnreachable: Nothing answers.
            CallFailed: The server refused.
        """
        request = encode_predict_request(inputs, name=name, version=version, signature_name=signature)
        try:
            return parse_predict_response(self._predict(request, timeout=timeout, metadata=self._metadata))[1]
        except grpc.RpcError as error:
            raise _as_ours(error) from error

    def overview(self, model: str, timeout: float) -> dict[str, Any]:
        """What a server says of one model, or of all in short: see docs/status-page.md.

        Raises:
            ServerUnreachable: Nothing answers.
            CallFailed: The server refused, or is none of ours.
        """
        request = admin_pb2.GetOverviewRequest(model=model)
        try:
            data = self._overview(request.SerializeToString(), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _as_ours(error) from error
        overview: dict[str, Any] = json.loads(admin_pb2.GetOverviewReply.FromString(data).json)
        return overview

    def set_backends(self, model: str, order: Sequence[str], timeout: float) -> Sequence[str]:
        """Prefer backends for a model, or with none let the server choose; returns what was preferred before.

        Raises:
            ServerUnreachable: Nothing answers.
            CallFailed: The server refused.
        """
        request = admin_pb2.SetBackendsRequest(model=model, backends=order)
        try:
            data = self._set_backends(request.SerializeToString(), timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _as_ours(error) from error
        return tuple(admin_pb2.SetBackendsReply.FromString(data).before)


@contextmanager
def connected(address: str, keys: Keys | None = None) -> Iterator[ServingClient]:
    """A client for HOST:PORT; nothing is sent before the first call.

    Raises:
        DialRefused: See Keys.channel and Keys.metadata.
    """
    keys = keys or Keys()
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    metadata = keys.metadata(address)
    with keys.channel(address, unlimited) as channel:
        yield ServingClient(channel, metadata)


def _as_ours(error: grpc.RpcError) -> Exception:
    code, details = error.code(), error.details()
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return ServerUnreachable(str(details))
    return CallFailed(f"{code.name}: {details}")
