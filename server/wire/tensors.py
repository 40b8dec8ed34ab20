"""One tensor on the wire to one numpy array, by TensorFlow's rules.

A tensor is first only found (`scan_tensor`): its form, and where its values are. Then `RawTensor.to_numpy` checks what
it claims and makes the array. The rules are those of TensorFlow's Tensor::FromProto (tensorflow:
core/framework/tensor.cc); tests compare with it through `tf.io.parse_tensor`. The way back is `server.wire.encoding`.

Memory is bounded by what is sent and what is claimed: numbers are seen where they lie or decoded block by block into
the array itself, and strings become objects one by one, so beside the request and its arrays there is one block.
"""

from collections.abc import Iterator
from enum import Enum
from itertools import islice, repeat
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.errors import MalformedTensor
from server.wire.dtypes import BOOL, STRING, ElementType
from server.wire.forms import TensorForm, form_of
from server.wire.scanner import MAX_DEPTH, Allowance, WireError, fields, varint
from server.wire.values import Plain, find_plainly, find_values
from server.wire.varints import count_varints, varint_blocks

MAX_TENSOR_BYTES = 1 << 30
"""The largest array that a tensor may claim by default: 1 GiB."""

MAX_FILLED_BYTES = 64 << 20
"""The largest array whose values need not all be there: 64 MiB. Ten bytes on the wire can claim it."""

_SHORT = 1 << 12  # bytes: less than a block
_NO_ENTRIES: NDArray[Any] = np.empty(0, np.uint8)

STRING_BYTES = 48
"""What a string takes beside its own bytes and the reference to it: Python's object header, rounded."""


class Source(Enum):
    """Where a tensor's values are."""

    CONTENT = "tensor_content"
    PACKED = "the packed entries of the typed field"
    STRINGS = "entries of string_val, among other fields"


class RawTensor:
    """A tensor of a request, its values still bytes of that request.

    Attributes:
        alias: The signature's name for it.
        form: What it claims to be.
        data: Bytes that hold its values, from `start` to `stop`.
        start: Where the values start, or the message that holds them.
        stop: Where they end.
        source: What is there.
        entries: How many strings there are, if they are entries of string_val.
    """

    __slots__ = ("alias", "data", "entries", "form", "source", "start", "stop")

    def __init__(
        self,
        alias: str,
        form: TensorForm,
        data: bytes = b"",
        start: int = 0,
        stop: int = 0,
        *,
        source: Source = Source.PACKED,
        entries: int = 0,
    ) -> None:
        self.alias = alias
        self.form = form
        self.data = data
        self.start = start
        self.stop = stop
        self.source = source
        self.entries = entries

    @property
    def dtype(self) -> int:
        """DataType number as sent."""
        return self.form.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as sent."""
        return self.form.shape

    @property
    def nbytes(self) -> int:
        """Bytes that the array takes, with the strings that it refers to; known without a look at the values.

        Numbers that lie in the request as they lie in an array are counted too, although they are not copied. What
        `to_numpy` will refuse before it allocates anything, such as a few bytes that claim gibibytes, takes nothing.
        """
        size = self._size()
        refused = size > MAX_TENSOR_BYTES or (self.form.nbytes > MAX_FILLED_BYTES and self._is_short())
        return 0 if refused else size

    def _size(self) -> int:
        """Bytes that an array of this form takes, be it made or refused."""
        form = self.form
        if form.kind is not STRING:
            return form.nbytes
        strings = form.count if self.source is Source.CONTENT else min(self.entries, form.count)
        return form.nbytes + strings * STRING_BYTES + (self.stop - self.start if strings else 0)

    def _is_short(self) -> bool:
        """Whether fewer values are there than the shape has, as far as that is known without a look at them."""
        if self.source is Source.STRINGS:
            return self.entries < self.form.count
        is_raw = self.form.kind is not None and self.form.kind.encoding == "fixed"
        return self.stop - self.start < (self.form.nbytes if is_raw else self.form.count)

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
        form = self.form
        kind = form.kind
        if form.problem or kind is None or self._size() > max_tensor_bytes:
            reason = form.problem or f"an array of {self._size()} bytes; {max_tensor_bytes} are the limit"
            raise MalformedTensor(self.alias, reason)
        if kind is STRING:
            return self._strings(form)
        if self.source is Source.CONTENT:
            self._check_content(form, kind)
        elif kind.encoding == "fixed":
            if self.stop - self.start < form.nbytes:
                return self._filled_up(form, kind)
        else:
            return self._varints(form, kind)
        return np.ndarray(form.shape, kind.dtype, self.data, self.start)

    def check_values(self) -> None:
        """Look at what `scan_tensor` leaves for later, as far as protobuf would look at it.

        Raises:
            MalformedTensor: The typed field is no sequence of varints.
        """
        kind = self.form.kind
        if kind is not None and kind.encoding == "varint" and self.source is Source.PACKED:
            for _ in self._blocks(kind):
                pass

    def _check_content(self, form: TensorForm, kind: ElementType) -> None:
        if form.count == 0:  # TensorFlow looks at no value of an empty tensor
            return
        size = self.stop - self.start
        if size != form.nbytes:
            raise MalformedTensor(self.alias, f"tensor_content has {size} bytes, not {form.nbytes}")
        if kind is BOOL and np.frombuffer(self.data, np.uint8, size, self.start).max() > 1:
            raise MalformedTensor(self.alias, "tensor_content has a bool that is neither 0 nor 1")

    def _check_filling(self, form: TensorForm, entries: int) -> None:
        if form.nbytes > MAX_FILLED_BYTES:
            raise MalformedTensor(self.alias, f"{entries} values for an array of {form.nbytes} bytes")

    def _filled_up(self, form: TensorForm, kind: ElementType) -> NDArray[Any]:
        """Too few values as they lie in an array; what is left of a pair of parts does not count."""
        entries = (self.stop - self.start) // kind.itemsize
        self._check_filling(form, entries)
        filled = np.empty(form.count, kind.dtype)
        filled[:entries] = np.frombuffer(self.data, kind.dtype, entries, self.start) if entries else 0
        filled[entries:] = filled[entries - 1] if entries else 0
        return filled.reshape(form.shape)

    def _varints(self, form: TensorForm, kind: ElementType) -> NDArray[Any]:
        size = self.stop - self.start
        if size <= _SHORT and form.nbytes <= MAX_FILLED_BYTES:
            return self._few_varints(form, kind)
        entries = size if size < form.count else count_varints(self.data, self.start, self.stop)
        if entries < form.count:
            self._check_filling(form, entries)
        array = np.empty(form.count, kind.bits)
        done = 0
        for block in self._blocks(kind):
            kept = block[: form.count - done]
            array[done : done + len(kept)] = kept.astype(kind.bits, copy=False)
            done += len(kept)
        if done < form.count:
            array[done:] = array[done - 1] if done else 0
        return array.view(kind.dtype).reshape(form.shape)

    def _few_varints(self, form: TensorForm, kind: ElementType) -> NDArray[Any]:
        """The same for a few: one block, and what is made on the way is small."""
        array = next(self._blocks(kind), _NO_ENTRIES)[: form.count].astype(kind.bits, copy=False)
        if len(array) < form.count:
            filled = np.empty(form.count, kind.bits)
            filled[: len(array)] = array
            filled[len(array) :] = array[-1] if len(array) else 0
            array = filled
        return array.view(kind.dtype).reshape(form.shape)

    def _blocks(self, kind: ElementType) -> Iterator[NDArray[Any]]:
        """All entries of the typed field, some at a time, as protobuf has them."""
        try:
            yield from varint_blocks(self.data, self.start, self.stop, kind)
        except (WireError, DecodeError) as error:
            raise MalformedTensor(self.alias, f"{kind.field} is corrupt") from error

    def _strings(self, form: TensorForm) -> NDArray[Any]:
        strings: Iterator[bytes]
        if self.source is Source.CONTENT:
            strings = self._content_strings(form.count) if form.count else iter(())
        else:
            if self.entries < form.count:
                self._check_filling(form, self.entries)
            strings = _repeating(self._entry_strings(), form.count)
        return np.fromiter(strings, np.dtype(object), form.count).reshape(form.shape)

    def _entry_strings(self) -> Iterator[bytes]:
        tag = STRING.field_number << 3 | 2
        data, position, stop = self.data, self.start, self.stop
        while position < stop:
            while position < stop and data[position] == tag and data[position + 1] < 0x80:
                begin = position + 2
                position = begin + data[begin - 1]
                yield data[begin:position]
            for found, begin, end in islice(fields(data, position, stop), 1):
                position = end
                if found == tag:
                    yield data[begin:end]

    def _content_strings(self, count: int) -> Iterator[bytes]:
        """Cut TensorFlow's own coding of strings: all lengths as varints of 32 bits, then all bytes."""
        if count > self.stop - self.start:
            raise MalformedTensor(self.alias, "tensor_content is too short for the lengths of its strings")
        position = self.start
        total = 0
        for position, length in self._lengths(count):  # noqa: B007 - where the last one ends the strings begin
            total += length
        if position + total != self.stop:
            raise MalformedTensor(self.alias, "tensor_content does not hold the strings that it announces")
        for _, length in self._lengths(count):
            yield self.data[position : position + length]
            position += length

    def _lengths(self, count: int) -> Iterator[tuple[int, int]]:
        """Where each length ends, and the length."""
        position = self.start
        for _ in range(count):
            try:
                length, end = varint(self.data, position)
            except (IndexError, WireError) as error:
                raise MalformedTensor(self.alias, "tensor_content has no length for each string") from error
            if end > self.stop:
                raise MalformedTensor(self.alias, "tensor_content has no length for each string")
            if end - position > 5:
                raise MalformedTensor(self.alias, "tensor_content has a length of more than 32 bits")
            position = end
            yield position, length & 0xFFFF_FFFF


def scan_tensor(  # noqa: PLR0917 - a place, and what is allowed there
    alias: str, data: bytes, start: int, stop: int, depth: int = MAX_DEPTH, allowance: Allowance | None = None
) -> RawTensor:
    """Find type, shape and values of the TensorProto in `data[start:stop]`, without copying numbers.

    Args:
        alias: The signature's name for it.
        data: Bytes that hold the message.
        start: Where the message starts.
        stop: Where it ends.
        depth: How many more levels of messages and groups are allowed.
        allowance: What its fields are taken from; by default it has its own.

    Raises:
        WireError: The bytes are no TensorProto, or have more fields than are allowed.
        DecodeError: The same, found by protobuf.
        MalformedTensor: It holds resource handles or variants, or a monstrous shape.
    """
    allowance = allowance or Allowance()
    plain = find_plainly(data, start, stop, allowance)
    if plain is not None:
        return _plain_tensor(alias, data, plain, stop, depth)
    found = find_values(alias, data, start, stop, depth, allowance)
    for shape in found.shapes[1:] and found.shapes:
        form_of(found.dtype, shape, depth - 1)  # each must be a message by itself
    form = form_of(found.dtype, b"".join(found.shapes), depth - 1)
    kind = form.kind
    if found.content is not None:
        found.check_typed(None)
        return RawTensor(alias, form, data, *found.content, source=Source.CONTENT)
    if kind is STRING:
        found.check_typed(None)
        return RawTensor(alias, form, data, start, stop, source=Source.STRINGS, entries=found.strings)
    if kind is None:
        found.check_typed(None)
        return RawTensor(alias, form)
    return RawTensor(alias, form, *found.check_typed(kind))


def _plain_tensor(alias: str, data: bytes, plain: Plain, stop: int, depth: int) -> RawTensor:
    form = form_of(plain.dtype, plain.shape, depth - 1)
    if plain.kind is STRING and not plain.is_content:
        return RawTensor(alias, form, data, plain.start, stop, source=Source.STRINGS, entries=plain.strings)
    source = Source.CONTENT if plain.is_content else Source.PACKED
    return RawTensor(alias, form, data, plain.start, stop, source=source)


def tensor_from_proto(
    message: tensor_pb2.TensorProto, alias: str = "", *, max_tensor_bytes: int = MAX_TENSOR_BYTES
) -> NDArray[Any]:
    """Make the array of a TensorProto, as `RawTensor.to_numpy` does.

    Raises:
        MalformedTensor: The tensor does not hold what it claims, or its type is not served.
    """
    data = message.SerializeToString()
    return scan_tensor(alias, data, 0, len(data)).to_numpy(max_tensor_bytes=max_tensor_bytes)


def _repeating(strings: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The first `count` strings; if there are fewer, the last one again and again, or empty ones if there is none."""
    last = b""
    done = 0
    for last in islice(strings, count):
        yield last
        done += 1
    yield from repeat(last, count - done)
