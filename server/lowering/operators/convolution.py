"""Convolutions. With constant weights they become layers (`server.lowering.layers`); here is what computes them."""

from typing import Any, Final

import torch
from torch.nn import functional

from server.lowering.operators.padding import explicit, is_symmetric, padded, resolved, spatial
from server.lowering.table import Table

OPERATORS: Final = Table()
Ints = tuple[int, ...]
_CONV: Final = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: Final = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


@OPERATORS.add("Conv", versions=(11, 22), why="parameters keep their names and are shared; auto_pad; unequal padding")
def conv(
    data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None,
    *, auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None,  # noqa: ARG001 - the weight says it
    pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """Conv in one to three dimensions."""
    rank = weight.ndim - 2
    strides, dilations = spatial(strides, rank), spatial(dilations, rank)
    kernel = tuple(weight.shape[2:])
    pairs = resolved(tuple(data.shape[2:]), kernel, strides, dilations, auto_pad, pads)
    own: Any = 0
    if is_symmetric(pairs):
        own = tuple(before for before, _ in pairs)
    else:
        data = padded(data, pairs)
    return _CONV[rank](data, weight, bias, strides, own, dilations, group)


@OPERATORS.add("ConvTranspose", versions=(11, 22), why="parameters; auto_pad, output_shape, unequal padding")
def conv_transpose(
    data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None,
    *, auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None,  # noqa: ARG001 - the weight says it
    output_padding: Ints | None = None, output_shape: Ints | None = None, pads: Ints | None = None,
    strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """ConvTranspose in one to three dimensions: computed in full, then cut, which allows for any padding."""
    rank = weight.ndim - 2
    strides, dilations, extra = spatial(strides, rank), spatial(dilations, rank), spatial(output_padding, rank, 0)
    full = _TRANSPOSED[rank](data, weight, bias, strides, 0, 0, group, dilations)
    lengths = [
        (size - 1) * stride + (width - 1) * dilation + 1
        for size, stride, width, dilation in zip(data.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    pairs = explicit(pads, rank) if auto_pad in {"NOTSET", "", "VALID"} else None
    cut = []
    for axis, length in enumerate(lengths):
        before, after = (0, 0) if pairs is None else pairs[axis]
        if output_shape is not None or pairs is None:
            wanted = output_shape[axis] if output_shape is not None else data.shape[2 + axis] * strides[axis]
            whole = length + extra[axis] - wanted
            small = whole // 2
            before, after = (small, whole - small) if auto_pad == "SAME_UPPER" else (whole - small, small)
        cut.append((-before, extra[axis] - after))
    if all(pair == (0, 0) for pair in cut):
        return full
    grown = padded(full, tuple(cut))
    if bias is not None and any(extra):  # what output_padding adds has the bias too
        grown = _with_bias(grown, bias, cut, full)
    return grown


def _with_bias(grown: torch.Tensor, bias: torch.Tensor, cut: list[tuple[int, int]], full: torch.Tensor) -> torch.Tensor:
    """Add the bias where padding added zeros."""
    inside = padded(torch.ones_like(full[:1, :1]), tuple(cut))
    return grown + (1 - inside) * bias.reshape([1, -1] + [1] * (full.ndim - 2))
