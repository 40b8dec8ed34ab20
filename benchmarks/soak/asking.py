"""What the soak itself asks of a server: statuses, new configurations, a request. Raw bytes and our own messages."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.protobuf import text_format

from protos.serving import model_service_pb2
from server.arrays import Array
from server.lifecycle.states import State
from server.wire.responses import encode_predict_request, parse_predict_response

_SECONDS = 120.0
_POLL_SECONDS = 0.02


class Asking:
    """Asks one server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def states(self, model: str) -> dict[int, State]:
        """States by version; empty for a model that is not known."""
        request = model_service_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            data = self._call("ModelService/GetModelStatus", request.SerializeToString())
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        reply = model_service_pb2.GetModelStatusResponse.FromString(data)
        return {status.version: State(status.state) for status in reply.model_version_status}

    def wait_for(self, model: str, version: int, state: State) -> None:
        """Wait until a version is in a state.

        Raises:
            TimeoutError: it takes too long.
        """
        end = time.monotonic() + _SECONDS
        while self.states(model).get(version) is not state:
            if time.monotonic() > end:
                raise TimeoutError(f"{model} {version}: {self.states(model)} instead of {state.name}")
            time.sleep(_POLL_SECONDS)

    def configure(self, *models: str) -> None:
        """Put a configuration in force, made of `configured`; returns when what is new in it is AVAILABLE."""
        text = f"config {{ model_config_list {{ {' '.join(models)} }} }}"
        request = text_format.Parse(text, model_service_pb2.ReloadConfigRequest())
        self._call("ModelService/HandleReloadConfigRequest", request.SerializeToString())

    def predict(self, model: str, inputs: Mapping[str, Array], version: int | None = None) -> Mapping[str, Array]:
        """One answer."""
        request = encode_predict_request(inputs, name=model, version=version)
        return parse_predict_response(self._call("PredictionService/Predict", request))[1]

    def _call(self, method: str, data: bytes) -> bytes:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"/tensorflow.serving.{method}")
        return call(data, timeout=_SECONDS)


@contextmanager
def asking(address: str) -> Iterator[Asking]:
    """Ask the server at an address."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Asking(channel)


def configured(model: str, folder: Path, more: str = "") -> str:
    """An entry of a model_config_list."""
    return f"config {{ name: '{model}' base_path: '{folder.absolute()}' model_platform: 'tensorflow' {more} }}"
