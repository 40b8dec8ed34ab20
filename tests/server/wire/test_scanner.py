"""Protobuf's wire format, field by field."""

import pytest
from google.protobuf.message import DecodeError

from protos.serving import predict_pb2
from server.wire.scanner import WireError, fields, varint

# Field 9 exists in no message here, so that only the wire format counts.
ACCEPTED = {
    "nothing": b"",
    "varint": b"\x48\x05",
    "ten-byte varint": b"\x48" + b"\xff" * 9 + b"\x01",
    "ten-byte varint with surplus bits": b"\x48" + b"\xff" * 9 + b"\x7f",
    "fixed64": b"\x49" + b"\0" * 8,
    "fixed32": b"\x4d" + b"\0" * 4,
    "length-delimited": b"\x4a\x03abc",
    "tag in five bytes": b"\xca\x80\x80\x80\x00\x00",
    "largest field number": b"\xfa\xff\xff\xff\x0f\x01a",
    "length in five bytes": b"\x4a\x81\x80\x80\x80\x00a",
    "group": b"\x4b\x48\x05\x4a\x01a\x49\0\0\0\0\0\0\0\0\x4c",
    "groups in groups": b"\x4b" * 100 + b"\x4c" * 100,
}
REFUSED = {
    "tag in six bytes": b"\xca\x80\x80\x80\x80\x00\x00",
    "tag above 32 bits": b"\xca\x80\x80\x80\x10\x00",
    "tag cut off": b"\xca",
    "field number 0": b"\x02\x01a",
    "field number 0, varint": b"\x00\x01",
    "wire type 6": b"\x4e",
    "wire type 7": b"\x4f",
    "varint cut off": b"\x48\xff",
    "eleven-byte varint": b"\x48" + b"\xff" * 10 + b"\x00",
    "fixed64 cut off": b"\x49" + b"\0" * 7,
    "fixed32 cut off": b"\x4d" + b"\0" * 3,
    "length cut off": b"\x4a\x80",
    "length missing": b"\x4a",
    "length beyond the end": b"\x4a\x04abc",
    "length in six bytes": b"\x4a\x81\x80\x80\x80\x80\x00a",
    "negative length": b"\x4a\xff\xff\xff\xff\x0f",
    "end of no group": b"\x4c",
    "group without an end": b"\x4b\x48\x05",
    "group with another's end": b"\x4b\x54",
    "group cut off": b"\x4b\x4a\x05a",
    "too many groups": b"\x4b" * 101 + b"\x4c" * 101,
}


def _protobuf_accepts(data: bytes) -> bool:
    try:
        predict_pb2.PredictRequest.FromString(data)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_protobuf_accepts_is_accepted(name: str) -> None:
    """Every valid field is passed over to its exact end, so that what follows it is found."""
    data = ACCEPTED[name]
    assert _protobuf_accepts(data)
    *_, (tag, start, stop) = fields(data + b"\x1a\x01z", 0, len(data) + 3)
    assert (tag, start, stop) == (0x1A, len(data) + 2, len(data) + 3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_protobuf_refuses_is_refused(name: str) -> None:
    """Broken bytes give the one named error."""
    data = REFUSED[name]
    assert not _protobuf_accepts(data)
    with pytest.raises(WireError):
        list(fields(data, 0, len(data)))


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_read_behind_the_end(name: str) -> None:
    """A message cut off inside a larger one is refused too, whatever bytes follow it."""
    data = REFUSED[name]
    with pytest.raises(WireError):
        list(fields(data + b"\x01\x4c" * 100, 0, len(data)))


def test_payloads_are_located() -> None:
    """Tag, start and end of each field are those of its payload."""
    data = b"\x48\x96\x01\x4a\x02ab\x4b\x48\x00\x4c"
    assert list(fields(data, 0, len(data))) == [(0x48, 1, 3), (0x4A, 5, 7), (0x4B, 8, 11)]
    assert varint(data, 1) == (150, 3)
