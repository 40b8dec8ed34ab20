"""Arrays to TensorProtos."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.wire.dtypes import SERVED, of_dtype
from server.wire.encoding import encode_varint, pack_varints, tensor_parts, tensor_to_proto
from server.wire.scanner import varint
from server.wire.tensors import tensor_from_proto

NUMERIC = [kind.dtype for kind in SERVED.values() if kind.name not in ("string", "bfloat16")]


def _by_protobuf(array: NDArray[Any]) -> tensor_pb2.TensorProto:
    """The same tensor, built the ordinary way."""
    kind = of_dtype(array.dtype)
    dims = [tensor_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    proto = tensor_pb2.TensorProto(dtype=f"DT_{kind.name.upper()}", tensor_shape=tensor_pb2.TensorShapeProto(dim=dims))
    values = np.ascontiguousarray(array, kind.dtype).ravel()
    if kind.parts > 1:
        values = values.view(values.real.dtype)
    getattr(proto, kind.field).extend(values.view(kind.bits).tolist() if kind.parts == 1 else values.tolist())
    return proto


def _same(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    return (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(NUMERIC).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0))))
def test_numbers_are_coded_as_protobuf_codes_them(array: NDArray[Any]) -> None:
    """Any array of numbers becomes byte for byte what protobuf serializes, and comes back unchanged."""
    expected = _by_protobuf(array)
    parts = b"".join(tensor_parts(array))
    assert tensor_pb2.TensorProto.FromString(parts).SerializeToString() == expected.SerializeToString()
    assert _same(tensor_from_proto(tensor_to_proto(array)), array)
    assert _same(tensor_from_proto(tensor_to_proto(array, as_content=True)), array)


@settings(deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=0, min_side=0)))
def test_bfloat16_keeps_its_bits(bits: NDArray[np.uint16]) -> None:
    """Every pattern of 16 bits survives, NaNs included, and the upper half of each entry is clean."""
    array = bits.view(ml_dtypes.bfloat16)
    proto = tensor_to_proto(array)
    assert list(proto.half_val) == bits.ravel().tolist()
    assert _same(tensor_from_proto(proto), array)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans())
def test_strings_keep_their_bytes(strings: list[bytes], as_content: bool) -> None:  # noqa: FBT001 - drawn
    """Any bytes survive, empty ones and zeros at the end included."""
    array = np.array([*strings, None], object)[:-1]
    proto = tensor_to_proto(array, as_content=as_content)
    assert as_content or list(proto.string_val) == strings
    assert tensor_from_proto(proto).tolist() == strings


def test_text_is_coded_as_utf_8() -> None:
    """Strings that a runtime gives as text travel as bytes."""
    for array in (
        np.array(["grün", b"x"], object),
        np.array(["grün", "x"]),
        np.array([b"gr\xc3\xbcn", b"x"]),
    ):
        assert list(tensor_to_proto(array).string_val) == ["grün".encode(), b"x"]


@pytest.mark.parametrize("as_content", [False, True])
def test_memory_layout_does_not_matter(as_content: bool) -> None:  # noqa: FBT001 - parametrized
    """Transposed, strided, big-endian and zero-dimensional arrays give the same tensor as plain ones."""
    plain = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for array in (
        plain.T,
        plain[:, ::2, ::-1],
        plain.astype(">i4"),
        plain[1, 2, 3],
        np.broadcast_to(plain, (2, 2, 3, 4)),
    ):
        decoded = tensor_from_proto(tensor_to_proto(array, as_content=as_content))
        np.testing.assert_array_equal(decoded, array)
        assert decoded.shape == np.shape(array)


def test_a_scalar_has_a_shape() -> None:
    """A scalar's shape is present and empty, as TensorFlow writes it."""
    proto = tensor_to_proto(np.array(2.5))
    assert proto.HasField("tensor_shape")
    assert not proto.tensor_shape.dim
    assert list(proto.double_val) == [2.5]


def test_repeated_values_are_all_written() -> None:
    """Equal elements are not shortened to one: clients that read the typed field directly find them all."""
    assert len(tensor_to_proto(np.zeros(1000, np.int64)).int64_val) == 1000


def test_blocks_of_varints_join() -> None:
    """Arrays longer than one block, with varints of every length, are coded without a seam."""
    chance = np.random.default_rng(7)
    values = chance.integers(0, 2**64, 150_000, np.uint64) >> chance.integers(0, 64, 150_000, np.uint64)
    coded = pack_varints(values)
    proto = tensor_pb2.TensorProto(uint64_val=values.tolist())
    assert proto.SerializeToString().endswith(coded)
    assert len(coded) == sum(len(encode_varint(each)) for each in values.tolist())


@given(st.integers(0, 2**64 - 1))
def test_varints_round_trip(value: int) -> None:
    """Coding a number and reading it gives the number and the end of it."""
    coded = encode_varint(value)
    assert varint(coded, 0) == (value, len(coded))


def test_other_dtypes_are_refused() -> None:
    """An array that no tensor can hold is refused by name."""
    with pytest.raises(TypeError, match="datetime64"):
        tensor_parts(np.array(["2026-01-01"], "datetime64[D]"))
