"""Rules of operators that change shapes, and of those that ask for them. Pure."""

from collections.abc import Sequence

import numpy as np
from onnx import numpy_helper

from converter.rows.dimensions import ONE, Number, Unproved, computed, divided, product
from converter.rows.nodes import Inputs, Node, axes_of, given, optional, rule, whole_numbers
from converter.rows.values import (
    MAX_CONTENT,
    Shape,
    Value,
    broadcast_size,
    constant,
    content_of,
    in_rows,
    normal,
    numbers_of,
    refuse_rows,
    refuse_sizes,
    same,
    shaped,
)


@rule("Shape")
def shape_of(node: Node, inputs: Inputs) -> list[Value]:
    """The sizes of the axes, as numbers."""
    value = given(inputs, 0)
    if value.shape is None:
        return [same(None)]
    sizes = value.shape[node.integer("start", 0) : node.attributes.get("end")]
    return [numbers_of(content_of(sizes, [len(sizes)]))]


@rule("Size")
def size_of(_node: Node, inputs: Inputs) -> list[Value]:
    """The number of elements."""
    return [numbers_of(content_of([product(given(inputs, 0).dims)], []))]


@rule("Reshape")
def reshape(node: Node, inputs: Inputs) -> list[Value]:
    """The same elements in the same order."""
    value, wanted = given(inputs, 0), given(inputs, 1)
    if wanted.content is None:
        refuse_rows(value, wanted)
        return [same(None)]
    if value.shape is None:
        if wanted.has_sizes:
            raise Unproved("it takes a tensor of unknown rank")
        sizes = [node.unknown(i) if n.value == -1 else n for i, n in enumerate(wanted.numbers)]
        return [same(sizes)]
    return [reshaped(value, _resolved(value.shape, wanted.numbers, keep=not node.integer("allowzero", 0)))]


def _resolved(old: Shape, wanted: Sequence[Number], *, keep: bool) -> list[Number]:
    """The new shape, with 0 and -1 replaced by what they stand for."""
    new = [old[i] if keep and number.value == 0 and i < len(old) else number for i, number in enumerate(wanted)]
    free = [index for index, number in enumerate(new) if number.value == -1]
    if free:
        total, rest = product(old), product(number for number in new if number.value != -1)
        exact = divided(total, rest)
        if exact is None and total.has_batch and rest.has_batch:
            total, rest = total.per_row or total, rest.per_row or rest
        new[free[0]] = computed("div", total, rest) if exact is None else exact
    return new


def reshaped(value: Value, new: Sequence[Number]) -> Value:
    """The same elements in the same order, in a shape without -1.

    The row of an element is known by its place: (place // elements after the rows' axis, of a row) modulo the number of
    rows. So rows stay together where as many elements as before lie before their axis.

    Raises:
        Unproved: rows do not stay together.
    """
    if value.axis is None:
        if value.content is not None and all(isinstance(number.value, int) for number in new):
            return numbers_of(value.content.reshape([int(number.factor) for number in new]))
        refuse_sizes(value)
        if any(number.has_batch for number in new):
            raise Unproved("it gives rows to a tensor that has none")
        return same(new)
    axes = [index for index, number in enumerate(new) if number.has_batch]
    if len(axes) != 1 or product(new[: axes[0]]) != product(value.dims[: value.axis]):
        raise Unproved("it does not keep the elements of a row together")
    return in_rows(new, axes[0])


@rule("Flatten")
def flatten(node: Node, inputs: Inputs) -> list[Value]:
    """All axes made two."""
    value = given(inputs, 0)
    axis = normal(node.integer("axis", 1), len(value.dims))
    return [reshaped(value, [product(value.dims[:axis]), product(value.dims[axis:])])]


@rule("Transpose")
def transpose(node: Node, inputs: Inputs) -> list[Value]:
    """The axes in another order."""
    value = given(inputs, 0)
    if value.shape is None:
        return [same(None)]
    order = node.integers("perm") or list(range(len(value.shape)))[::-1]
    shape = [value.shape[axis] for axis in order]
    if value.content is not None:
        return [numbers_of(value.content.transpose(order))]
    return [same(shape) if value.axis is None else in_rows(shape, order.index(value.axis))]


@rule("Unsqueeze")
def unsqueeze(node: Node, inputs: Inputs) -> list[Value]:
    """Axes of one element added."""
    value = given(inputs, 0)
    if value.shape is None:
        return [same(None)]
    added = node.integers("axes")
    if added is None:
        added = whole_numbers(given(inputs, 1))
    rank = len(value.shape) + len(added)
    old = iter(value.shape)
    places = {axis % rank for axis in added}
    return [_renumbered(value, [ONE if axis in places else next(old) for axis in range(rank)])]


@rule("Squeeze")
def squeeze(node: Node, inputs: Inputs) -> list[Value]:
    """Axes of one element dropped."""
    value = given(inputs, 0)
    if value.shape is None:
        return [same(None)]
    axes = axes_of(node, inputs, 1, len(value.shape))
    if axes is None:
        if any(size.value is None for size in value.shape):
            raise Unproved("it drops whatever axes have one element")
        axes = [axis for axis, size in enumerate(value.shape) if size == ONE]
    if value.axis in axes:
        raise Unproved("it drops the axis of the rows")
    return [_renumbered(value, [size for axis, size in enumerate(value.shape) if axis not in axes])]


def _renumbered(value: Value, shape: Sequence[Number]) -> Value:
    """The same tensor with axes of one element added or dropped."""
    if value.content is not None:
        return numbers_of(value.content.reshape([int(size.factor) for size in shape]))
    if value.axis is None:
        return same(shape)
    return in_rows(shape, next(index for index, size in enumerate(shape) if size.has_batch))


@rule("Expand")
def expand(_node: Node, inputs: Inputs) -> list[Value]:
    """Repeats axes of one element."""
    value, wanted = given(inputs, 0), given(inputs, 1)
    if wanted.content is None:
        refuse_rows(value, wanted)
        return [same(None)]
    numbers, old = wanted.numbers, list(value.dims)
    rank = max(len(numbers), len(old))
    numbers, old = [ONE] * (rank - len(numbers)) + numbers, [ONE] * (rank - len(old)) + old
    shape = []
    for have, want in zip(old, numbers, strict=True):
        if have.has_batch or want.has_batch:
            if have != want and ONE not in {have, want}:
                raise Unproved("it expands rows to another number of them")
            shape.append(want if have == ONE else have)
        else:
            shape.append(broadcast_size(have, want))
    refuse_sizes(value)
    return [shaped(shape) if value.axis is None else in_rows(shape, rank - len(value.dims) + value.axis)]


@rule("Tile")
def tile(node: Node, inputs: Inputs) -> list[Value]:
    """Repeats the tensor along each axis."""
    value, times = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value)
    if times.content is None:
        refuse_rows(value, times)
        return [node.unknown_shape(value)]
    if value.axis is None:
        return [shaped([size * count for size, count in zip(value.dims, times.numbers, strict=True)])]
    if times.numbers[value.axis] != ONE:
        raise Unproved("it repeats the rows")
    return [in_rows([size * count for size, count in zip(value.dims, times.numbers, strict=True)], value.axis)]


@rule("ConstantOfShape")
def constant_of_shape(node: Node, inputs: Inputs) -> list[Value]:
    """One number everywhere."""
    sizes = given(inputs, 0)
    if sizes.content is None:
        refuse_rows(sizes)
        return [same(None)]
    fill = node.attributes.get("value")
    number = constant(np.zeros(1) if fill is None else numpy_helper.to_array(fill)).content
    plain = [size.value for size in sizes.numbers]
    if number is not None and all(isinstance(size, int) for size in plain):
        shape = [int(size) for size in plain if size is not None]
        if int(np.prod(shape)) <= MAX_CONTENT:
            return [numbers_of(np.broadcast_to(number.reshape([1] * len(shape)), shape))]
    return [shaped(sizes.numbers)]


@rule("Pad")
def pad(node: Node, inputs: Inputs) -> list[Value]:
    """Elements added at the ends of axes."""
    value, pads = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value)
    refuse_rows(*(each for each in inputs[1:] if each is not None))
    if value.axis is None:
        return [node.unknown_shape(value)]
    numbers = pads.numbers
    listed = optional(inputs, 3)
    axes = (
        list(range(len(value.dims))) if listed is None else [normal(a, len(value.dims)) for a in whole_numbers(listed)]
    )
    shape = list(value.dims)
    for position, axis in enumerate(axes):
        before, after = numbers[position], numbers[position + len(axes)]
        if axis == value.axis:
            if (before.value, after.value) != (0, 0):
                raise Unproved("it adds rows")
            continue
        parts = (shape[axis], before, after)
        plain = [part.value for part in parts]
        shape[axis] = (
            Number(sum(int(part) for part in plain if part is not None))
            if None not in plain
            else shape[axis]
            if plain[1:] == [0, 0]
            else computed("pad", *parts)
        )
    return [in_rows(shape, value.axis)]


@rule("Range")
def sequence(node: Node, inputs: Inputs) -> list[Value]:
    """Numbers from the first to before the second."""
    values = [given(inputs, index) for index in range(3)]
    refuse_rows(*values)
    if any(value.content is None for value in values):
        return [same([node.unknown()])]
    start, limit, step = (value.numbers[0] for value in values)
    if start.value == 0 and step.value == 1:
        return [same([limit])]
    return [same([computed("range", start, limit, step)])]
