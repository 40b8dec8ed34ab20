"""Operators that change a tensor's shape, or make a tensor of a shape."""

import math
from typing import Any, Final

import torch

from server.lowering.table import Table

_TO_THE_END: Final = 2**31 - 1
OPERATORS: Final = Table()
_HOST: Final = "sizes as host values, which torch.compile and torch.export need"
_TURNED: Final = "without `perm`, onnx2torch's module writes an order into itself when it first runs"
Ints = tuple[int, ...]


@OPERATORS.add("Shape", versions=(1, 25), why=_HOST)
def shape(data: torch.Tensor, *, start: int = 0, end: int | None = None) -> torch.Tensor:
    """Shape, where it is wanted as a tensor alone."""
    sizes = tuple(data.shape)[start:end]
    if not sizes:
        return torch.empty((0,), dtype=torch.int64, device=data.device)
    return torch.stack([torch.scalar_tensor(size, dtype=torch.int64, device=data.device) for size in sizes])


@OPERATORS.add("Size", versions=(1, 25), why=_HOST)
def size(data: torch.Tensor) -> torch.Tensor:
    """Size, where it is wanted as a tensor alone."""
    return torch.scalar_tensor(data.numel(), dtype=torch.int64, device=data.device)


@OPERATORS.add("Identity", versions=(1, 25), why="sequences pass too")
def identity(data: Any) -> Any:
    """Identity."""
    return data


@OPERATORS.add("Reshape", versions=(5, 25), host=(1,), why=_HOST + "; allowzero")
def reshape(data: torch.Tensor, target: Ints, *, allowzero: int = 0) -> torch.Tensor:
    """Reshape; a size of 0 keeps the axis's own unless `allowzero` is set."""
    if not allowzero:
        target = tuple(
            data.shape[axis] if isinstance(wanted, int) and wanted == 0 else wanted
            for axis, wanted in enumerate(target)
        )
    return torch.reshape(data, target)


@OPERATORS.add("Flatten", versions=(1, 25), why="axis 0, and sizes that are not known")
def flatten(data: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    """Flatten to a matrix: the axes before `axis` are its rows."""
    axis = axis + data.ndim if axis < 0 else axis
    return torch.reshape(data, (math.prod(data.shape[:axis]), math.prod(data.shape[axis:])))


@OPERATORS.add("Expand", versions=(8, 13), host=(1,), why=_HOST)
def expand(data: torch.Tensor, target: Ints) -> torch.Tensor:
    """Expand: broadcasting both ways."""
    shape = torch.broadcast_shapes(tuple(data.shape), tuple(target))  # type: ignore[no-untyped-call] # torch's
    return data.expand(shape)


@OPERATORS.add("Squeeze", versions=(1, 25), host=(1,), why=_HOST)
def squeeze(data: torch.Tensor, axes: Ints | None = None) -> torch.Tensor:
    """Squeeze; an axis that is named must have size 1."""
    if axes is None:
        return torch.squeeze(data)
    for axis in sorted((axis % data.ndim for axis in axes), reverse=True):
        torch._check(data.shape[axis] == 1, lambda: "Squeeze of an axis whose size is not 1")  # noqa: SLF001 - its public name
        data = data.select(axis, 0)  # torch's squeeze keeps an open axis, even one that was just checked
    return data


@OPERATORS.add("Unsqueeze", versions=(1, 25), host=(1,), why=_HOST)
def unsqueeze(data: torch.Tensor, axes: Ints | int) -> torch.Tensor:
    """Unsqueeze; axes count in the result. Some graphs give one axis as a number."""
    axes = (axes,) if isinstance(axes, int) else axes
    rank = data.ndim + len(axes)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        data = data.unsqueeze(axis)
    return data


@OPERATORS.add("Transpose", versions=(1, 25), why=_TURNED)
def transpose(data: torch.Tensor, *, perm: Ints | None = None) -> torch.Tensor:
    """Transpose; without a permutation, the axes in reverse order."""
    return torch.permute(data, tuple(reversed(range(data.ndim))) if perm is None else perm)


@OPERATORS.add("Split", versions=(2, 18), host=(1,), many=True, why=_HOST + "; num_outputs")
def split(
    data: torch.Tensor, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None, count: int
) -> tuple[torch.Tensor, ...]:
    """Split; into equal parts, of which the last may be smaller, where no sizes are given."""
    if split is not None:
        return torch.split(data, list(split), axis)
    parts, length = num_outputs or count, data.shape[axis]
    part = (length + parts - 1) // parts
    return torch.split(data, [part] * (parts - 1) + [length - part * (parts - 1)], axis)


@OPERATORS.add("Slice", versions=(10, 13), host=(1, 2, 3, 4), why=_HOST + "; steps below 0")
def slice_(
    data: torch.Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> torch.Tensor:
    """Slice."""
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[index] if axes is not None else index
        step = steps[index] if steps is not None else 1
        if step > 0:
            cut = [slice(None)] * data.ndim
            # "To the end" is written as a number that a size would be compared with, and not become known by it.
            cut[axis] = slice(start, None if isinstance(end, int) and end >= _TO_THE_END else end, step)
            data = data[tuple(cut)]
        else:
            data = _backwards(data, axis, start, end, step)
    return data


def _backwards(data: torch.Tensor, axis: int, start: int, end: int, step: int) -> torch.Tensor:
    """The elements from `start` down to the one after `end`, clamped as ONNX says."""
    length = data.shape[axis]
    first = torch.sym_min(start + length if start < 0 else start, length - 1)
    last = torch.sym_max(end + length if end < 0 else end, -1)
    places = torch.arange(first, last, step, device=data.device) if first > last else ()
    index = torch.as_tensor(places, dtype=torch.int64, device=data.device)
    return data.index_select(axis, index)


@OPERATORS.add("Tile", versions=(6, 13), host=(1,), why=_HOST)
def tile(data: torch.Tensor, repeats: Ints) -> torch.Tensor:
    """Tile."""
    return data.repeat(repeats)


@OPERATORS.add("Range", versions=(11, 11), host=(0, 1, 2), why=_HOST)
def range_(start: float, limit: float, delta: float, *, like: torch.Tensor, out: torch.dtype) -> torch.Tensor:
    """Range; empty where the limit lies on the other side."""
    if delta == 1 and start == 0:
        return torch.arange(limit, dtype=out, device=like.device)
    if (limit - start) * delta <= 0:
        return torch.empty((0,), dtype=out, device=like.device)
    return torch.arange(start, limit, delta, dtype=out, device=like.device)


@OPERATORS.add("ConstantOfShape", versions=(9, 25), host=(0,), why=_HOST)
def constant_of_shape(target: Ints, *, value: float = 0.0, like: torch.Tensor, out: torch.dtype) -> torch.Tensor:
    """ConstantOfShape."""
    return torch.full(target, value, dtype=out, device=like.device)


@OPERATORS.add("DepthToSpace", versions=(11, 13), why="mode DCR, the only one that TensorFlow has")
def depth_to_space(data: torch.Tensor, *, blocksize: int, mode: str = "DCR") -> torch.Tensor:
    """DepthToSpace."""
    batch, channels, height, width = data.shape
    rest = channels // (blocksize * blocksize)
    if mode == "DCR":
        blocks = data.reshape(batch, blocksize, blocksize, rest, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = data.reshape(batch, rest, blocksize, blocksize, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, rest, height * blocksize, width * blocksize)


@OPERATORS.add("SpaceToDepth", versions=(1, 13), why="onnx2torch has none")
def space_to_depth(data: torch.Tensor, *, blocksize: int) -> torch.Tensor:
    """SpaceToDepth."""
    batch, channels, height, width = data.shape
    down, across = height // blocksize, width // blocksize
    blocks = data.reshape(batch, channels, down, blocksize, across, blocksize).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * blocksize * blocksize, down, across)


@OPERATORS.add("Pad", versions=(11, 25), host=(1, 2, 3), why=_HOST + "; reflection of any axis")
def pad(
    data: torch.Tensor, pads: Ints, value: float | None = None, axes: Ints | None = None, *, mode: str = "constant"
) -> torch.Tensor:
    """Pad; below 0 it takes elements away. ONNX lists all beginnings, then all ends."""
    named = tuple(range(data.ndim)) if axes is None else tuple(axis % data.ndim for axis in axes)
    widths = {axis: (pads[index], pads[index + len(named)]) for index, axis in enumerate(named)}
    if mode != "constant":
        for axis, (before, after) in widths.items():
            data = _extended(data, axis, before, after, mode)
        return data
    flat: list[int] = []
    for axis in reversed(range(data.ndim)):
        flat.extend(widths.get(axis, (0, 0)))
    while len(flat) > 2 and _is_zero(flat[-1]) and _is_zero(flat[-2]):
        del flat[-2:]
    fill = value[0] if isinstance(value, tuple) else value
    if data.dtype is torch.bool:
        return torch.nn.functional.pad(data.to(torch.uint8), flat, value=int(fill or 0)).to(torch.bool)
    return torch.nn.functional.pad(data, flat, value=fill or 0)


def _is_zero(number: Any) -> bool:
    return isinstance(number, int) and number == 0


def _extended(data: torch.Tensor, axis: int, before: int, after: int, mode: str) -> torch.Tensor:
    """Pad one axis with elements of the tensor itself: edge, reflect, wrap."""
    if _is_zero(before) and _is_zero(after):
        return data
    length = data.shape[axis]
    places = torch.arange(-before, length + after, device=data.device)
    if mode == "edge":
        places = places.clamp(0, length - 1)
    elif mode == "wrap":
        places = places % length
    else:
        period = max(2 * (length - 1), 1) if isinstance(length, int) else 2 * (length - 1)
        places = places % period
        places = torch.where(places >= length, period - places, places)
    return data.index_select(axis, places)
