"""Where the values of a TensorProto are, whatever way its sender chose to write them.

Senders may write a repeated field packed, entry by entry, in several pieces, or beside values of other fields. The
usual way, one packed field, is found without a copy. Otherwise the pieces are put one after the other, which makes the
packed form of the same values: an entry by itself is coded as it is in the packed form.
"""

from dataclasses import dataclass
from typing import NamedTuple

from server.errors import MalformedTensor
from server.wire.dtypes import SERVED, STRING, ElementType
from server.wire.forms import MAX_SHAPE_BYTES
from server.wire.scanner import FIXED32, FIXED64, VARINT, WireError, fields, int32, long_size, varint
from server.wire.varints import varint_blocks

# Tags of TensorProto's fields: field number << 3 | wire type.
_DTYPE, _SHAPE, _CONTENT, _STRING = 0x08, 0x12, 0x22, 0x42
_RESOURCE, _VARIANT = 0x72, 0x7A

# One kind for each typed field: how it is coded is the same for all types that share it.
_FIELDS: dict[int, ElementType] = {kind.field_number: kind for kind in SERVED.values() if kind is not STRING}
_PACKED = {number << 3 | 2: kind for number, kind in _FIELDS.items()}


def _single_tag(kind: ElementType) -> int:
    if kind.encoding == "varint":
        return kind.field_number << 3 | VARINT
    return kind.field_number << 3 | (FIXED32 if kind.itemsize // kind.parts == 4 else FIXED64)


_SINGLE = {_single_tag(kind) for kind in _FIELDS.values()}

Span = tuple[bytes, int, int]
_NOTHING: Span = (b"", 0, 0)


class Plain(NamedTuple):
    """What `find_plainly` has found.

    Attributes:
        dtype: DataType number.
        shape: A TensorShapeProto.
        kind: The element type.
        start: Where the values start, or the first entry of string_val; they end with the message.
        is_content: Whether they are in `tensor_content`, else they are packed values or entries of string_val.
        strings: How many entries string_val has.
    """

    dtype: int
    shape: bytes
    kind: ElementType
    start: int
    is_content: bool = False
    strings: int = 0


def find_plainly(data: bytes, start: int, stop: int) -> Plain | None:
    """Look at a TensorProto that is written as nearly everyone writes it: dtype, shape, then values of one field.

    Returns:
        None if it is written in any other way, or broken: see `find_values`.
    """
    try:
        dtype, shape_start = data[start + 1], start + 4
        kind = SERVED.get(dtype)
        values = shape_start + data[shape_start - 1]
        tag = data[values]
        # A byte of 0x80 or more goes on in the next one.
        if kind is None or data[start] != _DTYPE or data[start + 2] != _SHAPE or values - shape_start >= 0x80:
            return None
        size, first = long_size(data, values + 1)
    except (IndexError, WireError):
        return None
    shape = data[shape_start:values]
    # All lengths were taken at their word; the end is right only if none of them reaches beyond the message.
    if first + size == stop and size and tag < 0x80:
        if tag == _CONTENT:
            return Plain(dtype, shape, kind, first, is_content=True)
        if tag == kind.field_number << 3 | 2 and kind is not STRING:
            is_whole = kind.encoding == "varint" or size % (kind.itemsize // kind.parts) == 0
            return Plain(dtype, shape, kind, first) if is_whole else None
    if tag == _STRING and kind is STRING and (strings := _count_strings(data, values, stop)):
        return Plain(dtype, shape, kind, values, strings=strings)
    return None


def _count_strings(data: bytes, start: int, stop: int) -> int:
    """How many short entries of string_val make up `data[start:stop]`; 0 if there is anything else."""
    count = 0
    while start + 1 < stop:
        size = data[start + 1]
        if data[start] != _STRING or size >= 0x80:
            return 0
        start += 2 + size
        count += 1
    return count if start == stop else 0


@dataclass(slots=True)
class Found:
    """What a look through a TensorProto has found.

    Attributes:
        data: Bytes that hold the message.
        start: Where it starts.
        stop: Where it ends.
        depth: How many more levels of groups are allowed.
        dtype: DataType number.
        shapes: A TensorShapeProto; several of them are merged.
        content: Start and end of `tensor_content`, unless it is empty.
        strings: How many entries string_val has.
        packed: Start and end of each packed field by its tag; its last piece if there are several.
        usual: No typed field comes in several pieces.
    """

    data: bytes
    start: int
    stop: int
    depth: int
    dtype: int
    shapes: list[bytes]
    content: tuple[int, int] | None
    strings: int
    packed: dict[int, tuple[int, int]]
    usual: bool

    def check_typed(self, kind: ElementType | None) -> Span:
        """Bytes with the packed values of a kind, and from where to where; protobuf's rules hold for all other values.

        Raises:
            WireError: A field of another kind is corrupt, or one of this kind ends within a value.
            DecodeError: The same, found by protobuf.
        """
        wanted = -1 if kind is None else kind.field_number << 3 | 2
        for tag, (begin, end) in self.packed.items() if self.usual else ():
            _check(self.data, begin, end, _PACKED[tag], deep=tag != wanted)
        if self.usual:
            return (self.data, *self.packed[wanted]) if wanted in self.packed else _NOTHING
        return self._joined(wanted)

    def _joined(self, wanted: int) -> Span:
        """The pieces of one typed field put together."""
        joined = bytearray()
        for tag, begin, end in fields(self.data, self.start, self.stop, self.depth):
            if tag in _PACKED:
                _check(self.data, begin, end, _PACKED[tag], deep=True)
            if (tag in _PACKED or tag in _SINGLE) and tag >> 3 == wanted >> 3:
                joined += self.data[begin:end]
        return bytes(joined), 0, len(joined)


def find_values(alias: str, data: bytes, start: int, stop: int, depth: int) -> Found:
    """Look through the TensorProto in `data[start:stop]`.

    Raises:
        WireError: The bytes are no TensorProto.
        MalformedTensor: It holds resource handles or variants, or a monstrous shape.
    """
    dtype = strings = 0
    shapes: list[bytes] = []
    shape_bytes = 0
    content: tuple[int, int] | None = None
    packed: dict[int, tuple[int, int]] = {}
    usual = True
    for tag, begin, end in fields(data, start, stop, depth):
        if tag == _DTYPE:
            dtype = int32(varint(data, begin)[0])
        elif tag == _SHAPE:
            shape_bytes += end - begin
            if shape_bytes > MAX_SHAPE_BYTES:
                raise MalformedTensor(alias, f"a shape of more than {MAX_SHAPE_BYTES} bytes")
            if end > begin:
                shapes.append(data[begin:end])
        elif tag == _STRING:
            strings += 1
        elif tag in _PACKED:
            usual = usual and tag not in packed
            packed[tag] = begin, end
        elif tag == _CONTENT:
            content = (begin, end) if end > begin else None
        elif tag in (_RESOURCE, _VARIANT):
            # Refused unread: two bytes of these can make protobuf allocate hundreds.
            raise MalformedTensor(alias, "resource handles and variants are not served")
        elif tag in _SINGLE:
            usual = False
    return Found(data, start, stop, depth, dtype, shapes, content, strings, packed, usual)


def _check(data: bytes, start: int, stop: int, kind: ElementType, *, deep: bool) -> None:
    """Check packed values; varints only if `deep`, since who reads them checks them too."""
    if kind.encoding == "fixed":
        if (stop - start) % (kind.itemsize // kind.parts):
            raise WireError(f"{kind.field} ends within a value")
    elif deep:
        for _ in varint_blocks(data, start, stop, kind):
            pass
