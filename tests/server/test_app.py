"""Tests of `server.app` and `server.services` over a real channel; TensorFlow Serving's own client is in tests/e2e."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos.serving import metadata_pb2, model_service_pb2
from server.app import Server, ServerStartError
from server.config import ServerConfig
from server.wire.responses import encode_predict_request, parse_predict_response
from tests.packages import write_package
from tests.servers import running

ROW = np.ones((1, 4), np.float32)
INPUTS = {"x": ROW, "bias": 0 * ROW}
ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing that is secret is behind it, and not for long
Code = grpc.StatusCode


class Client:
    """Calls one server, with bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(self, method: str, request: bytes | Message, service: str = "PredictionService") -> bytes:
        """One unary call of a TensorFlow Serving method."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            f"/tensorflow.serving.{service}/{method}"
        )
        return stub(data, timeout=20)

    def error(
        self, method: str, request: bytes | Message, service: str = "PredictionService"
    ) -> tuple[Code, str | None]:
        """The status of a call that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, service)
        return caught.value.code(), caught.value.details()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one sound model of two versions, of which the higher is damaged."""
    root = tmp_path_factory.mktemp("models")
    write_package(root / "affine" / "1")
    write_package(root / "affine" / "2")
    (root / "affine" / "2" / "golden.npz").write_bytes(b"damaged")
    made = Server(
        ServerConfig(
            repository=root, port=0, metrics_port=0, lame_duck_seconds=0, grace_seconds=5, backends="onnxruntime"
        )
    )
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the server."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Client(channel)


def test_predict_answers(client: Client) -> None:
    """The answer holds every output and the effective model spec, as TensorFlow Serving's does."""
    spec, outputs = parse_predict_response(client.call("Predict", encode_predict_request(INPUTS, name="affine")))
    assert (spec.name, spec.version, spec.signature_name) == ("affine", 1, "serving_default")
    assert {alias: array.tolist() for alias, array in outputs.items()} == {"y": [[3.0] * 4], "z": [[-3.0] * 4]}


def test_predict_honours_the_output_filter(client: Client) -> None:
    """Only the outputs asked for are sent."""
    request = encode_predict_request(INPUTS, name="affine", output_filter=("z",))
    assert list(parse_predict_response(client.call("Predict", request))[1]) == ["z"]


@pytest.mark.parametrize(
    ("request_bytes", "code", "text"),
    [
        (b"", Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (encode_predict_request(INPUTS, name=""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (
            encode_predict_request(INPUTS, name="nope"),
            Code.NOT_FOUND,
            "Servable not found for request: Latest(nope)",
        ),
        (
            encode_predict_request(INPUTS, name="affine", version=7),
            Code.NOT_FOUND,
            "Servable not found for request: Specific(affine, 7)",
        ),
        (
            encode_predict_request(INPUTS, name="affine", label="stable"),
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: stable",
        ),
        (
            encode_predict_request(INPUTS, name="affine", signature_name="nope"),
            Code.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            encode_predict_request({"x": ROW, "bias": ROW.astype(np.float64)}, name="affine"),
            Code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided",
        ),
    ],
)
def test_predict_refuses_with_the_contracts_code_and_text(
    client: Client, request_bytes: bytes, code: Code, text: str
) -> None:
    """Each refusal is the one that TensorFlow Serving would have sent."""
    assert client.error("Predict", request_bytes) == (code, text)


def test_bytes_that_are_no_request_are_the_clients_error(client: Client) -> None:
    """Garbage gets INVALID_ARGUMENT on every method, without names of our classes."""
    for method, service in (
        ("Predict", "PredictionService"),
        ("GetModelMetadata", "PredictionService"),
        ("GetModelStatus", "ModelService"),
    ):
        code, text = client.error(method, b"\xff\xff\xff", service)
        assert code is Code.INVALID_ARGUMENT
        assert text is not None
        assert "Error" not in text


def test_an_output_dimension_of_a_broadcast_is_the_models_business(client: Client) -> None:
    """Shapes that fit the signature but not one another are the client's error, as in TensorFlow."""
    inputs = {"x": np.ones((2, 4), np.float32), "bias": np.ones((3, 4), np.float32)}
    code, text = client.error("Predict", encode_predict_request(inputs, name="affine"))
    assert code is Code.INVALID_ARGUMENT
    assert text is not None
    assert text.startswith("the model cannot compute this input:")


def test_metadata_is_the_signature_def(client: Client) -> None:
    """Clients find aliases, dtypes and shapes; the spec has name and version only."""
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "affine"
    reply = metadata_pb2.GetModelMetadataResponse.FromString(client.call("GetModelMetadata", request))
    assert (reply.model_spec.name, reply.model_spec.version.value, reply.model_spec.signature_name) == ("affine", 1, "")
    signatures = metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert reply.metadata["signature_def"].Unpack(signatures)
    definition = signatures.signature_def["serving_default"]
    assert definition.method_name == "tensorflow/serving/predict"
    assert [d.size for d in definition.inputs["x"].tensor_shape.dim] == [-1, 4]


@pytest.mark.parametrize(
    ("name", "fields", "code", "text"),
    [
        (None, ["signature_def"], Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        ("", ["signature_def"], Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ("affine", [], Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"),
        ("affine", ["x"], Code.INVALID_ARGUMENT, "Metadata field x is not supported"),
        ("nope", ["signature_def"], Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
    ],
)
def test_metadata_refuses_with_the_contracts_code_and_text(
    client: Client, name: str | None, fields: list[str], code: Code, text: str
) -> None:
    """Each refusal is the one that TensorFlow Serving would have sent."""
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        request.model_spec.name = name
    assert client.error("GetModelMetadata", request) == (code, text)


def statuses(client: Client, **spec: int | str) -> dict[int, tuple[int, int, str]]:
    """GetModelStatus's answer by version: state, error code, error message."""
    request = model_service_pb2.GetModelStatusRequest()
    request.model_spec.name = "affine"
    if "version" in spec:
        request.model_spec.version.value = int(spec["version"])
    if "label" in spec:
        request.model_spec.version_label = str(spec["label"])
    data = client.call("GetModelStatus", request, "ModelService")
    reply = model_service_pb2.GetModelStatusResponse.FromString(data)
    return {v.version: (v.state, v.status.error_code, v.status.error_message) for v in reply.model_version_status}


def test_status_shows_each_version_and_its_error(client: Client) -> None:
    """A damaged version is END with the reason, beside the one that serves; a label is ignored."""
    found = statuses(client)
    assert found[1] == (30, 0, "")
    assert found[2][:2] == (50, 2)
    assert "golden.npz is not the file that was published" in found[2][2]
    assert statuses(client, label="any") == found
    assert statuses(client, version=1) == {1: found[1]}


def test_status_refuses_with_the_contracts_code_and_text(client: Client) -> None:
    """Each refusal is the one that TensorFlow Serving would have sent."""
    request = model_service_pb2.GetModelStatusRequest()
    missing = client.error("GetModelStatus", request, "ModelService")
    assert missing == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "nope"
    unknown = client.error("GetModelStatus", request, "ModelService")
    assert unknown == (Code.NOT_FOUND, "Could not find any versions of model nope")
    request.model_spec.name = "affine"
    request.model_spec.version.value = 9
    version = client.error("GetModelStatus", request, "ModelService")
    assert version == (Code.NOT_FOUND, "Could not find version 9 of model affine")


def test_methods_that_are_not_served_say_so(client: Client) -> None:
    """UNIMPLEMENTED, and nothing worse."""
    assert client.error("HandleReloadConfigRequest", b"", "ModelService")[0] is Code.UNIMPLEMENTED


def test_health_and_reflection_answer(client: Client) -> None:
    """Probes and grpcurl work without configuration."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert "tensorflow.serving.PredictionService" in set(database.get_services())
    file = database.FindFileContainingSymbol("tensorflow.serving.PredictRequest")
    assert file.package == "tensorflow.serving"


def test_metrics_tell_latency_by_model_signature_and_backend(client: Client, server: Server) -> None:
    """Prometheus finds the request just made, and none of the names that clients made up."""
    client.call("Predict", encode_predict_request(INPUTS, name="affine"))
    for number in range(50):
        client.error("Predict", encode_predict_request(INPUTS, name=f"made-up-{number}"))
    with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=20) as page:
        text = page.read().decode()
    labels = 'backend="onnxruntime-cpu",bucket="1",model="affine",signature="serving_default",version="1"'
    assert f"segue_request_latency_seconds_count{{{labels}}}" in text
    assert 'segue_model_version_state{model="affine",version="1"} 30.0' in text
    assert 'segue_requests_total{code="NOT_FOUND",method="Predict",model=""}' in text
    assert "made-up" not in text


def test_a_repository_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mistyped folder is not taken for an empty one; packages may still come."""
    server = Server(ServerConfig(repository=tmp_path / "modles", port=0, metrics_port=-1, backends="onnxruntime"))
    server.stop()
    assert f"there is no folder {tmp_path}/modles: nothing is served until it holds packages" in caplog.text


def test_a_taken_port_is_said(server: Server) -> None:
    """The operator reads which port and which option, not a trace."""
    config = ServerConfig(repository=Path("unused"), port=server.port, metrics_port=-1)
    with pytest.raises(ServerStartError, match=f"cannot listen on 127.0.0.1:{server.port}.*--port"):
        Server(config)
    with pytest.raises(ServerStartError, match=f"metrics on 127.0.0.1:{server.metrics_port}:.*--metrics-port"):
        Server(replace(config, port=0, metrics_port=server.metrics_port or -1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("device", "tpu"),
        ("request_threads", 0),
        ("poll_seconds", -1.0),
        ("load_threads", 0),
    ],
)
def test_settings_that_cannot_work_are_refused(field: str, value: Any) -> None:
    """A wrong setting is named when the configuration is made, not when it is used."""
    with pytest.raises(ValueError, match=field):
        replace(ServerConfig(repository=Path("models")), **{field: value})


@pytest.mark.parametrize(
    ("metrics_host", "asks", "warned"), [(ANYWHERE, True, True), (ANYWHERE, False, False), ("", True, False)]
)
def test_metrics_that_are_open_though_the_server_is_not_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, metrics_host: str, *, asks: bool, warned: bool
) -> None:
    """Whoever asks callers for a token reads that the metrics ask nobody, unless only this machine reaches them."""
    settings: dict[str, Any] = {}
    if asks:
        settings["token_file"] = tmp_path / "tokens"
        settings["token_file"].write_text("a-token-of-some-length")
        settings["token_file"].chmod(0o600)
    with running(tmp_path / "models", metrics_port=0, metrics_host=metrics_host, **settings):
        assert (f"on {ANYWHERE}:" in caplog.text) is warned
        assert ("--metrics-host 127.0.0.1 keeps them on this machine" in caplog.text) is warned


def test_metrics_have_an_address_of_their_own(tmp_path: Path) -> None:
    """They are there, and not where the server is."""
    with running(tmp_path, metrics_port=0, metrics_host="127.0.0.2") as server:
        with urlopen(f"http://127.0.0.2:{server.metrics_port}/metrics", timeout=20) as reply:
            assert b"segue_build_info" in reply.read()
        with pytest.raises(URLError, match="refused"):
            urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=20)


def test_idle_calls_cost_nobody_an_answer(server: Server, client: Client) -> None:
    """Streams that say nothing do not keep requests, or health, from a thread."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        open_stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        silent = threading.Event()

        def nothing() -> Iterator[bytes]:
            silent.wait(30)
            yield from ()

        streams = [open_stream(nothing(), timeout=30) for _ in range(64)]
        try:
            client.call("Predict", encode_predict_request(INPUTS, name="affine"))
            stub = health_pb2_grpc.HealthStub(client.channel)
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status
        finally:
            silent.set()
            for stream in streams:
                stream.cancel()
