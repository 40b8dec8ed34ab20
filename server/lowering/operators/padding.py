"""Padding of convolutions and pools: ONNX's rules as pairs of numbers."""

from typing import Any, Final

import torch
from torch.nn import functional

Pairs = tuple[tuple[int, int], ...]
NONE: Final = (0, 0)


def spatial(value: tuple[int, ...] | None, rank: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one number for each spatial axis."""
    return (default,) * rank if value is None else value


def explicit(pads: tuple[int, ...] | None, rank: int) -> Pairs:
    """(before, after) for each spatial axis; ONNX lists all beginnings, then all ends."""
    numbers = spatial(pads, 2 * rank, 0)
    return tuple(zip(numbers[:rank], numbers[rank:], strict=True))


def resolved(
    sizes: tuple[Any, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...],
    auto_pad: str, pads: tuple[int, ...] | None,
) -> Pairs:  # fmt: skip
    """The padding of each spatial axis.

    Args:
        sizes: Of the spatial axes; they may be symbolic, and matter for SAME with a stride alone.
        kernel: Sizes of the kernel.
        strides: One for each axis.
        dilations: One for each axis.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        pads: Used with NOTSET.
    """
    if auto_pad in {"NOTSET", ""}:
        return explicit(pads, len(kernel))
    if auto_pad == "VALID":
        return (NONE,) * len(kernel)
    pairs = []
    for length, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        whole = reach - 1 if stride == 1 else _missing(length, reach, stride)
        small = whole // 2
        pairs.append((whole - small, small) if auto_pad == "SAME_LOWER" else (small, whole - small))
    return tuple(pairs)


def _missing(length: Any, reach: int, stride: int) -> Any:
    """How many elements SAME adds to an axis so that there is one output for each stride begun."""
    return torch.sym_max((-(-length // stride) - 1) * stride + reach - length, 0)


def padded(data: torch.Tensor, pairs: Pairs, value: float = 0.0) -> torch.Tensor:
    """Pad the spatial axes, which come last."""
    flat = tuple(number for pair in reversed(pairs) for number in pair)
    return functional.pad(data, flat, value=value)


def is_symmetric(pairs: Pairs) -> bool:
    """Whether torch's own padding does: the same number, known now, on both sides."""
    return all(isinstance(one, int) and isinstance(other, int) and one == other >= 0 for one, other in pairs)


def padded_to_stride(
    data: torch.Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], auto_pad: str
) -> torch.Tensor:
    """Pad for SAME_UPPER or SAME_LOWER, by the sizes that the tensor has."""
    return padded(data, resolved(tuple(data.shape[2:]), kernel, strides, dilations, auto_pad, None))
