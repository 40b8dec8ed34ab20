"""Tests of `server.wire.merging`: in parts or at once, a message is the same."""

import pytest
from google.protobuf.message import DecodeError

from protos.serving import inference_pb2
from protos.tensorflow import example_pb2
from server.errors import MalformedRequest
from server.services import inference
from server.services.inference import _LISTS, _parsed
from server.wire import merging
from server.wire.encoding import length_delimited
from server.wire.merging import parse_in_parts
from server.wire.scanner import Allowance, WireError

Request = inference_pb2.ClassificationRequest


def example(number: int, size: int = 1) -> example_pb2.Example:
    """An Example with so many values."""
    made = example_pb2.Example()
    made.features.feature["x"].int64_list.value.extend([number] * size)
    return made


def request(*, context: bool, count: int) -> inference_pb2.ClassificationRequest:
    """A request with Examples in either of the places where they may be; one of them is large."""
    made = Request()
    made.model_spec.name = "m"
    examples = [example(number, 500 if number == 2 else 1) for number in range(count)]
    if context:
        made.input.example_list_with_context.context.CopyFrom(example(-1, 30))
        made.input.example_list_with_context.examples.extend(examples)
    else:
        made.input.example_list.examples.extend(examples)
    return made


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 bytes."""
    monkeypatch.setattr(merging, "PART_BYTES", 64)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_parts_make_the_whole(context: bool, count: int) -> None:  # noqa: FBT001 - a parameter of the test
    """Every Example comes once and in its place, whatever is cut; unknown fields are kept too."""
    expected = request(context=context, count=count)
    data = expected.SerializeToString()
    assert parse_in_parts(Request, data, _LISTS) == expected
    odd = data + b"\x78\x01" + length_delimited(2, length_delimited(1, length_delimited(1, b"")))
    assert parse_in_parts(Request, odd, _LISTS).SerializeToString() == Request.FromString(odd).SerializeToString()


def test_no_part_is_large_that_need_not_be() -> None:
    """Each is at most twice the size, with what it is wrapped in, but where one Example is larger by itself."""
    data = request(context=False, count=100).SerializeToString()
    parts = list(merging._parts(data, 0, len(data), _LISTS, Allowance(), 100))
    assert len(parts) > 10
    assert sum(len(part) > 140 for part in parts) == 1
    assert Request.FromString(b"".join(parts)) == Request.FromString(data)


@pytest.mark.parametrize("cut", [1, 30, 60, 400, 900])
def test_what_protobuf_refuses_is_refused(cut: int) -> None:
    """A message that is cut off is no message."""
    data = request(context=True, count=100).SerializeToString()[:-cut]
    with pytest.raises((DecodeError, WireError)):
        parse_in_parts(Request, data, _LISTS)


def test_rows_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions are taken; more than an allowance are not, and the text says so."""
    monkeypatch.setattr(inference, "_MOST_FIELDS", 50)
    data = request(context=False, count=100).SerializeToString()
    with pytest.raises(MalformedRequest, match="more than 50 fields"):
        _parsed(Request, data)
