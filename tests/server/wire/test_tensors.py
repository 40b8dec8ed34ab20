"""Raw tensors: what they claim, what they cost, where their values lie."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from protos.tensorflow import tensor_pb2
from server.errors import MalformedTensor
from server.wire.encoding import tensor_to_proto
from server.wire.forms import TensorForm
from server.wire.scanner import WireError
from server.wire.tensors import MAX_FILLED_BYTES, MAX_TENSOR_BYTES, RawTensor, scan_tensor, tensor_from_proto

Proto = tensor_pb2.TensorProto


def _scan(data: bytes) -> RawTensor:
    return scan_tensor("x", data, 0, len(data))


def _claim(dtype: int, *shape: int) -> RawTensor:
    return RawTensor("x", TensorForm(dtype, shape))


def test_large_values_are_not_copied() -> None:
    """Raw floats are seen where they lie in the request, in the typed field and in the content alike."""
    values = np.arange(1000, dtype=np.float32)
    for as_content in (False, True):
        data = tensor_to_proto(values, as_content=as_content).SerializeToString()
        array = _scan(data).to_numpy()
        assert np.shares_memory(array, np.frombuffer(data, np.uint8))
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, values)


def test_a_tiny_request_cannot_claim_a_huge_array() -> None:
    """A claim above the limit is refused before anything is allocated, one at the limit is not."""
    assert _claim(tensor_pb2.DT_UINT8, MAX_FILLED_BYTES).nbytes == MAX_FILLED_BYTES
    assert _claim(tensor_pb2.DT_UINT8, MAX_FILLED_BYTES + 1).nbytes == 0
    assert _claim(tensor_pb2.DT_UINT8, MAX_TENSOR_BYTES + 1).nbytes == 0
    assert _claim(tensor_pb2.DT_FLOAT, -1).nbytes == 0
    with pytest.raises(MalformedTensor, match="are the limit"):
        _claim(tensor_pb2.DT_UINT8, MAX_TENSOR_BYTES + 1).to_numpy()
    with pytest.raises(MalformedTensor, match="0 values for an array of"):
        _claim(tensor_pb2.DT_UINT8, MAX_FILLED_BYTES + 1).to_numpy()
    with pytest.raises(MalformedTensor, match="32 bytes; 31 are the limit"):
        _claim(tensor_pb2.DT_FLOAT, 8).to_numpy(max_tensor_bytes=31)
    np.testing.assert_array_equal(_claim(tensor_pb2.DT_FLOAT, 8).to_numpy(max_tensor_bytes=32), np.zeros(8))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((-1,), "size -1"),
        ((0, -5), "size -5"),
        ((2**40, 2**40), "64 bits"),
        ((2**62, 0), "64 bits"),
        ((0, 2**40, 2**40), "64 bits"),
        ((2**63 - 1,), "64 bits"),
        ((1,) * 65, "65 dimensions"),
    ],
)
def test_impossible_shapes_are_refused(shape: tuple[int, ...], reason: str) -> None:
    """No shape reaches numpy that numpy cannot hold, not even of an array without elements."""
    with pytest.raises(MalformedTensor, match=reason):
        _claim(tensor_pb2.DT_FLOAT, *shape).to_numpy()


@pytest.mark.parametrize("dtype", sorted({*tensor_pb2.DataType.values(), 77, -1}))
def test_every_type_is_served_or_refused_by_name(dtype: int) -> None:
    """Each number that a client may send gives an array or an error that names the type."""
    if dtype in (11, 12, 13, 15, 16, 0, 20, 21) or not 0 < dtype <= 23:
        with pytest.raises(MalformedTensor, match="are not served"):
            _claim(dtype, 1).to_numpy()
    else:
        assert _claim(dtype, 1).to_numpy().tolist() in ([0], [b""])


def test_resources_and_variants_are_refused_unread() -> None:
    """They are refused before protobuf builds objects of them, in whatever tensor they are."""
    for proto in (
        Proto(dtype=tensor_pb2.DT_FLOAT, resource_handle_val=[tensor_pb2.ResourceHandleProto()]),
        Proto(dtype=tensor_pb2.DT_VARIANT, variant_val=[tensor_pb2.VariantTensorDataProto()] * 3),
    ):
        with pytest.raises(MalformedTensor, match="resource handles and variants"):
            _scan(proto.SerializeToString())


def test_a_monstrous_shape_is_refused_unread() -> None:
    """A shape longer than any that numpy can have is refused before protobuf builds objects of it."""
    with pytest.raises(MalformedTensor, match="a shape of more than"):
        _scan(b"\x12\x82\x80\x04" + b"\x12\x00" * 0x8001)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x01\x2a\x03abc",  # float_val of three bytes
        b"\x08\x08\x4a\x06abcdef",  # scomplex_val of six bytes
        b"\x08\x01\x12\x02\x12\x05",  # a shape cut off
        b"\x08\x01\x12\x05\x12\x03\x12\x01\xff",  # a dimension's name that is no UTF-8
    ],
)
def test_broken_fields_are_refused_while_scanning(data: bytes) -> None:
    """What protobuf refuses is refused, without a look at the values."""
    with pytest.raises((WireError, DecodeError)):
        _scan(data)


def test_broken_varints_are_refused_when_read() -> None:
    """A varint cut off, or of eleven bytes, is the one named error."""
    for packed in (b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"):
        raw = _scan(b"\x08\x03\x3a" + bytes([len(packed)]) + packed)
        with pytest.raises(MalformedTensor, match="int_val is corrupt"):
            raw.to_numpy()
        with pytest.raises(MalformedTensor, match="int_val is corrupt"):
            raw.check_values()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"\x08\x01\x2d\0\0\x80\x3f\x2a\x04\0\0\0\x40\x12\x04\x12\x02\x08\x02",
            [1.0, 2.0],
        ),  # one by one, packed
        (b"\x08\x01\x2a\x04\0\0\x80\x3f\x2a\x04\0\0\0\x40\x12\x04\x12\x02\x08\x02", [1.0, 2.0]),  # two chunks
        (b"\x08\x03\x38\x05\x38\x07\x12\x04\x12\x02\x08\x02", [5, 7]),  # one by one
        (b"\x12\x04\x12\x02\x08\x01\x12\x04\x12\x02\x08\x02\x08\x03\x3a\x01\x05", [[5, 5]]),  # a merged shape
        (b"\x08\x03\x08\x01\x12\x04\x12\x02\x08\x01\x2a\x04\0\0\x80\x3f", [1.0]),  # the last dtype counts
        (
            b"\x08\x01\x22\x04\0\0\0\x40\x22\x04\0\0\x80\x3f\x12\x04\x12\x02\x08\x01",
            [1.0],
        ),  # the last content too
        (b"\x08\x01\x22\x04\0\0\0\x40\x22\x00\x12\x04\x12\x02\x08\x01", [0.0]),  # even if it is empty
        (b"\xf8\x06\x01\x08\x03\x12\x04\x12\x02\x08\x01\x3a\x01\x05\x18\x09", [5]),  # unknown fields
    ],
)
def test_unusual_encodings_mean_what_they_mean_to_protobuf(data: bytes, expected: list[Any]) -> None:
    """Whatever a hand-written encoder may send is merged as protobuf merges it."""
    np.testing.assert_array_equal(_scan(data).to_numpy(), np.array(expected))
    np.testing.assert_array_equal(tensor_from_proto(Proto.FromString(data)), np.array(expected))


def test_errors_name_the_input() -> None:
    """A client learns which of its inputs is wrong."""
    with pytest.raises(MalformedTensor) as caught:
        tensor_from_proto(Proto(dtype=tensor_pb2.DT_FLOAT, tensor_content=b"abc"), "images")
    assert caught.value.alias == "images"
    assert caught.value.reason == "tensor_content has 3 bytes, not 4"
