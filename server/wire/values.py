"""Where the values of a TensorProto are, whatever way its sender chose to write them.

Senders may write a repeated field packed, entry by entry, in several pieces, or beside values of other fields. The
usual way, one packed field, is found without a copy. Otherwise the pieces are put one after the other, which makes the
packed form of the same values.

What an honest sender may write millions of, strings and entries of one typed field in a row, is not taken field by
field: runs of entries are found by a pattern and packed by protobuf, some at a time, so that no call into C keeps other
threads waiting for long. All else is taken from the message's allowance.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protos.tensorflow import tensor_pb2
from server.errors import MalformedTensor
from server.wire.dtypes import SERVED, STRING, ElementType
from server.wire.encoding import encode_varint
from server.wire.forms import MAX_SHAPE_BYTES
from server.wire.scanner import FIXED32, FIXED64, VARINT, Allowance, WireError, fields, int32, long_size, varint
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

_RUN_BYTES = 1 << 18  # of a run that are looked at in one call: about 5 ms
_SLICE_BYTES = 1 << 22


def _run_pattern(tag: int) -> re.Pattern[bytes]:
    """Matches entries of one field, one after the other. It never goes back, and so takes no memory for each."""
    payload = {VARINT: rb"[\x80-\xff]{0,9}+[\x00-\x7f]", FIXED32: rb".{4}", FIXED64: rb".{8}"}[tag & 7]
    return re.compile(rb"(?:" + re.escape(encode_varint(tag)) + payload + rb")++", re.DOTALL)


_RUNS = {tag: _run_pattern(tag) for tag in _SINGLE}

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


def find_plainly(data: bytes, start: int, stop: int, allowance: Allowance) -> Plain | None:
    """Look at a TensorProto that is written as nearly everyone writes it: dtype, shape, then values of one field.

    Returns:
        None if it is written in any other way, or broken: see `find_values`.

    Raises:
        WireError: It holds more strings, or more dimensions, than are allowed.
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
    allowance.take(len(shape) >> 1)  # no field takes less than two bytes
    # All lengths were taken at their word; the end is right only if none of them reaches beyond the message.
    if first + size == stop and size and tag < 0x80:
        if tag == _CONTENT:
            return Plain(dtype, shape, kind, first, is_content=True)
        if tag == kind.field_number << 3 | 2 and kind is not STRING:
            is_whole = kind.encoding == "varint" or size % (kind.itemsize // kind.parts) == 0
            return Plain(dtype, shape, kind, first) if is_whole else None
    if tag == _STRING and kind is STRING:
        strings, end = _count_strings(data, values, stop, allowance.strings)
        if end == stop:
            allowance.take(0, strings)
            return Plain(dtype, shape, kind, values, strings=strings)
    return None


def _count_strings(data: bytes, start: int, stop: int, most: int) -> tuple[int, int]:
    """How many entries of string_val follow one another from `start` on, and where they end; stops beyond `most`."""
    count = 0
    try:
        while start + 1 < stop and data[start] == _STRING and count <= most:
            size = data[start + 1]
            end = start + 2 + size
            if size >= 0x80:
                size, begin = long_size(data, start + 1)
                end = begin + size
            if end > stop:
                break
            start = end
            count += 1
    except (IndexError, WireError):
        pass  # what is no entry is for `fields` to find
    return count, start


class Piece(NamedTuple):
    """A field of a TensorProto, or several alike in a row.

    Attributes:
        tag: Theirs: field number << 3 | wire type.
        start: Where the payload of the field starts, or the first tag of several fields.
        stop: Where they end.
        entries: How many strings several fields are; 1 of numbers; 0 for one field.
    """

    tag: int
    start: int
    stop: int
    entries: int = 0


def _pieces(data: bytes, start: int, stop: int, depth: int, allowance: Allowance) -> Iterator[Piece]:
    """What `fields` yields, but all that follows a string or number in the same form comes as pieces of several."""
    while start < stop:
        for tag, begin, end in fields(data, start, stop, depth, allowance):
            yield Piece(tag, begin, end)
            start = end
            if tag == _STRING or tag in _RUNS:
                for more in _alike(data, end, stop, tag, allowance):
                    yield more
                    start = more.stop
                if start != end:
                    break  # and go on behind them


def _alike(data: bytes, start: int, stop: int, tag: int, allowance: Allowance) -> Iterator[Piece]:
    """Fields like the one that ended at `start`."""
    if tag == _STRING:
        count, end = _count_strings(data, start, stop, allowance.strings)
        allowance.take(0, count)
        if count:
            yield Piece(tag, start, end, count)
        return
    while found := _RUNS[tag].match(data, start, min(start + _RUN_BYTES, stop)):
        yield Piece(tag, start, found.end(), 1)
        start = found.end()


def slices(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    """Copy `data[start:stop]` bit by bit: between the pieces, and in b"".join, other threads get on."""
    for begin in range(start, stop, _SLICE_BYTES):
        yield data[begin : min(begin + _SLICE_BYTES, stop)]


def _packed(run: bytes) -> bytes:
    """The packed form of entries of one field: protobuf writes what it has read that way."""
    whole = tensor_pb2.TensorProto.FromString(run).SerializeToString()
    _, begin, end = next(fields(whole, 0, len(whole)))
    return whole[begin:end]


@dataclass(slots=True)
class Found:
    """What a look through a TensorProto has found.

    Attributes:
        data: Bytes that hold the message.
        start: Where it starts.
        stop: Where it ends.
        depth: How many more levels of groups are allowed.
        allowance: What its fields are taken from.
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
    allowance: Allowance
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
        joined: list[bytes] = []
        for tag, begin, end, entries in _pieces(self.data, self.start, self.stop, self.depth, self.allowance):
            if tag in _PACKED:
                _check(self.data, begin, end, _PACKED[tag], deep=True)
            if (tag in _PACKED or tag in _SINGLE) and tag >> 3 == wanted >> 3:
                joined += (_packed(self.data[begin:end]),) if entries else slices(self.data, begin, end)
        whole = b"".join(joined)
        return whole, 0, len(whole)


def find_values(  # noqa: PLR0917 - what `scan_tensor` was told
    alias: str, data: bytes, start: int, stop: int, depth: int, allowance: Allowance
) -> Found:
    """Look through the TensorProto in `data[start:stop]`.

    Raises:
        WireError: The bytes are no TensorProto, or have more fields than are allowed.
        MalformedTensor: It holds resource handles or variants, or a monstrous shape.
    """
    dtype = strings = 0
    shapes: list[bytes] = []
    shape_bytes = 0
    content: tuple[int, int] | None = None
    packed: dict[int, tuple[int, int]] = {}
    usual = True
    for tag, begin, end, entries in _pieces(data, start, stop, depth, allowance):
        if tag == _DTYPE:
            dtype = int32(varint(data, begin)[0])
        elif tag == _SHAPE:
            shape_bytes += end - begin
            allowance.take((end - begin) >> 1)  # no field takes less than two bytes
            if shape_bytes > MAX_SHAPE_BYTES:
                raise MalformedTensor(alias, f"a shape of more than {MAX_SHAPE_BYTES} bytes")
            if end > begin:
                shapes.append(data[begin:end])
        elif tag == _STRING:
            strings += entries or 1
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
    return Found(data, start, stop, depth, allowance, dtype, shapes, content, strings, packed, usual)


def _check(data: bytes, start: int, stop: int, kind: ElementType, *, deep: bool) -> None:
    """Check packed values; varints only if `deep`, since who reads them checks them too."""
    if kind.encoding == "fixed":
        if (stop - start) % (kind.itemsize // kind.parts):
            raise WireError(f"{kind.field} ends within a value")
    elif deep:
        for _ in varint_blocks(data, start, stop, kind):
            pass
