"""Layouts of requests: what a message says apart from its numbers, kept so that its like need not be parsed again.

A message is a row of fields; of a tensor whose values are packed or raw, parsing notes where they lie and never looks
at them. So all that parsing finds follows from the other bytes and from the length of the message: if those are the
same as before, then so is what was found. A layout holds exactly those bytes and is compared with all of them, so that
no message can pass for another; whoever sends odd messages can at most push the layouts of others out.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.wire.dtypes import STRING
from server.wire.forms import TensorForm
from server.wire.tensors import RawTensor, Source

Rest = TypeVar("Rest")

MAX_LAYOUTS = 256
"""Layouts kept, the oldest being dropped for a new one."""

_MAX_BYTES = 4096  # that a layout holds: all of them together take at most a MiB
_MAX_TENSORS = 64
_MAX_ALIKE = 4  # layouts of messages with the same length and beginning
_BEGINNING = 12  # bytes; no number lies so far in front unless the model has no name


@dataclass(frozen=True, slots=True)
class Layout(Generic[Rest]):
    """The layout of one message.

    Attributes:
        pieces: The bytes between the tensors' values, and where each piece lies.
        places: Alias, form, start, stop and source of each tensor.
        rest: What the message says apart from its tensors.
    """

    pieces: tuple[tuple[bytes, int], ...]
    places: tuple[tuple[str, TensorForm, int, int, Source], ...]
    rest: Rest

    def fits(self, data: bytes) -> bool:
        """Whether a message of the same length has this layout."""
        for piece, start in self.pieces:  # noqa: SIM110 - a generator takes longer than what it does
            if not data.startswith(piece, start):
                return False
        return True

    def tensors(self, data: bytes) -> dict[str, RawTensor]:
        """The tensors of a message that has this layout."""
        return {
            alias: RawTensor(alias, form, data, start, stop, source=source)
            for alias, form, start, stop, source in self.places
        }


class Layouts(Generic[Rest]):
    """The layouts seen last. Threads may share it: what it holds is replaced, never changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bytes], tuple[Layout[Rest], ...]] = {}
        self._lock = threading.Lock()  # for who writes; who reads needs none

    def __len__(self) -> int:
        """How many kinds of message are known; each has at most a few layouts."""
        return len(self._kept)

    def find(self, data: bytes) -> Layout[Rest] | None:
        """The layout of a message, if it is known."""
        for layout in self._kept.get((len(data), data[:_BEGINNING]), ()):
            if layout.fits(data):
                return layout
        return None

    def keep(self, data: bytes, layout: Layout[Rest]) -> None:
        """Remember the layout of a message."""
        key = len(data), data[:_BEGINNING]
        with self._lock:
            alike = self._kept.get(key, ())
            self._kept[key] = (layout, *alike[: _MAX_ALIKE - 1])
            if len(self._kept) > MAX_LAYOUTS // _MAX_ALIKE:
                del self._kept[next(iter(self._kept))]


def layout_of(data: bytes, tensors: Mapping[str, RawTensor], rest: Rest) -> Layout[Rest] | None:
    """The layout of a message that has been parsed; None if it is not worth keeping, or follows from its numbers too.

    Args:
        data: The message.
        tensors: What was found in it.
        rest: What else was found.
    """
    if not tensors or len(tensors) > _MAX_TENSORS:
        return None
    values = 0
    for tensor in tensors.values():
        kind = tensor.form.kind
        if tensor.data is not data or kind is None or kind is STRING:
            return None
        size = tensor.stop - tensor.start
        if tensor.source is Source.PACKED and kind.encoding == "varint" and size != tensor.form.count:
            return None  # its length follows from its numbers: the next request has another layout
        values += size
    if len(data) - values > _MAX_BYTES:
        return None
    places = [(each.alias, each.form, each.start, each.stop, each.source) for each in tensors.values()]
    pieces = []
    position = 0
    for _, _, start, stop, _ in sorted(places, key=lambda place: place[2]):
        pieces.append((data[position:start], position))
        position = stop
    pieces.append((data[position:], position))
    return Layout(tuple(pieces), tuple(places), rest)
