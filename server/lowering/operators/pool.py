"""Pools."""

import math
from typing import Any, Final

import torch
from torch.nn import functional

from server.lowering.operators.padding import Pairs, is_symmetric, padded, resolved, spatial
from server.lowering.table import Table

OPERATORS: Final = Table()
Ints = tuple[int, ...]
_MAX: Final = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: Final = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_PADDING: Final = "auto_pad; unequal padding"


def _with_ceiling(sizes: Ints, kernel: Ints, strides: Ints, dilations: Ints, pairs: Pairs) -> Pairs:
    """Padding that makes the last, partial window whole. A window must begin before the padding at the end."""
    grown = []
    for length, width, stride, dilation, (before, after) in zip(sizes, kernel, strides, dilations, pairs, strict=True):
        span = length + before + after - dilation * (width - 1) - 1
        steps = -(-span // stride)
        if steps * stride >= length + before:
            steps -= 1
        grown.append((before, after + max(steps * stride - span, 0)))
    return tuple(grown)


@OPERATORS.add("MaxPool", versions=(8, 22), many=True, why=_PADDING + "; the positions of the maxima")
def max_pool(
    data: torch.Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    dilations: Ints | None = None, pads: Ints | None = None, storage_order: int = 0, strides: Ints | None = None,
    count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """MaxPool; positions count in the whole, unpadded tensor."""
    rank, dtype = len(kernel_shape), data.dtype
    strides, dilations = spatial(strides, rank), spatial(dilations, rank)
    sizes = tuple(data.shape[2:])
    pairs = resolved(sizes, kernel_shape, strides, dilations, auto_pad, pads)
    if ceil_mode:
        pairs = _with_ceiling(sizes, kernel_shape, strides, dilations, pairs)
    exact = data if data.is_floating_point() else data.to(torch.float64 if dtype.itemsize > 2 else torch.float32)
    own: Any = 0
    if is_symmetric(pairs) and all(2 * before <= width for (before, _), width in zip(pairs, kernel_shape, strict=True)):
        own, pairs = tuple(before for before, _ in pairs), ((0, 0),) * rank
    else:
        exact = padded(exact, pairs, -math.inf)
    if count == 1:
        return (_MAX[rank](exact, kernel_shape, strides, own, dilations).to(dtype),)
    values, places = _MAX[rank](exact, kernel_shape, strides, own, dilations, return_indices=True)
    return values.to(dtype), _unpadded(places, data, pairs, column_major=bool(storage_order))


def _unpadded(places: torch.Tensor, data: torch.Tensor, pairs: Pairs, *, column_major: bool) -> torch.Tensor:
    """Positions in each padded plane as positions in the whole tensor."""
    sizes = data.shape[2:]
    coordinates = []
    for length, (before, after) in zip(reversed(sizes), reversed(pairs), strict=True):
        whole = length + before + after
        coordinates.append(places % whole - before)
        places = places // whole
    if not column_major:
        coordinates.reverse()
        sizes_in_order = list(sizes)
    else:
        sizes_in_order = list(reversed(sizes))
    flat = torch.zeros_like(places)
    for coordinate, length in zip(coordinates, sizes_in_order, strict=True):
        flat = flat * length + coordinate
    planes = torch.arange(data.shape[0] * data.shape[1], device=data.device)
    plane = planes.reshape(data.shape[0], data.shape[1], *[1] * len(sizes))
    return flat + plane * math.prod(sizes)


@OPERATORS.add("AveragePool", versions=(7, 22), why=_PADDING + "; what counts in a window")
def average_pool(
    data: torch.Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    count_include_pad: int = 0, dilations: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """AveragePool."""
    rank = len(kernel_shape)
    strides, dilations = spatial(strides, rank), spatial(dilations, rank)
    sizes = tuple(data.shape[2:])
    pairs = resolved(sizes, kernel_shape, strides, dilations, auto_pad, pads)
    plain = all(dilation == 1 for dilation in dilations)
    fits = all(2 * before <= width for (before, _), width in zip(pairs, kernel_shape, strict=True))
    if plain and not ceil_mode and is_symmetric(pairs) and fits:
        own = tuple(before for before, _ in pairs)
        return _AVERAGE[rank](
            data, kernel_shape, strides, own, ceil_mode=False, count_include_pad=bool(count_include_pad)
        )
    grown = _with_ceiling(sizes, kernel_shape, strides, dilations, pairs) if ceil_mode else pairs
    inside = padded(torch.ones_like(data[:1, :1]), pairs, 1.0 if count_include_pad else 0.0)
    edge = tuple((0, after - less) for (_, after), (_, less) in zip(grown, pairs, strict=True))
    inside = padded(inside, edge)
    sums = _window_sums(padded(data, grown), kernel_shape, strides, dilations)
    return sums / _window_sums(inside, kernel_shape, strides, dilations)


def _window_sums(data: torch.Tensor, kernel: Ints, strides: Ints, dilations: Ints) -> torch.Tensor:
    """The sum of each window: a convolution with ones, plane by plane."""
    planes = data.reshape(-1, 1, *data.shape[2:])
    ones = torch.ones((1, 1, *kernel), dtype=data.dtype, device=data.device)
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(kernel)]
    sums = convolve(planes, ones, None, strides, 0, dilations)
    return sums.reshape(*data.shape[:2], *sums.shape[2:])


@OPERATORS.add("LpPool", versions=(11, 22), why="onnx2torch has none")
def lp_pool(
    data: torch.Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    dilations: Ints | None = None, p: int = 2, pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """LpPool: the p-norm of each window."""
    rank = len(kernel_shape)
    strides, dilations = spatial(strides, rank), spatial(dilations, rank)
    sizes = tuple(data.shape[2:])
    pairs = resolved(sizes, kernel_shape, strides, dilations, auto_pad, pads)
    if ceil_mode:
        pairs = _with_ceiling(sizes, kernel_shape, strides, dilations, pairs)
    powers = padded(data.abs() ** p, pairs)
    return _window_sums(powers, kernel_shape, strides, dilations) ** (1.0 / p)


def _spatial_axes(data: torch.Tensor) -> Ints:
    return tuple(range(2, data.ndim))


@OPERATORS.add("GlobalAveragePool", versions=(1, 22), why="onnx2torch's asks for a shape that may not be known")
def global_average_pool(data: torch.Tensor) -> torch.Tensor:
    """GlobalAveragePool."""
    return torch.mean(data, _spatial_axes(data), keepdim=True)


@OPERATORS.add("GlobalMaxPool", versions=(1, 22), why="onnx2torch has none")
def global_max_pool(data: torch.Tensor) -> torch.Tensor:
    """GlobalMaxPool."""
    return torch.amax(data, _spatial_axes(data), keepdim=True)


@OPERATORS.add("GlobalLpPool", versions=(2, 22), why="onnx2torch has none")
def global_lp_pool(data: torch.Tensor, *, p: int = 2) -> torch.Tensor:
    """GlobalLpPool."""
    norm: torch.Tensor = torch.linalg.vector_norm(data, p, dim=_spatial_axes(data), keepdim=True)
    return norm


@OPERATORS.add("MaxUnpool", versions=(11, 22), host=(2,), why="onnx2torch has none")
def max_unpool(
    data: torch.Tensor, places: torch.Tensor, output_shape: Ints | None = None,
    *, kernel_shape: Ints, pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """MaxUnpool: the inverse of MaxPool, zero where no maximum was.

    The positions count in the smallest tensor that the pool could have had, also where `output_shape` is larger.
    """
    rank = len(kernel_shape)
    strides, numbers = spatial(strides, rank), spatial(pads, 2 * rank, 0)
    sizes = [
        (data.shape[2 + axis] - 1) * strides[axis] + kernel_shape[axis] - numbers[axis] - numbers[rank + axis]
        for axis in range(rank)
    ]
    shape = (*data.shape[:2], *sizes)
    empty = torch.zeros(math.prod(shape), dtype=data.dtype, device=data.device)
    result = empty.scatter(0, places.reshape(-1), data.reshape(-1)).reshape(shape)
    if output_shape is None:
        return result
    grow = tuple((0, wanted - size) for wanted, size in zip(output_shape[2:], sizes, strict=True))
    return padded(result, grow)
