"""PredictResponses out, and the client's side of both messages."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protos.serving import predict_pb2
from server.errors import MalformedResponse
from server.wire.encoding import length_delimited, tensor_to_proto
from server.wire.requests import ModelSpec
from server.wire.responses import encode_predict_request, encode_predict_response, parse_predict_response

OUTPUTS: dict[str, NDArray[Any]] = {
    "scores": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "classes": np.array([[3, -1], [2**40, 0]]),
    "half": np.array([1.5, -2.0], np.float16),
    "names": np.array([[b"cat"], [b""]], object),
    "empty": np.zeros((0, 4), np.float64),
    "scalar": np.array(True),  # noqa: FBT003 - an array's value
    "é": np.array([1 + 2j], np.complex64),
}


@pytest.mark.parametrize("as_content", [False, True])
def test_a_response_is_what_protobuf_would_have_written(as_content: bool) -> None:  # noqa: FBT001 - parametrized
    """A client's own protobuf finds every output, the model, its version and the signature."""
    data = encode_predict_response(
        OUTPUTS.items(), name="m", version=12, signature_name="serving_default", as_content=as_content
    )
    expected = predict_pb2.PredictResponse()
    for alias, array in OUTPUTS.items():
        expected.outputs[alias].CopyFrom(tensor_to_proto(array, as_content=as_content))
    expected.model_spec.name = "m"
    expected.model_spec.version.value = 12
    expected.model_spec.signature_name = "serving_default"
    assert predict_pb2.PredictResponse.FromString(data) == expected
    assert len(data) == expected.ByteSize()


@pytest.mark.parametrize("as_content", [False, True])
def test_our_client_reads_what_our_server_writes(as_content: bool) -> None:  # noqa: FBT001 - parametrized
    """Model, version, signature and all outputs come back with dtype, shape and values."""
    data = encode_predict_response(OUTPUTS.items(), name="m", version=0, signature_name="s", as_content=as_content)
    spec, outputs = parse_predict_response(data)
    assert spec == ModelSpec("m", 0, None, "s")
    assert outputs.keys() == OUTPUTS.keys()
    for alias, array in OUTPUTS.items():
        assert outputs[alias].dtype == array.dtype
        assert outputs[alias].shape == array.shape
        np.testing.assert_array_equal(outputs[alias], array)


def test_no_outputs_are_a_response() -> None:
    """A response without outputs still says which model answered."""
    data = encode_predict_response([], name="m", version=1, signature_name="s")
    assert parse_predict_response(data) == (ModelSpec("m", 1, None, "s"), {})


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"no response",
        length_delimited(1, length_delimited(1, b"y") + length_delimited(2, b"\x08\x01\x22\x01a")),
    ],
)
def test_a_broken_response_is_named(data: bytes) -> None:
    """The client's user is told that the answer is broken, never that the request is."""
    with pytest.raises(MalformedResponse):
        parse_predict_response(data)


def test_a_request_is_what_protobuf_would_have_written() -> None:
    """A server's own protobuf finds every input, the label and the filter."""
    data = encode_predict_request(OUTPUTS, name="m", label="stable", output_filter=["a", "b"])
    expected = predict_pb2.PredictRequest(output_filter=["a", "b"])
    for alias, array in OUTPUTS.items():
        expected.inputs[alias].CopyFrom(tensor_to_proto(array))
    expected.model_spec.name = "m"
    expected.model_spec.version_label = "stable"
    assert predict_pb2.PredictRequest.FromString(data) == expected


def test_a_request_names_one_version() -> None:
    """A version by number and one by label exclude each other."""
    with pytest.raises(ValueError, match="not both"):
        encode_predict_request({}, name="m", version=1, label="stable")
