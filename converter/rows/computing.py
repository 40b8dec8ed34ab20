"""Rules of operators that combine elements along axes: products, convolutions, reductions, normalisations. Pure."""

from collections.abc import Sequence

from converter.rows.dimensions import ONE, Number, Unproved, computed, product
from converter.rows.nodes import Inputs, Node, axes_of, given, optional, present, rule, whole_numbers
from converter.rows.values import (
    Shape,
    Value,
    broadcast,
    broadcast_size,
    content_or_names,
    forbid_axis,
    in_rows,
    normal,
    numbers_of,
    refuse_rows,
    refuse_sizes,
    require_axis,
    same,
)


@rule("MatMul")
def matmul(_node: Node, inputs: Inputs) -> list[Value]:
    """Products of matrices, one for each place of the axes before the last two."""
    a, b = given(inputs, 0), given(inputs, 1)
    refuse_sizes(a, b)
    if a.axis is None and b.axis is None and (a.shape is None or b.shape is None):
        return [same(None)]
    left, right = _as_matrices(a, first=True), _as_matrices(b, first=False)
    forbid_axis(left, -1)
    forbid_axis(right, -2)
    rows_left, rows_right = left.axis == len(left.dims) - 2, right.axis == len(right.dims) - 1
    if (rows_left and right.axis is not None) or (rows_right and left.axis is not None):
        raise Unproved("it multiplies rows with rows")
    outer = [_outer(left, rows=rows_left), _outer(right, rows=rows_right)]
    batch = broadcast(outer)
    shape = [*batch.dims, left.dims[-2], right.dims[-1]]
    axis = batch.axis
    if rows_left or rows_right:
        axis = len(shape) - (2 if rows_left else 1)
    dropped = [len(shape) - 2] * (len(a.dims) == 1) + [len(shape) - 1] * (len(b.dims) == 1)
    kept = [size for index, size in enumerate(shape) if index not in dropped]
    return [same(kept) if axis is None else in_rows(kept, axis - sum(index < axis for index in dropped))]


def _as_matrices(value: Value, *, first: bool) -> Value:
    """A vector as a matrix of one row or column."""
    if len(value.dims) > 1:
        return value
    if value.axis is not None:
        raise Unproved("it adds up the rows")
    return same([ONE, *value.dims] if first else [*value.dims, ONE])


def _outer(value: Value, *, rows: bool) -> Value:
    """The axes before the last two."""
    return Value(value.dims[:-2], None if rows else value.axis)


@rule("Gemm")
def gemm(node: Node, inputs: Inputs) -> list[Value]:
    """A product of two matrices, and a third added."""
    a, b = given(inputs, 0), given(inputs, 1)
    refuse_sizes(a, b)
    m, k = (1, 0) if node.integer("transA", 0) else (0, 1)
    inner, n = (1, 0) if node.integer("transB", 0) else (0, 1)
    forbid_axis(a, k)
    forbid_axis(b, inner)
    if a.axis is not None and b.axis is not None:
        raise Unproved("it multiplies rows with rows")
    shape = [a.dims[m], b.dims[n]]
    axis = 0 if a.axis is not None else 1 if b.axis is not None else None
    answer = same(shape) if axis is None else in_rows(shape, axis)
    added = optional(inputs, 2)
    return [answer if added is None else broadcast([answer, added])]


@rule("Einsum")
def einsum(node: Node, inputs: Inputs) -> list[Value]:
    """Products summed over letters that the result has not."""
    values = present(inputs)
    refuse_sizes(*values)
    equation = node.text("equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if not arrow or "." in equation or any(len(t) != len(v.dims) for t, v in zip(letters, values, strict=True)):
        raise Unproved("the equation is not analysed")
    held = {(t[v.axis], v.dims[v.axis]) for t, v in zip(letters, values, strict=True) if v.axis is not None}
    sizes: dict[str, Number] = {}
    for term, value in zip(letters, values, strict=True):
        for letter, size in zip(term, value.dims, strict=True):
            known = sizes.get(letter, ONE)
            sizes[letter] = size if size.has_batch else known if known.has_batch else broadcast_size(known, size)
    shape = [sizes[letter] for letter in result]
    if not held:
        return [same(shape)]
    letter, size = held.pop()
    places = [
        v.axis if v.axis is not None and t.count(letter) == 1 else None for t, v in zip(letters, values, strict=True)
    ]
    shared = [letter in term for term in letters]
    if held or result.count(letter) != 1 or [place is not None for place in places] != shared:
        raise Unproved("it sums over rows or multiplies rows with rows")
    return [in_rows(shape, result.index(letter))]


@rule("Conv", "ConvInteger")
def convolution(node: Node, inputs: Inputs) -> list[Value]:
    """Sums over the channels and a window of the axes from the third on."""
    value, weights = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value)
    refuse_rows(*inputs[1:])
    require_axis(value, 0)
    kernel = weights.dims[2:]
    spatial = [_window(node, index, size, kernel[index]) for index, size in enumerate(value.dims[2:])]
    return [Value((value.dims[0], weights.dims[0], *spatial), value.axis)]


def _window(node: Node, index: int, size: Number, kernel: Number) -> Number:
    """How many places a window has along an axis."""
    rank = len(node.integers("kernel_shape") or []) or index + 1
    stride = (node.integers("strides") or [1] * rank)[index]
    dilation = (node.integers("dilations") or [1] * rank)[index]
    pads = node.integers("pads") or [0] * (2 * rank)
    padding, ceil = node.text("auto_pad", "NOTSET"), node.integer("ceil_mode", 0)
    if not (isinstance(size.value, int) and isinstance(kernel.value, int)):
        numbers = map(Number, (stride, dilation, pads[index], pads[index + len(pads) // 2], ceil))
        return computed(f"window {padding}", size, kernel, *numbers)
    if padding in {"SAME_UPPER", "SAME_LOWER"}:
        return Number(-(-size.value // stride))
    reach = (kernel.value - 1) * dilation + 1
    total = size.value if padding == "VALID" else size.value + pads[index] + pads[index + len(pads) // 2]
    if ceil:  # the runtime's rounding differs between versions at the edge
        return computed("ceil window", *map(Number, (total, reach, stride)))
    return Number((total - reach) // stride + 1)


@rule("ConvTranspose")
def transposed_convolution(node: Node, inputs: Inputs) -> list[Value]:
    """The same backwards."""
    value, weights = given(inputs, 0), given(inputs, 1)
    refuse_sizes(value)
    refuse_rows(*inputs[1:])
    require_axis(value, 0)
    channels = weights.dims[1] * Number(node.integer("group", 1))
    spatial = [node.unknown(index) for index in range(len(value.dims) - 2)]
    wanted = node.integers("output_shape")
    if wanted is not None:
        spatial = [Number(size) for size in wanted]
    return [Value((value.dims[0], channels, *spatial), value.axis)]


@rule("MaxPool", "AveragePool", "LpPool")
def pool(node: Node, inputs: Inputs) -> list[Value]:
    """The largest or the mean of a window of the axes from the third on."""
    if node.outputs > 1:
        raise Unproved("it tells places within the batch")
    value = given(inputs, 0)
    refuse_sizes(value)
    require_axis(value, 0)
    kernel = node.integers("kernel_shape") or []
    spatial = [_window(node, index, size, Number(kernel[index])) for index, size in enumerate(value.dims[2:])]
    return [Value((*value.dims[:2], *spatial), value.axis)]


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(_node: Node, inputs: Inputs) -> list[Value]:
    """The same with a window as large as the axes."""
    value = given(inputs, 0)
    refuse_sizes(value)
    require_axis(value, 0, 1)
    return [Value((*value.dims[:2], *[ONE] * (len(value.dims) - 2)), value.axis)]


@rule("Resize")
def resize(node: Node, inputs: Inputs) -> list[Value]:
    """Interpolation along axes; the rows' axis must be left as it is.

    Inputs: X, region, scales, sizes.
    """
    value, scales, sizes = given(inputs, 0), optional(inputs, 2), optional(inputs, 3)
    refuse_sizes(value)
    refuse_rows(optional(inputs, 1), scales)
    crops = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if crops or "axes" in node.attributes or node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unproved("it is resized in a way that is not analysed")
    if sizes is not None:
        new = sizes.numbers
    else:
        factors = content_or_names(given(inputs, 2), node.unknown())
        if factors is None:
            raise Unproved("how it is resized is not known")
        pairs = zip(value.dims, factors.flat, strict=True)
        new = [_scaled(size, factor) or node.unknown(axis) for axis, (size, factor) in enumerate(pairs)]
    if value.axis is None:
        if any(size.has_batch for size in new):
            raise Unproved("it is resized by the number of rows")
        return [same(new)]
    if new[value.axis] != value.dims[value.axis]:
        raise Unproved("it may resize the axis of the rows")
    return [in_rows(new, value.axis)]


def _scaled(size: Number, factor: Number) -> Number | None:
    """The size after scaling, where nothing is rounded."""
    if factor == ONE:
        return size
    if size.value is None or factor.value is None or (size.value * factor.value).denominator != 1:
        return None
    return Number(int(size.value * factor.value))


@rule("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum")
@rule("ReduceLogSumExp", "ReduceSumSquare")
def reduction(node: Node, inputs: Inputs) -> list[Value]:
    """Axes made one element each, or dropped."""
    value = given(inputs, 0)
    refuse_rows(*inputs[1:])
    if value.shape is None:
        return [same(None)]
    rank = len(value.shape)
    axes = axes_of(node, inputs, 1, rank) if _axes_known(inputs) else None
    if axes is None and not _axes_known(inputs):
        refuse_rows(value)
        return [same(None)]
    if not axes:
        axes = [] if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    if value.content is not None and node.proto.op_type == "ReduceProd" and axes == [0] and rank == 1:
        content = value.content[:1].copy()
        content[0] = product(value.numbers)
        return [numbers_of(content if node.integer("keepdims", 1) else content.reshape(()))]
    return [_reduced(value, axes, keep=bool(node.integer("keepdims", 1)))]


def _axes_known(inputs: Inputs) -> bool:
    listed = optional(inputs, 1)
    return listed is None or listed.content is not None


@rule("ArgMax", "ArgMin")
def arg(node: Node, inputs: Inputs) -> list[Value]:
    """The place of the largest or smallest along an axis."""
    value = given(inputs, 0)
    if value.shape is None:
        return [same(None)]
    axis = normal(node.integer("axis", 0), len(value.shape))
    return [_reduced(value, [axis], keep=bool(node.integer("keepdims", 1)))]


def _reduced(value: Value, axes: Sequence[int], *, keep: bool) -> Value:
    refuse_sizes(value)
    if value.axis in axes:
        raise Unproved(f"it works along axis {value.axis}, where the rows are")
    shape = [ONE if axis in axes else size for axis, size in enumerate(value.dims) if keep or axis not in axes]
    if value.axis is None:
        return same(shape)
    return in_rows(shape, value.axis if keep else value.axis - sum(axis < value.axis for axis in axes))


@rule("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def along_axis(node: Node, inputs: Inputs) -> list[Value]:
    """Each element depends on all along an axis."""
    value = given(inputs, 0)
    refuse_sizes(value)
    if value.axis is not None:
        forbid_axis(value, node.integer("axis", -1))
    return [value.other]


@rule("CumSum")
def cumulative(_node: Node, inputs: Inputs) -> list[Value]:
    """Sums of all before, along an axis."""
    value = given(inputs, 0)
    refuse_sizes(value)
    if value.axis is not None:
        forbid_axis(value, *whole_numbers(given(inputs, 1)))
    return [value.other]


@rule("TopK")
def top(node: Node, inputs: Inputs) -> list[Value]:
    """The largest along an axis, and their places."""
    value, count = given(inputs, 0), given(inputs, 1)
    refuse_rows(count)
    refuse_sizes(value)
    if value.shape is None:
        return [same(None)] * 2
    axis = normal(node.integer("axis", -1), len(value.shape))
    forbid_axis(value, axis)
    shape = list(value.shape)
    shape[axis] = node.unknown() if count.content is None else count.numbers[0]
    return [Value(tuple(shape), value.axis)] * 2


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(node: Node, inputs: Inputs) -> list[Value]:
    """Mean and variance over the last axes."""
    value = given(inputs, 0)
    refuse_sizes(value)
    refuse_rows(*inputs[1:])
    rank = len(value.dims)
    first = normal(node.integer("axis", -1), rank)
    forbid_axis(value, *range(first, rank))
    statistics: Shape = (*value.dims[:first], *[ONE] * (rank - first))
    return [value.other, *[Value(statistics, value.axis)] * (node.outputs - 1)]


@rule("BatchNormalization")
def batch_normalization(node: Node, inputs: Inputs) -> list[Value]:
    """By stored statistics of each channel, the second axis."""
    value = given(inputs, 0)
    if node.integer("training_mode", 0) or node.outputs > 1:
        raise Unproved("it takes the statistics of the batch")
    refuse_sizes(value)
    refuse_rows(*inputs[1:])
    forbid_axis(value, 1)
    return [value.other]


@rule("InstanceNormalization", "GroupNormalization", "LRN", "MeanVarianceNormalization", "DepthToSpace", "SpaceToDepth")
def of_images(node: Node, inputs: Inputs) -> list[Value]:
    """Works within each element of the first axis."""
    value = given(inputs, 0)
    refuse_sizes(value)
    refuse_rows(*inputs[1:])
    require_axis(value, 0)
    if node.proto.op_type == "MeanVarianceNormalization":
        axes = node.integers("axes") or [0, 2, 3]
        forbid_axis(value, *axes)
    if node.proto.op_type in {"DepthToSpace", "SpaceToDepth"}:
        return [Value((value.dims[0], *(node.unknown(axis) for axis in range(1, 4))), value.axis)]
    return [value.other]
