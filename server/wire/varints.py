"""Packed varints to numpy arrays, block by block, so that scratch space stays small whatever is sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.wire.dtypes import ElementType
from server.wire.encoding import length_delimited
from server.wire.scanner import WireError

_BLOCK = 1 << 18  # bytes decoded at a time


def count_varints(data: bytes, start: int, stop: int) -> int:
    """How many varints end in `data[start:stop]`."""
    counted = 0
    for begin in range(start, stop, _BLOCK):
        block = np.frombuffer(data, np.uint8, min(_BLOCK, stop - begin), begin)
        counted += int(np.count_nonzero(block < 0x80))
    return counted


def varint_blocks(data: bytes, start: int, stop: int, kind: ElementType) -> Iterator[NDArray[Any]]:
    """Yield all varints of `data[start:stop]`, some at a time, as the field of an element type has them.

    Raises:
        WireError: They do not end where the data ends.
        DecodeError: One takes more than ten bytes.
    """
    while start < stop:
        end = min(start + _BLOCK, stop)
        if end < stop:
            end = _end_of_varint(data, start, end)
        block = data[start:end]
        if block.isascii():  # every varint is a single byte: small numbers, and all bools
            yield np.frombuffer(block, np.uint8)
        elif block[-1] >= 0x80:
            raise WireError("it ends within a varint")
        else:  # numpy has no operation that beats protobuf's C loop
            message = tensor_pb2.TensorProto.FromString(length_delimited(kind.field_number, block))
            yield np.array(getattr(message, kind.field))
        start = end


def _end_of_varint(data: bytes, start: int, stop: int) -> int:
    """The last place in `data[start:stop]` at which a varint ends."""
    for end in range(stop, max(start, stop - 10), -1):
        if data[end - 1] < 0x80:
            return end
    raise WireError("it has a varint of more than ten bytes")
