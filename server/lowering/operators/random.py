"""Random numbers: from torch's generator, so they are never those of another runtime."""

from typing import Final

import torch

from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
Ints = tuple[int, ...]


@OPERATORS.add("RandomNormal", versions=(1, 22), why=_MISSING)
def random_normal(
    *, shape: Ints, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float = 0.0, like: torch.Tensor,  # noqa: ARG001 - a seed says nothing about another generator
) -> torch.Tensor:  # fmt: skip
    """RandomNormal."""
    return torch.randn(shape, dtype=TORCH_DTYPES[dtype], device=like.device) * scale + mean


@OPERATORS.add("RandomUniform", versions=(1, 22), why=_MISSING)
def random_uniform(
    *, shape: Ints, dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float = 0.0, like: torch.Tensor,  # noqa: ARG001 - a seed says nothing about another generator
) -> torch.Tensor:  # fmt: skip
    """RandomUniform."""
    return torch.rand(shape, dtype=TORCH_DTYPES[dtype], device=like.device) * (high - low) + low


@OPERATORS.add("RandomNormalLike", versions=(1, 22), why=_MISSING)
def random_normal_like(
    data: torch.Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float = 0.0,  # noqa: ARG001 - as above
) -> torch.Tensor:  # fmt: skip
    """RandomNormalLike."""
    kind = data.dtype if dtype is None else TORCH_DTYPES[dtype]
    return torch.randn(data.shape, dtype=kind, device=data.device) * scale + mean


@OPERATORS.add("RandomUniformLike", versions=(1, 22), why=_MISSING)
def random_uniform_like(
    data: torch.Tensor, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0, seed: float = 0.0,  # noqa: ARG001 - as above
) -> torch.Tensor:  # fmt: skip
    """RandomUniformLike."""
    kind = data.dtype if dtype is None else TORCH_DTYPES[dtype]
    return torch.rand(data.shape, dtype=kind, device=data.device) * (high - low) + low
