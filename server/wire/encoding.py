"""Numpy arrays to tensors on the wire, and the few pieces of protobuf's wire format that this takes.

Raw values are not copied until the caller joins the parts. The way back is in `server.wire.tensors`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.wire.dtypes import BOOL, STRING, of_dtype

Parts: TypeAlias = list[bytes | memoryview]
"""Pieces of a message in their order, for `b"".join`: bytes, and arrays seen as bytes."""

_CONTENT_FIELD = 4
_SMALL = 1 << 12  # bytes: a copy of fewer costs less than the object that would save it
_FEW = 1 << 8  # elements: for fewer, protobuf's own loop is faster than numpy's many
_BLOCK = 1 << 16  # elements that are varint-coded at a time, so that scratch space stays small


def encode_varint(value: int) -> bytes:
    """Code an unsigned 64-bit number, lowest seven bits first."""
    if value < 0x80:
        return bytes((value,))
    coded = bytearray()
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def field_header(number: int, size: int) -> bytes:
    """The tag and the length of a length-delimited field, after which its `size` bytes follow."""
    return encode_varint(number << 3 | 2) + encode_varint(size)


def length_delimited(number: int, payload: bytes) -> bytes:
    """A whole length-delimited field: a string, a message or packed values."""
    return field_header(number, len(payload)) + payload


def map_entry(number: int, key: str, array: NDArray[Any], *, as_content: bool = False) -> Parts:
    """One entry of a `map<string, TensorProto>`.

    Args:
        number: The map's field number.
        key: The entry's key.
        array: The tensor: any shape, byte order and memory layout.
        as_content: As for `tensor_parts`.

    Raises:
        TypeError: No tensor can hold elements of the array's dtype.
    """
    head = _raw_entry_head(number, key, array.dtype, array.shape, as_content)
    if head:
        if array.nbytes <= _SMALL:
            return [head, array.tobytes()]
        return [head, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data]
    tensor = tensor_parts(array, as_content=as_content)
    size = sum(map(len, tensor))
    return [_entry_head(number, key, size), *tensor]


def tensor_parts(array: NDArray[Any], *, as_content: bool = False) -> Parts:
    """Code an array as a TensorProto.

    Every element is written: what protobuf parses from it is what `tf.make_tensor_proto` builds, save that
    runs of equal elements are not shortened to one.

    Args:
        array: Any shape, byte order and memory layout. Strings may be objects (bytes, or str for UTF-8) or
            numpy's own.
        as_content: Put the raw values into `tensor_content` instead of the typed field, as TensorFlow Serving
            does with `--enable_serialization_as_tensor_content`.

    Raises:
        TypeError: No tensor can hold elements of the array's dtype.
    """
    kind = of_dtype(array.dtype)
    head = _tensor_head(kind.number, array.shape)
    if array.size == 0:
        return [head]
    if kind is STRING:
        strings = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
        return [head, _content_of_strings(strings) if as_content else _string_fields(strings)]
    values = np.ascontiguousarray(array, kind.dtype).reshape(-1)
    raw = values.view(np.uint8).data
    if as_content:
        return [head + field_header(_CONTENT_FIELD, len(raw)), raw]
    if kind.encoding == "fixed" or kind is BOOL:  # a bool's byte is its varint
        return [head + field_header(kind.field_number, len(raw)), raw]
    bits = values.view(kind.bits)
    if len(bits) <= _FEW:
        message = tensor_pb2.TensorProto()
        getattr(message, kind.field).extend(bits.tolist())
        return [head, message.SerializeToString()]
    return [head, length_delimited(kind.field_number, pack_varints(bits))]


@lru_cache(maxsize=1024)
def _raw_entry_head(number: int, key: str, dtype: np.dtype[Any], shape: tuple[int, ...], as_content: bool) -> bytes:  # noqa: FBT001 - a cache is keyed by position
    """All of a map's entry that comes before the array's own bytes; empty if those are not what has to follow.

    It follows from an output's name and form, so whoever answers with the same outputs again need not code it again.
    """
    kind = of_dtype(dtype)
    if kind is STRING or kind.dtype != dtype or not (as_content or kind.encoding == "fixed" or kind is BOOL):
        return b""
    head = _tensor_head(kind.number, shape)
    size = math.prod(shape) * kind.itemsize
    if size:
        head += field_header(_CONTENT_FIELD if as_content else kind.field_number, size)
    return _entry_head(number, key, len(head) + size) + head


def _entry_head(number: int, key: str, size: int) -> bytes:
    """All of a map's entry that comes before its value of `size` bytes."""
    head = length_delimited(1, key.encode()) + field_header(2, size)
    return field_header(number, len(head) + size) + head


def tensor_to_proto(array: NDArray[Any], *, as_content: bool = False) -> tensor_pb2.TensorProto:
    """Make a protobuf object of an array; see `tensor_parts`.

    Raises:
        TypeError: No tensor can hold elements of the array's dtype.
    """
    return tensor_pb2.TensorProto.FromString(b"".join(tensor_parts(array, as_content=as_content)))


def pack_varints(values: NDArray[Any]) -> bytes:
    """Code a one-dimensional, non-empty array of integers as varints, negative ones in ten bytes.

    All last bytes are placed at once, then all bytes before the last, and so on down to the first: what an
    element too short for a byte puts there is in the place of a later element's lower byte, which comes
    afterwards and overwrites it.
    """
    if values.dtype.kind == "i":
        # A negative number is coded as the 64 bits of its two's complement, whatever its own width.
        values = values.astype(np.uint64 if values.min() < 0 else f"u{values.itemsize}")
    width = max(1, (int(values.max()).bit_length() + 6) // 7)
    if width == 1:
        return values.astype(np.uint8).tobytes()
    blocks = (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
    return b"".join([_pack_block(block, width) for block in blocks])


def _pack_block(values: NDArray[Any], width: int) -> bytes:
    longer = [values >= values.dtype.type(1 << 7 * k) for k in range(1, width)]
    sizes = np.ones(len(values), np.intp)
    for each in longer:
        sizes += each
    ends = np.cumsum(sizes)
    starts = ends - sizes
    coded = np.empty(int(ends[-1]) + width, np.uint8)
    for k in reversed(range(width)):
        byte = (values >> (7 * k)).astype(np.uint8)
        if k < width - 1:
            byte &= 0x7F
            byte |= longer[k].view(np.uint8) << 7
        coded[starts + k] = byte
    return coded[: ends[-1]].tobytes()


@lru_cache(maxsize=1024)
def _tensor_head(number: int, shape: Sequence[int]) -> bytes:
    """The fields dtype and tensor_shape, the latter present even for a scalar, as TensorFlow has it."""
    dims = [length_delimited(2, b"\x08" + encode_varint(size) if size else b"") for size in shape]
    return b"\x08" + encode_varint(number) + length_delimited(2, b"".join(dims))


def _string_fields(strings: Iterable[bytes]) -> bytes:
    return b"".join([length_delimited(STRING.field_number, each) for each in strings])


def _content_of_strings(strings: list[bytes]) -> bytes:
    """All lengths as varints, then all bytes (tensorflow: core/platform/tensor_coding.cc)."""
    content = b"".join([*[encode_varint(len(each)) for each in strings], *strings])
    return field_header(_CONTENT_FIELD, len(content)) + content
