"""Resize: every axis by itself, as sums of slices taken at computed positions.

torch's own interpolation has another cubic kernel (TensorFlow's is -0.5, torch's -0.75), other rounding and no
coordinate modes, so positions and weights are computed here, in single precision as ONNX Runtime does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from server.lowering.table import Table

OPERATORS: Final = Table()
_WHY: Final = "cubic_coeff_a and most coordinate modes, which onnx2torch's leaves out without an error"
Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to resize: its size before and after, the ratio, the part to take, and how."""

    before: Any
    after: Any
    ratio: Any
    start: float
    end: float
    coordinates: str


@OPERATORS.add("Resize", versions=(11, 19), host=(1, 2, 3), why=_WHY)
def resize(
    data: torch.Tensor, roi: tuple[float, ...] | None = None, scales: tuple[float, ...] | None = None,
    sizes: Ints | None = None, *, antialias: int = 0, axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0,
    extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> torch.Tensor:  # fmt: skip
    """Resize by ratios or to sizes."""
    named = tuple(range(data.ndim)) if axes is None else tuple(axis % data.ndim for axis in axes)
    lengths = [data.shape[axis] for axis in named]
    ratios, targets = _targets(lengths, scales or None, sizes or None, keep_aspect_ratio_policy)
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    parts = roi if crops and roi else (0.0,) * len(named) + (1.0,) * len(named)
    dtype = data.dtype
    for index, axis in enumerate(named):
        one = _Axis(
            lengths[index], targets[index], ratios[index], parts[index], parts[len(named) + index],
            coordinate_transformation_mode,
        )  # fmt: skip
        if not crops and _is_same(one):
            continue
        places = _places(one, data.device)
        if antialias and mode != "nearest":
            changed = _smoothed(data, axis, one, places, mode, cubic_coeff_a)
        else:
            changed = _taken(data, axis, places, mode, nearest_mode, cubic_coeff_a, bool(exclude_outside))
        if crops:
            shape = [-1 if at == axis else 1 for at in range(data.ndim)]
            outside = ((places < 0) | (places > one.before - 1)).reshape(shape)
            changed = torch.where(outside, torch.full_like(changed, extrapolation_value), changed)
        data = changed
    return data.to(dtype)


def _is_same(axis: _Axis) -> bool:
    if isinstance(axis.ratio, float):
        return axis.ratio == 1.0
    return bool(axis.before == axis.after)


def _targets(
    lengths: Sequence[Any], scales: Sequence[float] | None, sizes: Sequence[Any] | None, policy: str
) -> tuple[list[Any], list[Any]]:
    """The ratio and the new size of each axis."""
    if scales is not None:
        return list(scales), [_floor(length * scale) for length, scale in zip(lengths, scales, strict=True)]
    if sizes is None:
        msg = "Resize without scales and sizes"
        raise ValueError(msg)
    ratios = [_ratio(size, length) for size, length in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return ratios, list(sizes)
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    targets = [_floor(ratio * length + 0.5) for length in lengths]
    return [ratio] * len(lengths), targets


def _ratio(size: Any, length: Any) -> Any:
    if isinstance(size, int) and isinstance(length, int):
        return size / length
    return torch.sym_float(size) / length


def _floor(number: Any) -> Any:
    return math.floor(number)


def _places(axis: _Axis, device: torch.device) -> torch.Tensor:
    """Where each element of the result lies in the axis as it is, in elements."""
    steps = torch.arange(axis.after, device=device, dtype=torch.float32)
    ratio = torch.scalar_tensor(axis.ratio, dtype=torch.float32, device=device)
    width = axis.ratio * axis.before
    last = torch.scalar_tensor(axis.before - 1, dtype=torch.float32, device=device)
    if axis.coordinates == "asymmetric":
        return steps / ratio
    if axis.coordinates == "align_corners":
        return torch.zeros_like(steps) if width == 1 else torch.mul(steps, last / (width - 1))
    if axis.coordinates == "tf_crop_and_resize":
        span = axis.end - axis.start
        inside = steps * 0 + span * last / 2 if width == 1 else steps * span * last / (width - 1)
        return torch.add(inside, axis.start * last)
    halves = (steps + 0.5) / ratio - 0.5
    if axis.coordinates == "pytorch_half_pixel":
        return steps * 0 - 0.5 if width == 1 else halves
    if axis.coordinates == "half_pixel_symmetric":
        return torch.add(halves, axis.before / 2 * (1 - axis.after / width))
    if axis.coordinates == "half_pixel":
        return halves
    msg = f"Resize with coordinates {axis.coordinates}"
    raise ValueError(msg)


def _taken(
    data: torch.Tensor,
    axis: int,
    places: torch.Tensor,
    mode: str,
    rounding: str,
    a: float,
    exclude: bool,  # noqa: FBT001
) -> torch.Tensor:
    """Interpolate between the neighbours of each place; beyond the ends, the last element goes on."""
    length = data.shape[axis]
    if mode == "nearest":
        return data.index_select(axis, _rounded(places, rounding).clamp(0, length - 1))
    low = torch.floor(places)
    share = places - low
    weights = [1 - share, share] if mode == "linear" else [_cubic(share + 1 - step, a) for step in range(4)]
    first = low.to(torch.int64) - (0 if mode == "linear" else 1)
    neighbours = [first + step for step in range(len(weights))]
    if exclude:
        weights = [
            torch.where((place >= 0) & (place < length), weight, torch.zeros_like(weight))
            for place, weight in zip(neighbours, weights, strict=True)
        ]
        whole = torch.stack(weights).sum(0)
        weights = [weight / whole for weight in weights]
    shape = [-1 if at == axis else 1 for at in range(data.ndim)]
    exact = data if data.is_floating_point() else data.to(torch.float32)
    result = torch.zeros((), dtype=exact.dtype, device=data.device)
    for place, weight in zip(neighbours, weights, strict=True):
        result = result + exact.index_select(axis, place.clamp(0, length - 1)) * weight.reshape(shape).to(exact.dtype)
    return result


def _rounded(places: torch.Tensor, rounding: str) -> torch.Tensor:
    functions = {
        "round_prefer_floor": lambda: torch.ceil(places - 0.5),
        "round_prefer_ceil": lambda: torch.floor(places + 0.5),
        "floor": lambda: torch.floor(places),
        "ceil": lambda: torch.ceil(places),
    }
    return functions[rounding]().to(torch.int64)


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys's cubic kernel with coefficient a."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _smoothed(data: torch.Tensor, axis: int, one: _Axis, places: torch.Tensor, mode: str, a: float) -> torch.Tensor:
    """Interpolate with a kernel that grows as the axis shrinks, so that every element counts."""
    shrink = min(float(one.ratio), 1.0)
    reach = math.ceil(2 / shrink) + 1
    length = data.shape[axis]
    at = torch.arange(-reach, length + reach, device=data.device)
    distance = (at - places.unsqueeze(1)) * shrink
    weights = (1 - distance.abs()).clamp(min=0) if mode == "linear" else _cubic(distance, a)
    weights = weights / weights.sum(1, keepdim=True)
    folded = torch.zeros((places.shape[0], length), device=data.device)
    matrix = folded.index_add(1, at.clamp(0, length - 1), weights).to(data.dtype)
    result: torch.Tensor = torch.tensordot(data, matrix, dims=([axis], [1])).movedim(-1, axis)
    return result


@OPERATORS.add("Upsample", versions=(9, 10), host=(1,), why="onnx2torch has none")
def upsample(data: torch.Tensor, scales: tuple[float, ...], *, mode: str = "nearest") -> torch.Tensor:
    """Upsample, the older form of Resize."""
    return resize(
        data, None, scales, None, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
