"""What is known of a tensor: its shape, where its rows are, and its content if that is a few numbers. Pure.

The claim behind each value, for any number of rows and any inputs:
- `axis` is None: the tensor is the same whatever the rows hold and however many there are, but for the numbers in
  `content`, which say themselves how they depend on the number of rows;
- `axis` is a number: along that axis the rows lie one after the other, each taking size / BATCH places, and what lies
  in a row's places depends on that row of the inputs alone. No other axis depends on the number of rows.
What cannot be claimed is not a value: rules raise Unproved instead.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.rows.dimensions import ONE, Number, Unproved, computed, symbol

Shape = tuple[Number, ...]
Content = npt.NDArray[Any]  # of Numbers
MAX_CONTENT: Final = 256
"""Tensors with more elements are known by their shape alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """See the module. `shape` is None for unknown rank, which only values without rows may have."""

    shape: Shape | None
    axis: int | None = None
    content: Content | None = None

    @property
    def has_sizes(self) -> bool:
        """True if its content depends on the number of rows."""
        return self.content is not None and any(number.has_batch for number in self.content.flat)

    @property
    def other(self) -> "Value":
        """A tensor of the same form with other elements.

        Raises:
            Unproved: its content, which others are computed from, depends on the number of rows.
        """
        refuse_sizes(self)
        return Value(self.shape, self.axis)

    @property
    def dims(self) -> Shape:
        """The shape.

        Raises:
            Unproved: the rank is not known.
        """
        if self.shape is None:
            raise Unproved("it takes a tensor of unknown rank")
        return self.shape

    @property
    def numbers(self) -> list[Number]:
        """The content in order.

        Raises:
            Unproved: it is not known.
        """
        if self.content is None:
            raise Unproved("it takes numbers that the analysis does not know")
        return list(self.content.flat)


def same(shape: Sequence[Number] | None) -> Value:
    """A tensor that no row has a part in."""
    return Value(None if shape is None else tuple(shape))


def content_of(numbers: Iterable[Number], shape: Sequence[int]) -> Content:
    """Numbers, in order, as an array of a shape."""
    flat = list(numbers)
    content = np.empty(len(flat), dtype=object)
    content[:] = flat
    return content.reshape(shape)


def numbers_of(content: Content) -> Value:
    """A tensor of known numbers, which may depend on the number of rows."""
    shape = tuple(Number(size) for size in content.shape)
    if content.size <= MAX_CONTENT:
        return Value(shape, None, content)
    if any(number.has_batch for number in content.flat):
        raise Unproved("too many numbers depend on how many rows there are")
    return same(shape)


def constant(array: npt.NDArray[Any]) -> Value:
    """A tensor of the graph itself."""
    if array.size > MAX_CONTENT or array.dtype.kind not in "biuf":
        return same([Number(size) for size in array.shape])
    return numbers_of(content_of((_number(item) for item in array.ravel().tolist()), array.shape))


def _number(item: float) -> Number:
    if not np.isfinite(item):
        return symbol(repr(item), whole=False)
    return Number(int(item) if item == int(item) else Fraction(item))


def in_rows(shape: Sequence[Number], axis: int) -> Value:
    """A tensor whose rows lie along an axis.

    Raises:
        Unproved: its shape says otherwise.
    """
    if [dim.has_batch for dim in shape] != [index == axis for index in range(len(shape))] or not shape[axis].per_row:
        raise Unproved("more than one axis depends on how many rows there are")
    return Value(tuple(shape), axis)


def shaped(shape: Sequence[Number]) -> Value:
    """A tensor of the same number everywhere: its rows lie where its shape depends on how many there are."""
    axes = [index for index, dim in enumerate(shape) if dim.has_batch]
    return in_rows(shape, axes[0]) if axes else same(shape)


def content_or_names(value: Value, name: Number) -> Content | None:
    """The content; for a few numbers that are not known, symbols made from a name; None for anything else."""
    if value.content is not None:
        return value.content
    if value.axis is not None or value.shape is None or any(size.value is None for size in value.shape):
        return None
    sizes = [int(size.factor) for size in value.shape]
    if math.prod(sizes) > MAX_CONTENT:
        return None
    return content_of((symbol(f"{name}[{index}]", whole=False) for index in range(math.prod(sizes))), sizes)


def refuse_sizes(*values: Value | None) -> None:
    """Let no number that depends on the number of rows become part of a computation.

    Raises:
        Unproved: one would.
    """
    if any(value is not None and value.has_sizes for value in values):
        raise Unproved("it computes with the number of rows")


def refuse_rows(*values: Value | None) -> None:
    """Let only what is the same for every row be here.

    Raises:
        Unproved: something else is.
    """
    if any(value is not None and (value.axis is not None or value.has_sizes) for value in values):
        raise Unproved("an operand that must be the same for all rows depends on them")


def require_axis(value: Value, *axes: int) -> None:
    """Let rows lie along these axes alone, if the value has rows at all.

    Raises:
        Unproved: they lie along another.
    """
    if value.axis is not None and value.axis not in axes:
        raise Unproved(f"it works along axis {value.axis}, where the rows are")


def forbid_axis(value: Value, *axes: int) -> None:
    """Let rows lie along none of these axes, which may be negative.

    Raises:
        Unproved: they lie along one of them.
    """
    if value.axis is not None and value.axis in {axis % len(value.dims) for axis in axes}:
        raise Unproved(f"it works along axis {value.axis}, where the rows are")


def normal(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def broadcast_size(a: Number, b: Number) -> Number:
    """The size of an axis of two tensors that are combined element by element; not that of the rows."""
    if b in {a, ONE}:
        return a
    if a == ONE or b.value is not None:
        return b
    return a if a.value is not None else computed("broadcast", *sorted((a, b), key=str))


def broadcast(values: Sequence[Value]) -> Value:
    """What comes of tensors that are combined element by element, by numpy's rules.

    Raises:
        Unproved: different rows would meet.
    """
    refuse_sizes(*values)
    holders = [value for value in values if value.axis is not None]
    if not holders and any(value.shape is None for value in values):
        return same(None)
    rank = max(len(value.dims) for value in values)
    shape: list[Number] = [ONE] * rank
    for value in values:
        for index, size in enumerate(value.dims, rank - len(value.dims)):
            if not (size.has_batch or shape[index].has_batch):
                shape[index] = broadcast_size(shape[index], size)
    if not holders:
        return same(shape)
    axis, size = _common_axis(holders, rank)
    for value in values:
        own = axis - (rank - len(value.dims))
        if value.axis is None and own >= 0 and value.dims[own] != ONE:
            raise Unproved("rows are combined with a tensor that has several elements along their axis")
    shape[axis] = size
    return in_rows(shape, axis)


def _common_axis(holders: Sequence[Value], rank: int) -> tuple[int, Number]:
    """Where the rows of all lie once they are aligned at their last axes, and the size there."""
    found = {(rank - len(v.dims) + v.axis, v.dims[v.axis]) for v in holders if v.axis is not None}
    if len(found) != 1:
        raise Unproved("rows are combined that lie along different axes")
    return found.pop()
