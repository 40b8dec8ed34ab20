"""What a request takes in memory: at most four times its wire size, or its wire size and what its arrays must take.

The second matters where an array is by nature larger than what was sent: a small int64 takes one byte on the wire and
eight in an array, a short string is an object in Python, one value may stand for many. `RawTensor.nbytes` tells that
size before anything is allocated, so that whoever admits requests can count it.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.serving import predict_pb2
from protos.tensorflow import tensor_pb2
from server.wire.encoding import encode_varint, length_delimited
from server.wire.responses import encode_predict_request

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MIB = 2**20
SLACK = 2 * MIB  # blocks, and pages of the allocator


def _tensor(dtype: int, shape: list[int], rest: bytes) -> bytes:
    """A request with one tensor, whose values are given as bytes."""
    head = tensor_pb2.TensorProto(dtype=tensor_pb2.DataType.Name(tensor_pb2.DataType.ValueType(dtype)))
    for size in shape:
        head.tensor_shape.dim.add(size=size)
    tensor = head.SerializeToString() + rest
    return length_delimited(2, length_delimited(1, b"x") + length_delimited(2, tensor))


def _content(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_FLOAT, [size // 4], length_delimited(4, bytes(size)))


def _floats(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_FLOAT, [size // 4], length_delimited(5, bytes(size)))


def _single_floats(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_FLOAT, [size // 5], b"\x2d\0\0\x80\x3f" * (size // 5))


def _single_ints(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_INT64, [size // 6], b"\x50\xff\xff\xff\xff\x07" * (size // 6))


def _pieces(size: int) -> bytes:
    piece = length_delimited(5, bytes(size // 4))
    return _tensor(tensor_pb2.DT_FLOAT, [size // 4], piece * 4)


def _varints(dtype: int, field: int, value: int) -> Callable[[int], bytes]:
    coded = encode_varint(value % 2**64)
    return lambda size: _tensor(dtype, [size // len(coded)], length_delimited(field, coded * (size // len(coded))))


def _strings(length: int) -> Callable[[int], bytes]:
    def build(size: int) -> bytes:
        count = size // (length + len(encode_varint(length)) + 1)
        return _tensor(tensor_pb2.DT_STRING, [count], length_delimited(8, b"s" * length) * count)

    return build


def _strings_in_content(size: int) -> bytes:
    count = size // 9
    return _tensor(tensor_pb2.DT_STRING, [count], length_delimited(4, b"\x08" * count + b"eight by" * count))


def _cut_strings(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_STRING, [3], b"\x42\x02ab" * (size // 4))


def _filled(_: int) -> bytes:
    return _tensor(tensor_pb2.DT_INT8, [64 * MIB], b"\x3a\x01\x05")


def _tensors(size: int) -> bytes:
    entry = _tensor(tensor_pb2.DT_FLOAT, [1], b"\x2a\x04\0\0\0\0")
    value = entry[5:]  # behind the key
    return b"".join(
        length_delimited(2, length_delimited(1, str(index).encode()) + value) for index in range(size // len(entry))
    )


def _filters(size: int) -> bytes:
    return b"\x1a\x02ab" * (size // 4)


def _specs(size: int) -> bytes:
    return b"\x0a\x00" * (size // 2)


def _resources(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_FLOAT, [1], b"\x72\x00" * (size // 2))


def _options(size: int) -> bytes:
    return length_delimited(5, b"\x12\x00" * (size // 2))


def _same_alias(size: int) -> bytes:
    return _tensor(tensor_pb2.DT_INT64, [1], b"\x52\x02\x80\x01") * (size // 20)


def _image(size: int) -> bytes:
    return encode_predict_request({"x": np.zeros((1, size // 4), np.float32)}, name="m")


pb = tensor_pb2
FOURFOLD: dict[str, Callable[[int], bytes]] = {
    "tensor_content": _content,
    "packed float_val": _floats,
    "float_val entry by entry": _single_floats,
    "float_val in pieces": _pieces,
    "int64_val of five bytes": _varints(pb.DT_INT64, 10, 2**31),
    "int64_val of five bytes, entry by entry": _single_ints,
    "int64_val of three bytes": _varints(pb.DT_INT64, 10, 2**20),
    "negative int32": _varints(pb.DT_INT32, 7, -5),
    "half_val of three bytes": _varints(pb.DT_HALF, 13, 0xC000),
    "half_val of one byte": _varints(pb.DT_HALF, 13, 3),
    "bool_val": _varints(pb.DT_BOOL, 11, 1),
    "uint8 in int_val": _varints(pb.DT_UINT8, 7, 200),
    "strings of 100 bytes": _strings(100),
    "values of another field": _varints(pb.DT_UINT8, 10, 2**40),
    "strings of which few are wanted": _cut_strings,
    "a float tensor of our client": _image,
}
"""Encodings whose arrays are at most three times as large as what was sent."""

LARGER: dict[str, Callable[[int], bytes]] = {
    "int64_val of one byte": _varints(pb.DT_INT64, 10, 7),
    "int64_val of two bytes": _varints(pb.DT_INT64, 10, 300),
    "int32 of one byte": _varints(pb.DT_INT32, 7, 7),
    "strings of 2 bytes": _strings(2),
    "empty strings": _strings(0),
    "strings of 8 bytes in tensor_content": _strings_in_content,
    "one value for many": _filled,
}
"""Encodings whose arrays are by nature larger: bounded by them."""

REFUSED: dict[str, Callable[[int], bytes]] = {
    "more inputs than anyone has": _tensors,
    "resource handles": _resources,
    "endless options": _options,
    "names without end": _filters,
    "tensors of one name": _same_alias,
}


def _measured(tmp_path: Path, data: bytes) -> dict[str, Any]:
    path = tmp_path / "request.bin"
    path.write_bytes(data)
    command = [sys.executable, "-m", "tests.server.wire.request_memory", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    print(found, f"{found['peak'] / found['wire']:.2f} times the wire size")
    return found


SIZES = [16, pytest.param(64, marks=pytest.mark.prove), pytest.param(256, marks=pytest.mark.prove)]


@pytest.mark.parametrize("mebibytes", SIZES)
@pytest.mark.parametrize("name", FOURFOLD)
def test_a_request_takes_at_most_four_times_its_size(tmp_path: Path, name: str, mebibytes: int) -> None:
    """The bytes themselves are among the four."""
    if "few are wanted" in name:
        mebibytes = min(mebibytes, 63)  # more are refused: see MAX_STRINGS
    found = _measured(tmp_path, FOURFOLD[name](mebibytes * MIB))
    assert found["peak"] <= 4 * found["wire"] + SLACK
    assert not found["error"]


@pytest.mark.parametrize("mebibytes", SIZES)
@pytest.mark.parametrize("name", LARGER)
def test_a_request_takes_no_more_than_it_says(tmp_path: Path, name: str, mebibytes: int) -> None:
    """The bytes and the arrays, whose size is known before they are made: no third thing as large."""
    found = _measured(tmp_path, LARGER[name](mebibytes * MIB))
    if found["error"]:
        assert mebibytes == 256  # an array of more than a gibibyte, MAX_TENSOR_BYTES
        assert found["arrays"] == 0
        assert found["peak"] <= found["wire"] + SLACK
    else:
        assert found["peak"] <= 1.1 * (found["wire"] + found["arrays"]) + SLACK


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_takes_little(tmp_path: Path, name: str) -> None:
    """Many small things are refused before they are many objects."""
    found = _measured(tmp_path, REFUSED[name](16 * MIB))
    assert found["peak"] <= 2 * found["wire"] + SLACK
    assert found["error"]


@pytest.mark.parametrize("build", [_filters, _specs, _same_alias])
def test_small_things_without_end_take_little(tmp_path: Path, build: Callable[[int], bytes]) -> None:
    """What does not count, because it is one too many or overwritten, is not kept."""
    found = _measured(tmp_path, build(MIB // 2))
    assert found["peak"] <= 2 * found["wire"] + SLACK


def test_the_largest_requests_are_built_as_meant() -> None:
    """The builders write what protobuf reads as a request with one tensor of the size that was asked for."""
    for build in (*FOURFOLD.values(), *LARGER.values()):
        message = predict_pb2.PredictRequest.FromString(build(1 << 12))
        assert list(message.inputs) == ["x"]
