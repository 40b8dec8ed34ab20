"""Numbers that stand for scaled ones: computed exactly, in wider numbers."""

from typing import Final

import torch

from server.lowering.operators.convolution import conv
from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
Ints = tuple[int, ...]


def _along(vector: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """A vector of one number per slice, as it broadcasts."""
    if vector.ndim == 0 or vector.numel() == 1:
        return vector.reshape(())
    return vector.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


@OPERATORS.add("DequantizeLinear", versions=(10, 13), why=_MISSING)
def dequantize(
    data: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None, *, axis: int = 1
) -> torch.Tensor:
    """DequantizeLinear."""
    whole = data.to(torch.int32)
    if zero is not None:
        whole = whole - _along(zero, data.ndim, axis).to(torch.int32)
    return whole.to(scale.dtype) * _along(scale, data.ndim, axis)


@OPERATORS.add("QuantizeLinear", versions=(10, 13), why=_MISSING)
def quantize(
    data: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None, *, axis: int = 1
) -> torch.Tensor:
    """QuantizeLinear: rounded to the nearest, halves to even, and held within the type."""
    dtype = torch.uint8 if zero is None else zero.dtype
    whole = torch.round(data / _along(scale, data.ndim, axis))
    if zero is not None:
        whole = whole + _along(zero, data.ndim, axis).to(whole.dtype)
    return whole.clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max).to(dtype)


@OPERATORS.add("DynamicQuantizeLinear", versions=(11, 11), many=True, why=_MISSING)
def dynamic_quantize(data: torch.Tensor, *, count: int) -> tuple[torch.Tensor, ...]:
    """DynamicQuantizeLinear to uint8, with a scale that the data's own range gives."""
    nothing = torch.zeros((), dtype=data.dtype, device=data.device)
    low, high = torch.minimum(data.min(), nothing), torch.maximum(data.max(), nothing)
    span = high - low
    scale = torch.where(span == 0, torch.ones_like(span), span) / 255  # of zeros alone any would do
    zero = torch.round((-low / scale).clamp(0, 255)).to(torch.uint8)
    return (quantize(data, scale, zero), scale, zero)[:count]


@OPERATORS.add("MatMulInteger", versions=(10, 10), why=_MISSING)
def matmul_integer(
    one: torch.Tensor, other: torch.Tensor, one_zero: torch.Tensor | None = None,
    other_zero: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """MatMulInteger."""
    left, right = one.to(torch.int32), other.to(torch.int32)
    if one_zero is not None:
        left = left - (_along(one_zero, one.ndim, -2).to(torch.int32))
    if other_zero is not None:
        right = right - (_along(other_zero, other.ndim, -1).to(torch.int32))
    return torch.matmul(left, right)


@OPERATORS.add("ConvInteger", versions=(10, 10), why=_MISSING)
def conv_integer(
    data: torch.Tensor, weight: torch.Tensor, data_zero: torch.Tensor | None = None,
    weight_zero: torch.Tensor | None = None, *, auto_pad: str = "NOTSET", dilations: Ints | None = None,
    group: int = 1, kernel_shape: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """ConvInteger; double precision holds the sums exactly."""
    exact, kernel = data.to(torch.float64), weight.to(torch.float64)
    if data_zero is not None:
        exact = exact - data_zero.to(torch.float64)
    if weight_zero is not None:
        kernel = kernel - _along(weight_zero, weight.ndim, 0).to(torch.float64)
    sums = conv(
        exact, kernel, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads,
        strides=strides,
    )  # fmt: skip
    return sums.to(torch.int32)


@OPERATORS.add("QLinearConv", versions=(10, 10), why=_MISSING)
def qlinear_conv(
    data: torch.Tensor, data_scale: torch.Tensor, data_zero: torch.Tensor, weight: torch.Tensor,
    weight_scale: torch.Tensor, weight_zero: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor,
    bias: torch.Tensor | None = None, *, auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1,
    kernel_shape: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None,
) -> torch.Tensor:  # fmt: skip
    """QLinearConv."""
    sums = conv_integer(
        data, weight, data_zero, weight_zero, auto_pad=auto_pad, dilations=dilations, group=group,
        kernel_shape=kernel_shape, pads=pads, strides=strides,
    )  # fmt: skip
    if bias is not None:
        sums = sums + _along(bias, sums.ndim, 1)
    real = sums.to(torch.float32) * (data_scale * _along(weight_scale, sums.ndim, 1))
    return quantize(real, scale, zero)


@OPERATORS.add("QLinearMatMul", versions=(10, 10), why=_MISSING)
def qlinear_matmul(
    one: torch.Tensor, one_scale: torch.Tensor, one_zero: torch.Tensor, other: torch.Tensor,
    other_scale: torch.Tensor, other_zero: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """QLinearMatMul."""
    sums = matmul_integer(one, other, one_zero, other_zero)
    return quantize(sums.to(torch.float32) * (one_scale * other_scale), scale, zero)
