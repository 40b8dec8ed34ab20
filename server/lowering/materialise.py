"""Between the two kinds of values: numbers on the host to tensors on the device, and back."""

from typing import Any

import torch


def to_tensor(like: torch.Tensor, value: Any, dtype: torch.dtype) -> torch.Tensor:
    """Numbers as a tensor.

    Args:
        like: A tensor on the device that the result shall be on.
        value: A number, or a tuple of numbers; symbolic ones stay symbolic.
        dtype: Of the result.
    """
    if not isinstance(value, tuple):
        return torch.scalar_tensor(value, dtype=dtype, device=like.device)
    if not value:
        return torch.empty((0,), dtype=dtype, device=like.device)
    return torch.stack([torch.scalar_tensor(number, dtype=dtype, device=like.device) for number in value])


def to_host(tensor: torch.Tensor) -> Any:
    """A tensor of rank 0 or 1 as a number or a tuple of numbers.

    This waits for the device. It is only there for graphs in which a shape depends on the data.
    """
    if tensor.ndim == 0:
        return tensor.item()
    return tuple(tensor.reshape(-1).tolist())


def entry(values: Any, index: int) -> Any:
    """One of several outputs."""
    return values[index]
