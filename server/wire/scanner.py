"""Protobuf's wire format, read field by field without building messages.

What is accepted is what protobuf's own parser accepts, down to overlong varints and unknown groups
(https://protobuf.dev/programming-guides/encoding/, and upb's behaviour, which the tests compare with). What
the fields mean is for the caller to know.
"""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)
"""Wire types: the lowest three bits of a tag."""

MAX_DEPTH = 100
"""Messages and groups may be nested this deep, as in protobuf's own parser."""

MAX_FIELDS = 1 << 18
"""Fields of one message that are looked at one by one, its inner messages' too: hundreds of times what clients send."""

MAX_STRINGS = 1 << 24
"""Strings in the tensors of one message: an array of more would take more than a GiB."""

_MAX_SIZE = 2**31 - 1
_TRUNCATED = "it ends within a field"


class WireError(ValueError):
    """The bytes break the wire format; the text says how. Callers raise an error that names the message."""


class Allowance:
    """What reading one message may cost, so that no message keeps a thread for minutes; its inner messages share it.

    A field takes about a microsecond of Python, and as few as two bytes.
    """

    __slots__ = ("_most", "fields", "strings")

    def __init__(self, fields: int = MAX_FIELDS, strings: int = MAX_STRINGS) -> None:
        """Allow so many fields, and entries of string_val beside them, which cost a tenth."""
        self.fields = fields
        self.strings = strings
        self._most = fields, strings

    def take(self, fields: int, strings: int = 0) -> None:
        """Use some of it.

        Raises:
            WireError: There is not so much left.
        """
        self.fields -= fields
        self.strings -= strings
        if self.fields < 0:
            raise WireError(f"it has more than {self._most[0]} fields beside strings and numbers")
        if self.strings < 0:
            raise WireError(f"it has more than {self._most[1]} strings")


def fields(
    data: bytes, start: int, stop: int, depth: int = MAX_DEPTH, allowance: Allowance | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yield the fields of the message in `data[start:stop]`, in wire order.

    Args:
        data: Bytes that hold the message.
        start: Where the message starts.
        stop: Where it ends.
        depth: How many more levels of groups are allowed.
        allowance: What the fields are taken from; by default there is enough.

    Yields:
        Tag (field number << 3 | wire type), and where the field's payload starts and ends: that of a varint
        or a fixed-width field is its value, that of a length-delimited one is what follows its length, that
        of a group is all up to and including its end tag.

    Raises:
        WireError: The message is cut off or breaks the wire format, or has more fields than are allowed.
    """
    position = start
    allowance = allowance or Allowance(stop - start)  # no field takes less than two bytes
    try:
        while position < stop:
            tag = data[position]
            position += 1
            if tag >= 0x80:
                tag, position = _long_tag(data, position - 1)
            wire_type = tag & 7
            if wire_type == LENGTH:
                end = data[position]
                position += 1
                if end >= 0x80:
                    end, position = long_size(data, position - 1)
                end += position
            else:
                end = _skip(data, position, stop, tag, depth, allowance)
            allowance.fields -= 1
            if allowance.fields < 0:
                allowance.take(0)
            if end > stop:
                raise WireError(_TRUNCATED)
            if tag < 8:
                raise WireError("it has a field with the number 0")
            yield tag, position, end
            position = end
    except IndexError:
        raise WireError(_TRUNCATED) from None


def varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned 64-bit varint.

    Returns:
        The value, and the position behind it.

    Raises:
        WireError: It takes more than ten bytes.
        IndexError: The data ends within it.
    """
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise WireError("it has a varint of more than ten bytes")


def int32(value: int) -> int:
    """What protobuf makes of a varint in a signed field of 32 bits: its lower half."""
    value &= 0xFFFF_FFFF
    return value - 2**32 if value >= 2**31 else value


def int64(value: int) -> int:
    """What protobuf makes of a varint in a signed field of 64 bits."""
    return value - 2**64 if value >= 2**63 else value


def _long_tag(data: bytes, position: int) -> tuple[int, int]:
    tag, end = varint(data, position)
    if end - position > 5 or tag > 0xFFFF_FFFF:
        raise WireError("it has a field number that is too large")
    return tag, end


def long_size(data: bytes, position: int) -> tuple[int, int]:
    """Read the length of a length-delimited field.

    Returns:
        The length, and the position behind it.

    Raises:
        WireError: It takes more than five bytes, or is too large.
        IndexError: The data ends within it.
    """
    size, end = varint(data, position)
    if end - position > 5 or size > _MAX_SIZE:
        raise WireError("it has a field of more than 2 GiB")
    return size, end


def _skip(  # noqa: PLR0917 - what `fields` knows
    data: bytes, position: int, stop: int, tag: int, depth: int, allowance: Allowance
) -> int:
    """Find the end of a field's payload, for all wire types."""
    match tag & 7:
        case 0:  # VARINT
            return varint(data, position)[1]
        case 1:  # FIXED64
            return position + 8
        case 2:  # LENGTH
            size, position = long_size(data, position)
            return position + size
        case 3:  # GROUP
            return _skip_group(data, position, stop, tag, depth, allowance)
        case 5:  # FIXED32
            return position + 4
    raise WireError("it has a field of an impossible wire type")


def _skip_group(  # noqa: PLR0917 - what `fields` knows
    data: bytes, position: int, stop: int, tag: int, depth: int, allowance: Allowance
) -> int:
    """Find the end of a group: the end tag with the number of its start tag, past all that it holds."""
    open_groups = [tag]
    while open_groups:
        if len(open_groups) > depth:
            raise WireError(f"it nests more than {MAX_DEPTH} levels deep")
        if position >= stop:
            raise WireError(_TRUNCATED)
        allowance.take(1)
        inner, position = _long_tag(data, position)
        if inner & 7 == GROUP:
            open_groups.append(inner)
        elif inner & 7 == GROUP_END:
            if inner - 1 != open_groups.pop():
                raise WireError("it has a group that ends with another group's tag")
        else:
            position = _skip(data, position, stop, inner, depth, allowance)
    return position
