"""Tests of `server.signatures`: the rules for a request and the texts of TensorFlow Serving's contract."""

from pathlib import Path

import numpy as np
import pytest

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.errors import InvalidRequest
from server.signatures import ServedSignature
from server.wire.forms import TensorForm
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request
from server.wire.tensors import RawTensor, Source
from tests.packages import Affine, write_package

Arrays = dict[str, Array]
ROW = np.ones((1, 4), np.float32)


def raw(arrays: Arrays) -> dict[str, RawTensor]:
    """Arrays as they arrive in a request."""
    return dict(parse_predict_request(encode_predict_request(arrays, name="m")).inputs)


@pytest.fixture
def signature(tmp_path: Path) -> ServedSignature:
    """Inputs x and bias, outputs y and z; no defaults."""
    return ServedSignature(write_package(tmp_path / "package").signatures[0])


@pytest.fixture
def with_default(tmp_path: Path) -> ServedSignature:
    """The same with a default for bias."""
    affine = Affine(defaults={"bias": np.full((1, 4), 7, np.float32)})
    return ServedSignature(write_package(tmp_path / "package", affine).signatures[0])


def test_a_fitting_request_becomes_feeds(signature: ServedSignature) -> None:
    """Aliases become ONNX names; without a filter all outputs are wanted."""
    call = signature.call(raw({"x": ROW, "bias": 2 * ROW}))
    assert {name: array.tolist() for name, array in call.feeds.items()} == {
        "x_in": ROW.tolist(),
        "bias_in": (2 * ROW).tolist(),
    }
    assert list(call.outputs) == [("y", "y_out"), ("z", "z_out")]


def test_the_filter_chooses_outputs(signature: ServedSignature) -> None:
    """Only what is asked for is computed, in the order asked for."""
    assert list(signature.call(raw({"x": ROW, "bias": ROW}), ["z"]).outputs) == [("z", "z_out")]


def test_a_default_stands_in(with_default: ServedSignature) -> None:
    """A left-out input with a default is fed with it; one sent is not."""
    assert with_default.call(raw({"x": ROW})).feeds["bias_in"].tolist() == [[7.0] * 4]
    assert with_default.call(raw({"x": ROW, "bias": ROW})).feeds["bias_in"].tolist() == ROW.tolist()


@pytest.mark.parametrize(
    ("inputs", "output_filter", "text"),
    [
        (
            {"x": ROW},
            [],
            (
                "input size does not match signature: 1!=2 len({x}) != len({bias,x}). Sent extra: {}. "
                "Missing but required: {bias}."
            ),
        ),
        (
            {"x": ROW, "bias": ROW, "b": ROW, "a": ROW},
            [],
            (
                "input size does not match signature: 4!=2 len({a,b,bias,x}) != len({bias,x}). Sent extra: {a,b}. "
                "Missing but required: {}."
            ),
        ),
        (
            {"x": ROW, "bad": ROW},
            [],
            (
                "Signature input alias: bias(feed name: serving_default_bias:0) not found in request and no default "
                "value provided. Inputs expected to be in the request {bad,x}, or default input alias set: "
            ),
        ),
        (
            {"x": ROW, "bias": ROW},
            ["q"],
            "output tensor alias not found in signature: q Outputs expected to be in the set {y,z}.",
        ),
        ({"x": ROW, "bias": ROW}, ["y", "y"], "duplicate output tensor alias: y"),
        (
            {"x": ROW.astype(np.int32), "bias": ROW},
            [],
            "Expects arg[1] to be float but int32 is provided",
        ),
        (
            {"x": np.ones((1, 3), np.float32), "bias": ROW},
            [],
            "input 'x' has shape [1, 3], which does not fit [-1, 4] of signature 'serving_default' (-1: any size)",
        ),
        (
            {"x": np.ones(4, np.float32), "bias": ROW},
            [],
            "input 'x' has shape [4], which does not fit [-1, 4] of signature 'serving_default' (-1: any size)",
        ),
    ],
)
def test_each_broken_rule_has_its_text(
    signature: ServedSignature, inputs: Arrays, output_filter: list[str], text: str
) -> None:
    """Clients that match on TensorFlow Serving's texts keep working."""
    with pytest.raises(InvalidRequest) as caught:
        signature.call(raw(inputs), output_filter)
    assert caught.value.message == text


def test_a_wrong_name_beside_a_default_has_its_text(with_default: ServedSignature) -> None:
    """With defaults the count may fit although a name is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        with_default.call(raw({"x": ROW, "bad": ROW}))
    assert caught.value.message == "Inputs contains invalid name. Used request inputs: x, request input: bad,x"
    with pytest.raises(InvalidRequest) as caught:
        with_default.call(raw({"bias": ROW}))
    assert caught.value.message.endswith("{bias}, or default input alias set: bias")


def test_an_unreadable_tensor_has_its_text(signature: ServedSignature) -> None:
    """The alias is named, as TensorFlow does."""
    inputs = raw({"x": ROW, "bias": ROW})
    inputs["x"] = RawTensor("x", TensorForm(tensor_pb2.DT_FLOAT, (1, 4)), b"\0" * 15, 0, 15, source=Source.CONTENT)
    with pytest.raises(InvalidRequest) as caught:
        signature.call(inputs)
    assert caught.value.message == "tensor parsing error: x"


def test_an_input_that_nothing_depends_on_is_checked_and_dropped(tmp_path: Path) -> None:
    """The exporter may drop an input; clients still send it, and still send it right."""
    manifest = write_package(tmp_path / "package")
    manifest.signatures[0].inputs[0].onnx_name = ""
    signature = ServedSignature(manifest.signatures[0])
    assert list(signature.call(raw({"x": ROW, "bias": ROW})).feeds) == ["x_in"]
    with pytest.raises(InvalidRequest, match="Missing but required"):
        signature.call(raw({"x": ROW}))
    with pytest.raises(InvalidRequest, match=r"Expects arg\[0\] to be float but int64 is provided"):
        signature.call(raw({"x": ROW, "bias": ROW.astype(np.int64)}))
