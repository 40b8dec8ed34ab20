"""Arithmetic on element types that torch computes with only in part: unsigned numbers of 16 bits and more.

They are computed with as int64, which holds all of them but the upper half of uint64; there the order is kept by
flipping the sign bit, and sums and products are right because both wrap around.
"""

from collections.abc import Callable
from typing import Final

import torch

_WIDE: Final = frozenset({torch.uint16, torch.uint32, torch.uint64})
_SIGN: Final = -(2**63)


def computed(function: Callable[..., torch.Tensor], *tensors: torch.Tensor, ordered: bool = False) -> torch.Tensor:
    """Apply a function to tensors of one element type.

    Args:
        function: Of tensors; for wide unsigned types it is given int64 ones.
        tensors: What to apply it to.
        ordered: Whether it depends on which of two numbers is greater.
    """
    dtype = tensors[0].dtype
    if dtype not in _WIDE:
        return function(*tensors)
    flip = _SIGN if ordered and dtype is torch.uint64 else 0
    result = function(*(as_int64(tensor) ^ flip for tensor in tensors))
    return from_int64(result ^ flip, dtype) if result.dtype is torch.int64 else result


def as_int64(tensor: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int64; uint64 keeps its bits."""
    return tensor.view(torch.int64) if tensor.dtype is torch.uint64 else tensor.to(torch.int64)


def from_int64(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The way back from `as_int64`."""
    return tensor.view(torch.uint64) if dtype is torch.uint64 else tensor.to(dtype)


def ordered_int64(tensor: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int64 numbers in the same order; for comparisons alone."""
    return as_int64(tensor) ^ (_SIGN if tensor.dtype is torch.uint64 else 0)


def divided(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Quotients of whole numbers, rounded towards zero."""
    if one.dtype is not torch.uint64:
        return computed(lambda a, b: torch.div(a, b, rounding_mode="trunc"), one, other)
    a, b = as_int64(one), as_int64(other)
    positive = torch.where(b < 0, torch.ones_like(b), b)  # as int64; those of 2**63 and more go into nothing twice
    halves = torch.div((a >> 1) & ~_SIGN, positive, rounding_mode="trunc") << 1
    rest = a - halves * positive
    quotients = halves + ((rest ^ _SIGN) >= (positive ^ _SIGN)).to(torch.int64)
    large = (ordered_int64(one) >= ordered_int64(other)).to(torch.int64)
    return from_int64(torch.where(b < 0, large, quotients), torch.uint64)


def remainder(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What division leaves of unsigned numbers, which have one way to be divided."""
    quotients = as_int64(divided(one, other))
    return from_int64(as_int64(one) - quotients * as_int64(other), one.dtype)
