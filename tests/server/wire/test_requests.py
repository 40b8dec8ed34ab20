"""PredictRequests: ours against protobuf's own parser, on good bytes and on any others.

The invariant: a request parses, or one named error comes out; never anything else.
"""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protos.serving import model_pb2, predict_pb2
from server.errors import InvalidRequest, MalformedRequest
from server.wire.encoding import encode_varint, length_delimited, tensor_to_proto
from server.wire.requests import ModelSpec, parse_predict_request
from server.wire.responses import encode_predict_request
from tests.fuzz.oracle import check_request


def _by_protobuf(data: bytes) -> predict_pb2.PredictRequest | None:
    try:
        return predict_pb2.PredictRequest.FromString(data)
    except DecodeError:
        return None


def check_against_protobuf(data: bytes) -> None:
    """Compare what both make of the same bytes, parsed anew and perhaps by a layout; fail where they differ."""
    check_request(data, parse_predict_request)
    check_request(data, parse_predict_request)


# Bytes made field by field: every message of a request, with anything anywhere in it.

small = st.integers(0, 40)
junk = st.binary(max_size=12)


def _field(number: int, payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return payload.map(lambda each: length_delimited(number, each))


def _number(number: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return values.map(lambda each: encode_varint(number << 3) + encode_varint(each & (2**64 - 1)))


def _message(*parts: st.SearchStrategy[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(*parts), max_size=most).map(b"".join)


varints = st.lists(st.integers(0, 2**64 - 1) | small, max_size=5).map(lambda all_: b"".join(map(encode_varint, all_)))
unknown = st.one_of(
    _number(30, st.integers(0, 2**64 - 1)),
    _field(31, junk),
    st.just(b"\xfd\x01abcd"),
    st.just(b"\xf9\x01abcdefgh"),
    st.lists(st.just(b"\x48\x01"), max_size=3).map(lambda inner: b"\xf3\x01" + b"".join(inner) + b"\xf4\x01"),
)
dim = _message(_number(1, st.integers(-1, 5)), _field(2, st.just(b"batch") | junk), most=2)
shape = _message(_field(2, dim), _number(3, st.integers(0, 1)), unknown, most=4)
floats = st.lists(st.floats(width=32), max_size=4).map(lambda all_: np.array(all_, "<f4").tobytes())
tensor = _message(
    *[_number(1, st.sampled_from([*range(24), 101, 77])) for _ in range(3)],
    *[_field(2, shape) for _ in range(3)],
    _number(3, small),
    _field(4, junk),
    *[_field(number, floats) for number in (5, 6, 9, 12)],
    *[_field(number, varints) for number in (7, 10, 11, 13, 16, 17)],
    *[_number(number, st.integers(0, 2**40)) for number in (5, 7, 8, 10, 11, 13, 16)],
    *[_field(8, junk) for _ in range(2)],
    st.just(b"\x2dabcd"),
    st.just(b"\x31abcdefgh"),
    _field(18, junk),
    unknown,
)
entry = _message(
    *[_field(1, st.sampled_from([b"x", b"y", "ä".encode()])) for _ in range(8)],
    *[_field(2, tensor) for _ in range(8)],
    _field(1, junk),
    unknown,
    most=4,
)
spec = _message(
    _field(1, st.just(b"model") | junk),
    _field(2, _message(_number(1, st.integers(-1, 2**63)), most=2)),
    _field(3, st.just(b"serving_default")),
    _field(4, st.just(b"stable")),
    unknown,
)
request = _message(
    *[_field(2, entry) for _ in range(5)],
    *[_field(1, spec) for _ in range(2)],
    _field(3, st.just(b"y") | junk),
    _field(5, junk | st.just(b"\x08\x01\x12\x05\x0a\x01x\x10\x01")),
    _field(6, junk),
    _field(7, junk | st.just(b"\x0a\x01a\x10\x01")),
    _number(2, small),
    unknown,
)


@settings(max_examples=1500, deadline=None)
@given(request)
def test_any_message_means_what_it_means_to_protobuf(data: bytes) -> None:
    """Fields in any order, repeated, merged, unknown, broken: the outcome is protobuf's."""
    check_against_protobuf(data)


def _valid() -> list[bytes]:
    inputs: list[dict[str, NDArray[Any]]] = [
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"x": np.array([[1, 300], [-1, 2**40]]), "mask": np.array([True, False])},
        {"text": np.array([b"a", b"", "grün".encode()], object), "half": np.ones((1, 2), np.float16)},
        {"z": np.array(1 + 2j), "empty": np.zeros((0, 3), np.uint16)},
    ]
    requests = [
        encode_predict_request(each, name="m", version=index, output_filter=["y"] * index)
        for index, each in enumerate(inputs)
    ]
    message = predict_pb2.PredictRequest(client_id=b"me")
    message.inputs["c"].CopyFrom(tensor_to_proto(np.arange(3.0), as_content=True))
    message.model_spec.version_label = "stable"
    message.predict_streamed_options.split_dimensions["x"] = 1
    message.request_options.return_stoptokens.append(7)
    return [*requests, message.SerializeToString()]


VALID = _valid()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid request with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 8)))
        kept = bytes(data[start:stop])
        data[start:stop] = draw(st.one_of(st.binary(max_size=3), st.just(kept + kept), st.just(b"")))
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(mutated() | st.binary(max_size=64))
def test_damaged_requests_give_one_named_error(data: bytes) -> None:
    """Bytes that were a request before they were damaged parse as protobuf parses them, or are refused."""
    check_against_protobuf(data)


@pytest.mark.parametrize("data", VALID)
def test_every_prefix_of_a_request_is_handled(data: bytes) -> None:
    """A request cut off anywhere is refused, but for the cuts at which it is a shorter request."""
    for stop in range(len(data) + 1):
        check_against_protobuf(data[:stop])


def test_a_plain_request() -> None:
    """What a client has put in comes out: model, signature, filter, and the tensors in their order."""
    inputs = {"b": np.ones((2, 2), np.float32), "a": np.array([7])}
    data = encode_predict_request(inputs, name="m", version=3, signature_name="s", output_filter=["y", "z", "y"])
    parsed = parse_predict_request(data)
    assert parsed.model_spec == ModelSpec("m", 3, None, "s")
    assert parsed.output_filter == ("y", "z", "y")
    assert list(parsed.inputs) == ["b", "a"]
    for alias, array in inputs.items():
        np.testing.assert_array_equal(parsed.inputs[alias].to_numpy(), array)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (model_pb2.ModelSpec(name="m"), ModelSpec("m")),
        (model_pb2.ModelSpec(version_label="stable"), ModelSpec("", None, "stable")),
        (model_pb2.ModelSpec(version_label=""), ModelSpec("", None, "")),
        (model_pb2.ModelSpec(version={"value": 0}), ModelSpec("", 0)),
        (model_pb2.ModelSpec(version={"value": -4}), ModelSpec("", -4)),
    ],
)
def test_version_choices_are_told_apart(message: model_pb2.ModelSpec, expected: ModelSpec) -> None:
    """Version 0, an empty label and no choice at all are three different things."""
    request_ = predict_pb2.PredictRequest(model_spec=message)
    assert parse_predict_request(request_.SerializeToString()).model_spec == expected


def test_an_empty_request_is_a_request() -> None:
    """No bytes are a valid message without a model: refusing it is not the parser's business."""
    assert parse_predict_request(b"").model_spec is None
    assert parse_predict_request(b"\x0a\x00").model_spec == ModelSpec("")


def test_the_last_of_equal_aliases_wins() -> None:
    """Entries of a map replace each other, values within one entry merge."""
    first, second = (tensor_to_proto(np.array([value], np.float32)).SerializeToString() for value in (1, 2))
    twice = b"".join(
        length_delimited(2, length_delimited(1, b"x") + length_delimited(2, value)) for value in (first, second)
    )
    assert parse_predict_request(twice).inputs["x"].to_numpy().tolist() == [2]
    merged = length_delimited(2, length_delimited(1, b"x") + length_delimited(2, first) + length_delimited(2, second))
    assert parse_predict_request(merged).inputs["x"].to_numpy().tolist() == [[1]]
    check_against_protobuf(twice)
    check_against_protobuf(merged)


def test_a_replaced_tensor_is_checked_too() -> None:
    """A corrupt tensor does not slip in behind a good one of the same name."""
    corrupt = length_delimited(2, length_delimited(1, b"x") + length_delimited(2, b"\x08\x03\x3a\x01\x80"))
    good = length_delimited(2, length_delimited(1, b"x") + length_delimited(2, b"\x08\x03\x3a\x01\x05"))
    assert _by_protobuf(corrupt + good) is None
    with pytest.raises(InvalidRequest):
        parse_predict_request(corrupt + good)


def test_endless_options_are_refused() -> None:
    """Options are only checked, and never at any price."""
    with pytest.raises(MalformedRequest, match="options take more than"):
        parse_predict_request(length_delimited(5, b"\x12\x00" * 40_000))


def test_unknown_fields_of_an_entry_are_skipped() -> None:
    """An input with a field from the future beside its name and its value is still that input."""
    value = tensor_to_proto(np.array([2.5])).SerializeToString()
    data = length_delimited(2, length_delimited(1, b"x") + length_delimited(9, b"?") + length_delimited(2, value))
    assert parse_predict_request(data).inputs["x"].to_numpy().tolist() == [2.5]


@pytest.mark.parametrize("data", [b"\x1a\x02\xc3\x28", length_delimited(2, b"\x0a\x03\xed\xa0\x80")])
def test_names_are_utf_8(data: bytes) -> None:
    """A name that is no UTF-8 is refused, as protobuf refuses it."""
    assert _by_protobuf(data) is None
    with pytest.raises(MalformedRequest, match="not UTF-8"):
        parse_predict_request(data)
