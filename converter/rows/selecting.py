"""Rules of operators that take tensors apart and put them together. Pure."""

from typing import Final

import numpy as np

from converter.rows.dimensions import ONE, Number, Unproved, add, computed
from converter.rows.nodes import Inputs, Node, axes_of, given, optional, present, rule, whole_numbers
from converter.rows.values import (
    MAX_CONTENT,
    Content,
    Value,
    content_or_names,
    forbid_axis,
    in_rows,
    normal,
    numbers_of,
    refuse_rows,
    refuse_sizes,
    same,
)

_WHOLE: Final = 10**9  # an end from here on is the axis's own end: models write what they hold to be enough


@rule("Concat")
def concat(node: Node, inputs: Inputs) -> list[Value]:
    """Tensors one after the other along an axis."""
    values = present(inputs)
    if all(value.axis is None for value in values):
        contents = [content_or_names(value, node.unknown(index)) for index, value in enumerate(values)]
        known = [content for content in contents if content is not None]
        if len(known) == len(values) and sum(content.size for content in known) <= MAX_CONTENT:
            return [numbers_of(np.concatenate(known, node.integer("axis", 0)))]
    refuse_sizes(*values)
    holders = [value for value in values if value.axis is not None]
    if not holders and any(value.shape is None for value in values):
        return [same(None)]
    rank = len(values[0].dims)
    axis = normal(node.integer("axis", 0), rank)
    shape = list((holders or values)[0].dims)
    shape[axis] = values[0].dims[axis]
    for value in values[1:]:
        shape[axis] = _sum(shape[axis], value.dims[axis])
    if not holders:
        return [same(shape)]
    places = {(value.axis, value.dims[value.axis]) for value in holders if value.axis is not None}
    if len(holders) != len(values) or len(places) != 1:
        raise Unproved("it puts rows together with what is not laid out in the same rows")
    forbid_axis(holders[0], axis)
    return [in_rows(shape, places.pop()[0])]


def _sum(a: Number, b: Number) -> Number:
    if a.has_batch or b.has_batch:
        raise Unproved("it puts rows one after the other")
    return add(a, b)


@rule("Split")
def split(node: Node, inputs: Inputs) -> list[Value]:
    """A tensor in pieces along an axis."""
    value, sizes = given(inputs, 0), optional(inputs, 1)
    refuse_rows(sizes)
    refuse_sizes(value)
    if value.shape is None:
        return [same(None)] * node.outputs
    axis = normal(node.integer("axis", 0), len(value.shape))
    forbid_axis(value, axis)
    whole = value.shape[axis]
    pieces = [computed("split", whole, Number(node.outputs), Number(index)) for index in range(node.outputs)]
    if sizes is not None and sizes.content is not None:
        pieces = sizes.numbers
    elif sizes is not None:
        pieces = [node.unknown(index) for index in range(node.outputs)]
    elif isinstance(whole.value, int) and whole.value % node.outputs == 0:
        pieces = [Number(whole.value // node.outputs)] * node.outputs
    shapes = [[*value.shape[:axis], piece, *value.shape[axis + 1 :]] for piece in pieces]
    return [Value(tuple(shape), value.axis) for shape in shapes]


@rule("Slice")
def cut(node: Node, inputs: Inputs) -> list[Value]:
    """A part of a tensor along some axes."""
    value = given(inputs, 0)
    bounds = inputs[1:]
    if any(bound is not None and bound.axis is not None for bound in bounds):
        raise Unproved("where it cuts depends on the rows")
    if value.shape is None:
        refuse_rows(*bounds)
        return [same(None)]
    starts, ends = _bound(node, inputs, 1), _bound(node, inputs, 2)
    axes = axes_of(node, inputs, 3, len(value.shape)) or list(range(len(starts)))
    steps = _bound(node, inputs, 4) if optional(inputs, 4) else [ONE] * len(starts)
    parts = list(zip(axes, starts, ends, steps, strict=True))
    if value.content is not None and all(number.value is not None for part in parts for number in part[1:]):
        index = [slice(None)] * value.content.ndim
        for axis, start, end, step in parts:
            index[axis] = slice(int(start.factor), int(end.factor), int(step.factor))
            if step.factor < 0 and end.factor < -value.content.shape[axis]:
                index[axis] = slice(int(start.factor), None, int(step.factor))
        return [numbers_of(value.content[tuple(index)])]
    refuse_sizes(value)
    shape = list(value.shape)
    for axis, start, end, step in parts:
        shape[axis] = _cut_size(shape[axis], start, end, step)
    return [Value(tuple(shape), value.axis)]


def _bound(node: Node, inputs: Inputs, index: int) -> list[Number]:
    content = content_or_names(given(inputs, index), node.unknown(index))
    if content is None:
        raise Unproved("where it cuts is not known")
    return list(content.flat)


def _cut_size(size: Number, start: Number, end: Number, step: Number) -> Number:
    """What is left of an axis.

    Raises:
        Unproved: it is the rows' axis and not all of it is left.
    """
    past_the_end = end == size or (end.value is not None and end.value >= _WHOLE)
    if start.value == 0 and step == ONE and past_the_end:
        return size
    if size.has_batch:
        raise Unproved("it takes some of the rows")
    numbers = [number.value for number in (size, start, end, step)]
    if all(isinstance(number, int) for number in numbers) and numbers[3] != 0:
        whole, *bounds = (int(number) for number in numbers if number is not None)
        return Number(len(range(*slice(*bounds).indices(whole))))
    return computed("slice", size, start, end, step)


@rule("Gather")
def gather(node: Node, inputs: Inputs) -> list[Value]:
    """Slices of a tensor, by their numbers along an axis."""
    value, indices = given(inputs, 0), given(inputs, 1)
    refuse_sizes(indices)
    if value.shape is None or indices.shape is None:
        refuse_rows(value, indices)
        return [same(None)]
    axis = normal(node.integer("axis", 0), len(value.shape))
    if value.content is not None and indices.content is not None:
        picked: Content = np.take(
            value.content, np.array(whole_numbers(indices), int).reshape(indices.content.shape), axis
        )
        return [numbers_of(np.asarray(picked, dtype=object))]
    refuse_sizes(value)
    shape = [*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :]]
    if indices.axis is not None:
        if value.axis is not None:
            raise Unproved("rows choose among rows")
        return [in_rows(shape, axis + indices.axis)]
    forbid_axis(value, axis)
    if value.axis is None:
        return [same(shape)]
    return [in_rows(shape, value.axis if value.axis < axis else value.axis + len(indices.shape) - 1)]


@rule("GatherElements")
def gather_elements(node: Node, inputs: Inputs) -> list[Value]:
    """For each place, an element of the same place but for one axis."""
    value, indices = given(inputs, 0), given(inputs, 1)
    _require_same_rows(value, indices)
    forbid_axis(value, node.integer("axis", 0))
    return [indices.other]


@rule("ScatterElements")
def scatter_elements(node: Node, inputs: Inputs) -> list[Value]:
    """For each place, an element put at the same place but for one axis."""
    value = given(inputs, 0)
    _require_same_rows(value, *present(inputs[1:]))
    forbid_axis(value, node.integer("axis", 0))
    return [value.other]


@rule("ReverseSequence")
def reverse_sequence(node: Node, inputs: Inputs) -> list[Value]:
    """The beginning of each sequence in reverse order."""
    value, lengths = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value, lengths)
    if value.axis is None and lengths.axis is None:
        return [same(value.shape)]
    forbid_axis(value, node.integer("time_axis", 0))
    if lengths.axis is not None:
        batch_axis = node.integer("batch_axis", 1) % len(value.dims)
        if value.axis != batch_axis or value.dims[batch_axis] != lengths.dims[0]:
            raise Unproved("lengths of rows meet other rows")
    elif value.axis == node.integer("batch_axis", 1) % len(value.dims):
        raise Unproved("rows meet lengths that are not theirs")
    return [value.other]


def _require_same_rows(*values: Value) -> None:
    refuse_sizes(*values)
    if all(value.axis is None for value in values):
        return
    places = {(value.axis, None if value.axis is None else value.dims[value.axis]) for value in values}
    if len(places) != 1:
        raise Unproved("rows meet what is not laid out in the same rows")


@rule("GatherND")
def gather_nd(node: Node, inputs: Inputs) -> list[Value]:
    """Slices of a tensor, by several numbers each."""
    value, indices = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value, indices)
    if value.shape is None or indices.shape is None:
        refuse_rows(value, indices)
        return [same(None)]
    depth, batch = indices.shape[-1].value, node.integer("batch_dims", 0)
    if not isinstance(depth, int):
        refuse_rows(value, indices)
        return [same(None)]
    shape = [*indices.shape[:-1], *value.shape[batch + depth :]]
    last = len(indices.shape) - 1
    if value.axis is None and indices.axis is None:
        return [same(shape)]
    forbid_axis(indices, last)
    if indices.axis is None:
        if value.axis is None or value.axis < batch + depth:
            raise Unproved("it picks among the rows")
        return [in_rows(shape, last + value.axis - batch - depth)]
    if value.axis is None and batch == 0:
        return [in_rows(shape, indices.axis)]
    if value.axis != indices.axis or indices.axis >= batch or value.dims[indices.axis] != indices.dims[indices.axis]:
        raise Unproved("rows choose among rows")
    return [in_rows(shape, indices.axis)]


@rule("OneHot")
def one_hot(node: Node, inputs: Inputs) -> list[Value]:
    """An axis with one element set."""
    indices, depth = given(inputs, 0), given(inputs, 1)
    refuse_rows(*inputs[1:])
    refuse_sizes(indices)
    if indices.shape is None:
        return [same(None)]
    axis = normal(node.integer("axis", -1), len(indices.shape) + 1)
    size = node.unknown() if depth.content is None else depth.numbers[0]
    shape = [*indices.shape[:axis], size, *indices.shape[axis:]]
    if indices.axis is None:
        return [same(shape)]
    return [in_rows(shape, indices.axis + (axis <= indices.axis))]


@rule("Trilu")
def triangle(_node: Node, inputs: Inputs) -> list[Value]:
    """One side of the diagonal of the last two axes."""
    value = given(inputs, 0)
    refuse_rows(*inputs[1:])
    refuse_sizes(value)
    forbid_axis(value, -1, -2)
    return [value.other]
