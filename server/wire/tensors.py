"""One tensor on the wire to one numpy array, by TensorFlow's rules.

A tensor is first only found (`scan_tensor`): its type, its shape and where its values are. Then
`RawTensor.to_numpy` checks what it claims and makes the array. The rules are those of TensorFlow's
Tensor::FromProto (tensorflow: core/framework/tensor.cc); tests compare with it through `tf.io.parse_tensor`.
The way back is in `server.wire.encoding`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.errors import MalformedTensor
from server.wire.dtypes import BOOL, SERVED, STRING, ElementType, name_of
from server.wire.encoding import length_delimited
from server.wire.scanner import MAX_DEPTH, WireError, fields, varint

MAX_TENSOR_BYTES = 1 << 30
"""The largest array that a tensor may claim by default: 1 GiB."""

MAX_FILLED_BYTES = 64 << 20
"""The largest array whose values need not all be there: 64 MiB. Ten bytes on the wire can claim it."""

MAX_RANK = 64
"""numpy's limit. TensorFlow's own is 254, but no kernel takes that many."""

_MAX_SHAPE_BYTES = 1 << 16  # of TensorShapeProto, names included: many times what 64 dimensions need
_INT64_MAX = 2**63 - 1

# Tags of TensorProto's fields: field number << 3 | wire type.
_DTYPE, _SHAPE, _CONTENT, _STRING = 0x08, 0x12, 0x22, 0x42
_RESOURCE, _VARIANT = 0x72, 0x7A
_VALUE_FIELDS = {kind.field_number for kind in SERVED.values()}
_PACKED = {number << 3 | 2 for number in _VALUE_FIELDS - {STRING.field_number}}
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor of a request, its values still bytes of that request.

    Attributes:
        alias: The signature's name for it.
        dtype: DataType number as sent; it may be one that no tensor can have.
        shape: Sizes as sent; they may be negative or absurd. TensorFlow ignores `unknown_rank` of a tensor.
        content: `tensor_content` if it is not empty; then it alone counts.
        values: Else where the elements are: the packed entries of the typed field of `dtype`, the entries of
            `string_val`, or a whole TensorProto if the sender did anything unusual.
    """

    alias: str
    dtype: int
    shape: tuple[int, ...]
    content: bytes | memoryview | None
    values: memoryview | list[bytes] | tensor_pb2.TensorProto = _NOTHING

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the array will take, not counting what its strings refer to.

        Raises:
            MalformedTensor: There is no such array: its type is not served or its shape is impossible.
        """
        itemsize = self._kind().itemsize
        if len(self.shape) > MAX_RANK:
            raise MalformedTensor(self.alias, f"{len(self.shape)} dimensions; {MAX_RANK} are the limit")
        count = extent = 1
        for size in self.shape:
            if size < 0:
                raise MalformedTensor(self.alias, f"a dimension of size {size}")
            count *= size
            extent *= size or 1
            # numpy minds the extent of empty arrays too, TensorFlow the order in which the product overflows.
            if count > _INT64_MAX or extent * itemsize > _INT64_MAX:
                raise MalformedTensor(self.alias, "more elements than 64 bits can count")
        return count * itemsize

    def to_numpy(self, *, max_tensor_bytes: int = MAX_TENSOR_BYTES) -> NDArray[Any]:
        """Make the array.

        A non-empty `tensor_content` must hold exactly the elements of the shape. Otherwise the typed field's
        entries count: too few are filled up with the last one, or with zeros if there is none, which
        TensorFlow does at any size and here is done up to MAX_FILLED_BYTES; any more than the shape has are cut.

        Args:
            max_tensor_bytes: Refuse arrays larger than this before anything is allocated.

        Returns:
            An array of `shape` in the dtype of `SERVED`; strings are objects of type bytes. It may be
            read-only and refer to the request's own bytes; then it need not be aligned (`flags.aligned`).

        Raises:
            MalformedTensor: The tensor does not hold what it claims, or its type is not served.
        """
        if (nbytes := self.nbytes) > max_tensor_bytes:
            raise MalformedTensor(self.alias, f"an array of {nbytes} bytes; {max_tensor_bytes} are the limit")
        kind = self._kind()
        count = nbytes // kind.itemsize
        if self.content is None:
            entries = self._entries(kind)
            if len(entries) < count and nbytes > MAX_FILLED_BYTES:
                raise MalformedTensor(self.alias, f"{len(entries)} values for an array of {nbytes} bytes")
            flat = _filled(entries, count, kind)
        elif count == 0:  # TensorFlow looks at no value of an empty tensor
            flat = np.empty(0, kind.dtype)
        else:
            flat = self._from_content(kind, count, self.content)
        return flat.reshape(self.shape)

    def check_values(self) -> None:
        """Look at what `scan_tensor` leaves for later, as far as protobuf would look at it.

        Raises:
            MalformedTensor: The typed field is no sequence of varints.
        """
        if isinstance(self.values, memoryview) and self.dtype in SERVED:
            self._entries(SERVED[self.dtype])

    def _kind(self) -> ElementType:
        kind = SERVED.get(self.dtype)
        if kind is None:
            raise MalformedTensor(self.alias, f"elements of type {name_of(self.dtype)} are not served")
        return kind

    def _from_content(self, kind: ElementType, count: int, content: bytes | memoryview) -> NDArray[Any]:
        if kind is STRING:
            return _objects(self._content_strings(bytes(content), count))
        if len(content) != count * kind.itemsize:
            raise MalformedTensor(self.alias, f"tensor_content has {len(content)} bytes, not {count * kind.itemsize}")
        if kind is BOOL and np.frombuffer(content, np.uint8).max() > 1:
            raise MalformedTensor(self.alias, "tensor_content has a bool that is neither 0 nor 1")
        return np.frombuffer(content, kind.dtype)

    def _content_strings(self, content: bytes, count: int) -> list[bytes]:
        """Cut TensorFlow's own coding of strings: all lengths as varints of 32 bits, then all bytes."""
        if count > len(content):
            raise MalformedTensor(self.alias, "tensor_content is too short for the lengths of its strings")
        position = 0
        lengths: list[int] = []
        try:
            for _ in range(count):
                length, end = varint(content, position)
                if end - position > 5:
                    raise MalformedTensor(self.alias, "tensor_content has a length of more than 32 bits")
                lengths.append(length & 0xFFFF_FFFF)
                position = end
        except (IndexError, WireError) as error:
            raise MalformedTensor(self.alias, "tensor_content has no length for each string") from error
        if position + sum(lengths) != len(content):
            raise MalformedTensor(self.alias, "tensor_content does not hold the strings that it announces")
        strings = []
        for length in lengths:
            strings.append(content[position : position + length])
            position += length
        return strings

    def _entries(self, kind: ElementType) -> NDArray[Any]:
        """All entries of the typed field, however many, as elements."""
        values = self.values
        if isinstance(values, memoryview):
            if kind.encoding == "fixed":
                return np.frombuffer(values[: len(values) // kind.itemsize * kind.itemsize], kind.dtype)
            packed = bytes(values)
            if packed.isascii():  # every varint is a single byte: small numbers, and all bools
                return _elements(np.frombuffer(packed, np.uint8), kind)
            values = self._unpacked(packed, kind)
        if kind is STRING:
            return _objects(values if isinstance(values, list) else list(values.string_val))
        return _elements(np.array(getattr(values, kind.field)), kind)

    def _unpacked(self, packed: bytes, kind: ElementType) -> tensor_pb2.TensorProto:
        """Let protobuf decode packed varints: numpy has no operation that beats its C loop."""
        try:
            return tensor_pb2.TensorProto.FromString(length_delimited(kind.field_number, packed))
        except DecodeError as error:
            raise MalformedTensor(self.alias, f"{kind.field} is corrupt") from error


def scan_tensor(alias: str, data: bytes, start: int, stop: int, depth: int = MAX_DEPTH) -> RawTensor:
    """Find type, shape and values of the TensorProto in `data[start:stop]`, without copying numbers.

    Args:
        alias: The signature's name for it.
        data: Bytes that hold the message.
        start: Where the message starts.
        stop: Where it ends.
        depth: How many more levels of groups are allowed.

    Raises:
        WireError: The bytes are no TensorProto.
        DecodeError: The same, found by protobuf.
        MalformedTensor: It holds resource handles or variants, or a monstrous shape.
    """
    dtype = 0
    content: memoryview | None = None
    shapes: list[bytes] = []
    strings: list[bytes] = []
    packed: dict[int, memoryview] = {}
    usual = True
    for tag, begin, end in fields(data, start, stop, depth):
        if tag == _DTYPE:
            dtype = _int32(varint(data, begin)[0])
        elif tag == _SHAPE:
            shapes.append(data[begin:end])
        elif tag == _STRING:
            strings.append(data[begin:end])
        elif tag in _PACKED:
            usual = usual and tag not in packed
            packed[tag] = memoryview(data)[begin:end]
        elif tag == _CONTENT:
            content = memoryview(data)[begin:end] if end > begin else None
        elif tag in (_RESOURCE, _VARIANT):
            # Refused unread: two bytes of these can make protobuf allocate hundreds.
            raise MalformedTensor(alias, "resource handles and variants are not served")
        elif tag >> 3 in _VALUE_FIELDS:
            usual = False  # entries one by one, which protobuf may also have to merge with packed ones
    shape = _merged_shape(alias, shapes)
    if usual and (values := _usual_values(dtype, content, packed, strings)) is not None:
        return RawTensor(alias, dtype, shape, content, values)
    return raw_from_proto(alias, tensor_pb2.TensorProto.FromString(data[start:stop]))


def _usual_values(
    dtype: int, content: memoryview | None, packed: dict[int, memoryview], strings: list[bytes]
) -> memoryview | list[bytes] | None:
    """The typed values, if all that the tensor holds is in the one place for its type; else None."""
    kind = SERVED.get(dtype)
    if kind is None:
        return None
    if content is not None:
        return None if packed or strings else _NOTHING
    if kind is STRING:
        return None if packed else strings
    tag = kind.field_number << 3 | 2
    if strings or packed.keys() - {tag}:
        return None
    values = packed.get(tag, _NOTHING)
    if kind.encoding == "fixed" and len(values) % (kind.itemsize // kind.parts):
        raise WireError(f"{kind.field} ends within a value")
    return values


def raw_from_proto(alias: str, message: tensor_pb2.TensorProto) -> RawTensor:
    """See a TensorProto that protobuf has parsed as a RawTensor."""
    shape = tuple([dim.size for dim in message.tensor_shape.dim])
    return RawTensor(alias, message.dtype, shape, message.tensor_content or None, message)


def tensor_from_proto(
    message: tensor_pb2.TensorProto, alias: str = "", *, max_tensor_bytes: int = MAX_TENSOR_BYTES
) -> NDArray[Any]:
    """Make the array of a TensorProto, as `RawTensor.to_numpy` does.

    Raises:
        MalformedTensor: The tensor does not hold what it claims, or its type is not served.
    """
    return raw_from_proto(alias, message).to_numpy(max_tensor_bytes=max_tensor_bytes)


def _merged_shape(alias: str, shapes: list[bytes]) -> tuple[int, ...]:
    if sum(map(len, shapes)) > _MAX_SHAPE_BYTES:
        raise MalformedTensor(alias, f"a shape of more than {_MAX_SHAPE_BYTES} bytes")
    merged = tensor_pb2.TensorShapeProto()
    for shape in shapes:
        merged.MergeFromString(shape)
    return tuple([dim.size for dim in merged.dim])


def _int32(value: int) -> int:
    """What protobuf makes of a varint in a field of 32 bits: its lower half, signed."""
    value &= 0xFFFF_FFFF
    return value - 2**32 if value >= 2**31 else value


def _elements(entries: NDArray[Any], kind: ElementType) -> NDArray[Any]:
    """Turn entries of a typed field into elements, as C would: by cutting off upper bits."""
    if kind.parts > 1:
        entries = entries[: len(entries) // kind.parts * kind.parts]
        return entries.view(kind.dtype)
    return entries.astype(kind.bits, copy=False).view(kind.dtype)


def _objects(strings: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(strings), object)
    array[:] = strings
    return array


def _filled(entries: NDArray[Any], count: int, kind: ElementType) -> NDArray[Any]:
    """Cut or fill up to `count` elements."""
    if len(entries) >= count:
        return entries[:count]
    filled = np.empty(count, kind.dtype)
    filled[: len(entries)] = entries
    filled[len(entries) :] = entries[-1] if len(entries) else b"" if kind is STRING else 0
    return filled
