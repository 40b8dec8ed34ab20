"""What reading a request may cost: a message of tiny fields is refused, and what clients do send in millions is not."""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from protos.tensorflow import tensor_pb2
from server.errors import MalformedRequest
from server.wire import values
from server.wire.encoding import encode_varint, length_delimited
from server.wire.requests import parse_predict_request, peek_model_name
from server.wire.scanner import FIXED32, FIXED64, MAX_FIELDS, VARINT, Allowance, WireError, fields

MANY = MAX_FIELDS + 1
SECONDS = 20  # many times what it takes, and less than what as many fields of a request of 256 MiB would


def request(tensor: bytes) -> bytes:
    """A request with one tensor."""
    return length_delimited(2, length_delimited(1, b"x") + length_delimited(2, tensor))


TINY: dict[str, Callable[[int], bytes]] = {
    "unknown fields": lambda count: b"\x78\x01" * count,
    "unknown fields in a group": lambda count: b"\x7b" + b"\x08\x01" * count + b"\x7c",
    "output filters": lambda count: b"\x1a\x00" * count,
    "inputs of one name": lambda count: b"\x12\x00" * count,
    "fields of an entry": lambda count: length_delimited(2, b"\x78\x01" * count),
    "unknown fields of a tensor": lambda count: request(b"\x08\x09" + b"\x78\x01" * count),
    "packed pieces": lambda count: request(b"\x08\x09" + b"\x52\x00" * count),
    "numbers of two fields in turn": lambda count: request(b"\x08\x09" + b"\x50\x01\x38\x01" * count),
    "dimensions": lambda count: (
        request(b"\x08\x09" + length_delimited(2, b"\x12\x00" * 30_000)) * (count // 30_000 + 1)
    ),
    "short shapes": lambda count: (
        request(b"\x08\x09" + length_delimited(2, b"\x12\x00" * 60) + b"\x52\x01\x01") * (count // 60 + 1)
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_more_tiny_fields_than_anyone_sends_are_refused(name: str) -> None:
    """However many there are, only so many are looked at; the text says why."""
    data = TINY[name](16 * MANY)
    begin = time.monotonic()
    with pytest.raises(MalformedRequest, match=f"more than {MAX_FIELDS} fields"):
        parse_predict_request(data)
    assert time.monotonic() - begin < SECONDS


@pytest.mark.parametrize("entry", [b"\x42\x00", b"\x42\x01a", b"\x42\x80\x00"])
def test_more_strings_than_an_array_holds_are_refused(monkeypatch: pytest.MonkeyPatch, entry: bytes) -> None:
    """They have a bound of their own, for one tensor and for all, wherever they are among the fields."""
    monkeypatch.setattr(Allowance.__init__, "__defaults__", (MAX_FIELDS, 1000))
    head = b"\x08\x07\x12\x04\x12\x02\x08\x01"
    assert parse_predict_request(request(head + entry * 1000)).inputs["x"].entries == 1000
    for data in (
        request(head + entry * 1001),
        request(entry * 1002 + head),
        request(head + entry * 600) + request(head + entry * 600),
    ):
        with pytest.raises(MalformedRequest, match="more than 1000 strings"):
            parse_predict_request(data)


@pytest.mark.parametrize("length", [0, 3, 200])
def test_strings_by_the_hundred_thousand_are_taken(length: int) -> None:
    """A string is an entry of its own, so they are not counted as fields, whatever comes before and after them."""
    count = 2 * MANY
    strings = length_delimited(8, b"s" * length) * count
    shape = length_delimited(2, length_delimited(2, b"\x08" + encode_varint(count)))
    for tensor in (b"\x08\x07" + shape + strings, b"\x08\x07" + strings + shape):
        array = parse_predict_request(request(tensor)).inputs["x"].to_numpy()
        assert array.shape == (count,)
        assert set(array) == {b"s" * length}


def test_long_and_short_strings_are_told_apart() -> None:
    """Lengths of one byte and of more may come in any order."""
    expected = [b"s" * length for length in (1, 127, 128, 0, 300, 2, 20_000, 5)]
    tensor = tensor_pb2.TensorProto(dtype="DT_STRING", string_val=expected)
    tensor.tensor_shape.dim.add(size=len(expected))
    assert parse_predict_request(request(tensor.SerializeToString())).inputs["x"].to_numpy().tolist() == expected


def packed_form(field: str, numbers: list[float]) -> bytes:
    """A typed field as protobuf writes it."""
    message = tensor_pb2.TensorProto()
    getattr(message, field).extend(numbers)
    return message.SerializeToString()


def unpacked(field: str, numbers: list[float]) -> bytes:
    """A typed field as an encoder writes it that knows nothing of packing."""
    descriptor = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field]
    whole = packed_form(field, numbers)
    _, start, stop = next(fields(whole, 0, len(whole)))
    width = {"float_val": 4, "double_val": 8, "scomplex_val": 4, "dcomplex_val": 8}.get(field)
    if width:
        tag = descriptor.number << 3 | (FIXED32 if width == 4 else FIXED64)
        cuts = list(range(start, stop + 1, width))
    else:
        tag = descriptor.number << 3 | VARINT
        cuts = [start, *(at + 1 for at in range(start, stop) if whole[at] < 0x80)]
    return b"".join(encode_varint(tag) + whole[a:b] for a, b in pairwise(cuts))


CASES: list[tuple[str, str, list[float]]] = [
    ("DT_FLOAT", "float_val", [0.0, -1.5, 2.5]),
    ("DT_DOUBLE", "double_val", [0.0, -1.5, 2.5]),
    ("DT_INT32", "int_val", [0, -1, 300]),
    ("DT_INT64", "int64_val", [0, -1, 1 << 40]),
    ("DT_UINT32", "uint32_val", [0, 7, 1 << 31]),
    ("DT_UINT64", "uint64_val", [0, 7, 1 << 63]),
    ("DT_BOOL", "bool_val", [0, 1, 1]),
    ("DT_HALF", "half_val", [0, 0x3C00, 0xC000]),
]


@pytest.mark.parametrize(("dtype", "field", "numbers"), CASES)
@pytest.mark.parametrize("times", [1, 2, MANY])
def test_numbers_entry_by_entry_are_taken(dtype: str, field: str, numbers: list[float], times: int) -> None:
    """They are what the packed form says, however many there are, and may be mixed with packed ones."""
    shape = length_delimited(2, b"\x08" + encode_varint(len(numbers) * (times + 2)))
    head = b"\x08" + bytes([tensor_pb2.DataType.Value(dtype)]) + length_delimited(2, shape)
    one = packed_form(field, numbers)
    data = head + one + unpacked(field, numbers) * times + one
    array = parse_predict_request(request(data)).inputs["x"].to_numpy()
    whole = head + packed_form(field, numbers * (times + 2))
    expected = parse_predict_request(request(whole)).inputs["x"].to_numpy()
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("end", [b"\x50", b"\x50\xff", b"\x50" + b"\xff" * 10 + b"\x01"])
def test_a_run_that_ends_in_rubbish_is_refused(end: bytes) -> None:
    """An entry that is cut off, or too long, is not lost behind many good ones."""
    with pytest.raises(MalformedRequest, match=r"ends within a field|more than ten bytes"):
        parse_predict_request(request(b"\x08\x09" + b"\x50\x01" * 1000 + end))


def test_no_call_into_c_takes_much_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is cut into pieces, between which other threads get on, within no entry."""
    sizes: list[int] = []
    pack = values._packed

    def packed(run: bytes) -> bytes:
        sizes.append(len(run))
        return pack(run)

    monkeypatch.setattr(values, "_packed", packed)
    count = 1 << 18
    shape = length_delimited(2, length_delimited(2, b"\x08" + encode_varint(count)))
    data = request(b"\x08\x09" + shape + b"\x50\xff\xff\x01" * count)
    parse_predict_request(data)
    assert len(sizes) > 1
    assert max(sizes) <= values._RUN_BYTES
    assert all(size % 4 == 0 for size in sizes)


def test_a_glance_for_the_name_looks_into_no_group() -> None:
    """The name is looked for in the polling thread, which has no time for what comes before it without end."""
    spec = length_delimited(1, length_delimited(1, b"m"))
    assert peek_model_name(b"\x78\x01" + spec) == "m"
    assert not peek_model_name(b"\x7b" + b"\x08\x01" * 10 + b"\x7c" + spec)


def test_an_allowance_is_shared() -> None:
    """What one part of a message has used is not there for the others."""
    allowance = Allowance(fields=3)
    assert len(list(fields(b"\x08\x01" * 2, 0, 4, allowance=allowance))) == 2
    allowance.take(1)
    with pytest.raises(WireError, match="fields"):
        list(fields(b"\x08\x01", 0, 2, allowance=allowance))
