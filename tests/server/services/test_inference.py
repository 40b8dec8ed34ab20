"""Tests of Classify, Regress and MultiInference over a real channel: `server.services.inference` and below."""

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from protos.serving import inference_pb2
from protos.tensorflow import example_pb2
from server.app import Server
from server.config import ServerConfig
from tests.contract_models import write_forest

SERVED = "tensorflow/serving/"
Code = grpc.StatusCode


def row(age: float | None = 2.0, size: Sequence[int] = (3, 4), kind: bytes = b"oak") -> example_pb2.Example:
    """An Example; None leaves the age out."""
    example = example_pb2.Example()
    if age is not None:
        example.features.feature["age"].float_list.value.append(age)
    example.features.feature["size"].int64_list.value.extend(size)
    example.features.feature["kind"].bytes_list.value.append(kind)
    return example


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to a server of the forest."""
    root = tmp_path_factory.mktemp("models")
    write_forest(root / "forest" / "1")
    server = Server(ServerConfig(repository=root, port=0, backends="onnxruntime", metrics_port=-1, lame_duck_seconds=0))
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made
    server.stop()


def call(channel: grpc.Channel, method: str, request: Message) -> bytes:
    """One call."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        f"/tensorflow.serving.PredictionService/{method}"
    )
    return stub(request.SerializeToString(), timeout=20)


def refusal(channel: grpc.Channel, method: str, request: Message) -> tuple[Code, str]:
    """The status of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request)
    return caught.value.code(), str(caught.value.details())


def classification(signature: str = "", rows: Sequence[example_pb2.Example] = (), **spec: Any) -> Message:
    """A ClassificationRequest for the forest."""
    request = inference_pb2.ClassificationRequest()
    request.model_spec.name = spec.get("name", "forest")
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(rows)
    return request


def regression(signature: str, rows: Sequence[example_pb2.Example]) -> Message:
    """A RegressionRequest for the forest."""
    request = inference_pb2.RegressionRequest()
    request.model_spec.name = "forest"
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(rows)
    return request


def test_classify_gives_labels_and_scores(channel: grpc.Channel) -> None:
    """Each Example is a row; its features are the inputs of their names."""
    data = call(channel, "Classify", classification(rows=[row(), row(age=0.5, kind=b"elm")]))
    reply = inference_pb2.ClassificationResponse.FromString(data)
    classes = [[(c.label, c.score) for c in r.classes] for r in reply.result.classifications]
    assert classes == [[("oak", 6.0), ("oak", 8.0)], [("elm", 1.5), ("elm", 2.0)]]
    spec = reply.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("forest", 1, "serving_default")


def test_classify_without_labels(channel: grpc.Channel) -> None:
    """A signature may have scores alone."""
    reply = inference_pb2.ClassificationResponse.FromString(
        call(channel, "Classify", classification("scores", [row()]))
    )
    assert [(c.label, c.score) for c in reply.result.classifications[0].classes] == [("", 6.0), ("", 8.0)]


def test_regress_gives_values(channel: grpc.Channel) -> None:
    """A column vector is a value per Example."""
    data = call(channel, "Regress", regression("value", [row(), row(age=1.0)]))
    reply = inference_pb2.RegressionResponse.FromString(data)
    assert [r.value for r in reply.result.regressions] == [14.0, 7.0]


def test_the_context_is_shared_and_overruled(channel: grpc.Channel) -> None:
    """Features of the context hold for each Example that has not its own."""
    request = inference_pb2.RegressionRequest()
    request.model_spec.name = "forest"
    request.model_spec.signature_name = "value"
    listed = request.input.example_list_with_context
    listed.context.CopyFrom(row(age=10.0))
    listed.examples.add()
    listed.examples.add().features.feature["age"].float_list.value.append(1.0)
    reply = inference_pb2.RegressionResponse.FromString(call(channel, "Regress", request))
    assert [r.value for r in reply.result.regressions] == [70.0, 7.0]


def multi(*tasks: tuple[str, str, str], rows: Sequence[example_pb2.Example] = ()) -> Message:
    """A MultiInferenceRequest of (model, signature, method) tasks."""
    request = inference_pb2.MultiInferenceRequest()
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=SERVED + method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    request.input.example_list.examples.extend(rows)
    return request


def test_multi_inference_answers_each_task_in_order(channel: grpc.Channel) -> None:
    """Several signatures, one set of Examples."""
    request = multi(("forest", "value", "regress"), ("forest", "", "classify"), rows=[row()])
    reply = inference_pb2.MultiInferenceResponse.FromString(call(channel, "MultiInference", request))
    first, second = reply.results
    assert [r.value for r in first.regression_result.regressions] == [14.0]
    assert second.classification_result.classifications[0].classes[0].label == "oak"
    assert [r.model_spec.signature_name for r in reply.results] == ["value", "serving_default"]


@pytest.mark.parametrize(
    ("method", "request_message", "code", "text"),
    [
        ("Classify", inference_pb2.ClassificationRequest(), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            "Classify",
            classification(rows=[row()], name="nope"),
            Code.NOT_FOUND,
            "Servable not found for request: Latest(nope)",
        ),
        ("Classify", classification("q"), Code.INVALID_ARGUMENT, "No signature was found with the name: q"),
        ("Regress", regression("q", []), Code.INVALID_ARGUMENT, "No signature was found with the name: q"),
        ("Classify", classification(), Code.INVALID_ARGUMENT, "Input is empty."),
        (
            "Classify",
            classification(rows=[row(age=None)]),
            Code.INVALID_ARGUMENT,
            "Feature: age (data type: float) is required but could not be found.",
        ),
        (
            "Classify",
            classification(rows=[row(size=[1, 2, 3])]),
            Code.INVALID_ARGUMENT,
            "Feature: size has 3 values, which do not fit a row of [-1, 2]",
        ),
        (
            "Classify",
            classification(rows=[row(), row(size=[1])]),
            Code.INVALID_ARGUMENT,
            "Feature: size has 1 values in one Example and 2 in another",
        ),
        (
            "Regress",
            regression("matrix", [row()]),
            Code.INVALID_ARGUMENT,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
        ),
        (
            "MultiInference",
            multi(("forest", "value", "regress"), ("", "", "classify")),
            Code.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            "MultiInference",
            multi(("forest", "value", "regress"), ("other", "", "classify")),
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            "MultiInference",
            multi(("forest", "value", "regress"), ("forest", "value", "regress"), rows=[row()]),
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: value",
        ),
        (
            "MultiInference",
            multi(("forest", "q", "regress")),
            Code.INVALID_ARGUMENT,
            "Requested signature not found in model graph: q",
        ),
        (
            "MultiInference",
            multi(("forest", "value", "predict")),
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
    ],
)
def test_each_refusal_is_tensorflow_servings(
    channel: grpc.Channel, method: str, request_message: Message, code: Code, text: str
) -> None:
    """Codes and texts are those of classifier.cc, regressor.cc and multi_inference.cc."""
    assert refusal(channel, method, request_message) == (code, text)


def test_outputs_of_other_names_are_no_regression(channel: grpc.Channel) -> None:
    """The signature is shown, as TensorFlow Serving shows it."""
    code, text = refusal(channel, "Regress", regression("unnamed", [row()]))
    assert code is Code.INVALID_ARGUMENT
    assert text.startswith("No regression outputs found in SignatureDef: ")


def test_a_feature_of_another_type_is_refused(channel: grpc.Channel) -> None:
    """Numbers are not read out of strings."""
    example = row()
    example.features.feature["age"].bytes_list.value.append(b"2")
    code, text = refusal(channel, "Classify", classification(rows=[example]))
    assert (code, text) == (
        Code.INVALID_ARGUMENT,
        "Feature: age holds bytes values, the signature takes float values",
    )


def test_a_context_is_not_multiplied(channel: grpc.Channel) -> None:
    """A small request cannot ask for a large context to be copied for each of its many rows."""
    request = inference_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "forest", "value"
    listed = request.input.example_list_with_context
    listed.context.CopyFrom(row())
    listed.context.features.feature["size"].int64_list.value.extend(range(100_000))
    for _ in range(1000):
        listed.examples.add()
    code, text = refusal(channel, "Regress", request)
    assert code is Code.INVALID_ARGUMENT
    assert "takes more than 67108864 bytes" in text
