"""Normalisations. With constant weights some become layers (`server.lowering.layers`)."""

from typing import Final

import torch
from torch.nn import functional

from server.lowering.table import Table

OPERATORS: Final = Table()


def _per_channel(vector: torch.Tensor, rank: int) -> torch.Tensor:
    return vector.reshape([-1] + [1] * (rank - 2))


@OPERATORS.add("BatchNormalization", versions=(9, 15), many=True, why="parameters; the running statistics as outputs")
def batch_normalization(
    data: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor,
    *, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """BatchNormalization; `training_mode` uses the batch's statistics and returns the running ones."""
    if not training_mode:
        return (functional.batch_norm(data, mean, variance, scale, bias, training=False, eps=epsilon),)
    axes = tuple(axis for axis in range(data.ndim) if axis != 1)
    own_variance, own_mean = torch.var_mean(data, axes, correction=0)
    normal = functional.batch_norm(data, own_mean, own_variance, scale, bias, training=False, eps=epsilon)
    running = mean * momentum + own_mean * (1 - momentum)
    return (normal, running, variance * momentum + own_variance * (1 - momentum))[:count]


@OPERATORS.add("InstanceNormalization", versions=(6, 22), why="parameters; channels of one element each")
def instance_normalization(
    data: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, *, epsilon: float = 1e-5
) -> torch.Tensor:
    """InstanceNormalization."""
    variance, mean = torch.var_mean(data, tuple(range(2, data.ndim)), correction=0, keepdim=True)
    normal = (data - mean) * torch.rsqrt(variance + epsilon)
    return normal * _per_channel(scale, data.ndim) + _per_channel(bias, data.ndim)


@OPERATORS.add("LayerNormalization", versions=(17, 17), many=True, why="parameters; mean and deviation as outputs")
def layer_normalization(
    data: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None,
    *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """LayerNormalization over the axes from `axis` on; in single precision unless `stash_type` says otherwise."""
    axis = axis % data.ndim
    axes = tuple(range(axis, data.ndim))
    if count == 1 and tuple(scale.shape) == tuple(data.shape[axis:]):
        return (functional.layer_norm(data, tuple(scale.shape), scale, bias, epsilon),)
    exact = data.to(torch.float32) if stash_type == 1 and data.dtype is not torch.float64 else data
    variance, mean = torch.var_mean(exact, axes, correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + epsilon)
    normal = ((exact - mean) * deviation).to(data.dtype) * scale
    return (normal if bias is None else normal + bias, mean, deviation)[:count]


@OPERATORS.add("LRN", versions=(13, 13), why="an even `size`, whose window onnx2torch puts one channel too low")
def lrn(data: torch.Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> torch.Tensor:
    """LRN: the window of a channel begins floor((size - 1) / 2) channels before it."""
    before = (size - 1) // 2
    squares = functional.pad((data * data).unsqueeze(1), [0, 0] * (data.ndim - 2) + [before, size - 1 - before])
    channels = data.shape[1]
    summed = squares.narrow(2, 0, channels)
    for step in range(1, size):
        summed = summed + squares.narrow(2, step, channels)
    return data / (bias + alpha / size * summed.squeeze(1)) ** beta


@OPERATORS.add("MeanVarianceNormalization", versions=(13, 13), why="onnx2torch has none")
def mean_variance_normalization(data: torch.Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> torch.Tensor:
    """MeanVarianceNormalization."""
    variance, mean = torch.var_mean(data, axes, correction=0, keepdim=True)
    return (data - mean) / (torch.sqrt(variance) + 1e-9)
