"""A large message parsed by protobuf, some of it at a time, so that no call into C keeps other threads waiting long.

Parsing messages one after the other into the same one is parsing all of their bytes at once: that is protobuf's rule of
merging. So a message may be cut between its fields; and within a field that is a message by itself, and not one of
many, if each part is made such a field again.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar, Union

from google.protobuf.message import Message

from server.wire.encoding import length_delimited
from server.wire.scanner import MAX_DEPTH, Allowance, fields

PART_BYTES = 1 << 18
"""Of a message that are parsed at once, unless one field has more: about ten milliseconds at the worst."""

Inner = Mapping[int, Union["Inner", None]]
"""Tags of a message's fields that may be cut: each a message, of which there is one; and theirs."""

T = TypeVar("T", bound=Message)


def parse_in_parts(kind: type[T], data: bytes, inner: Inner, allowance: Allowance | None = None) -> T:
    """Parse a message as `kind.FromString` does.

    Args:
        kind: What it is.
        data: Its bytes.
        inner: Where it may be cut.
        allowance: What the fields of all messages that are cut are taken from; by default there is enough.

    Raises:
        DecodeError: They are no such message.
        WireError: The same, or it has more fields than are allowed.
    """
    if len(data) <= PART_BYTES:
        return kind.FromString(data)
    message = kind()
    for part in _parts(data, 0, len(data), inner, allowance or Allowance(len(data)), MAX_DEPTH):
        message.MergeFromString(part)
    return message


def _parts(  # noqa: PLR0917 - a place, and what is allowed there
    data: bytes, start: int, stop: int, inner: Inner, allowance: Allowance, depth: int
) -> Iterator[bytes]:
    """Messages that merge to the one in `data[start:stop]`."""
    end = start
    for tag, begin, after in fields(data, start, stop, depth, allowance):
        if tag in inner and after - begin > PART_BYTES:
            if end > start:
                yield data[start:end]
            for part in _parts(data, begin, after, inner[tag] or {}, allowance, depth - 1):
                yield length_delimited(tag >> 3, part)
            start = after
        elif after - start > PART_BYTES:
            yield data[start:after]
            start = after
        end = after
    if end > start:
        yield data[start:end]
