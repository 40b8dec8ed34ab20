"""Reductions along axes."""

import math
from collections.abc import Callable
from typing import Final

import torch
from onnx import TensorProto

from server.lowering.graph import Graph, Node
from server.lowering.operators.integers import computed
from server.lowering.table import Table

OPERATORS: Final = Table()
_WHY: Final = "axes as an input (opset 18), which onnx2torch has only for ReduceSum"
Axes = tuple[int, ...] | None


def _axes(data: torch.Tensor, axes: Axes, noop: int) -> tuple[int, ...]:
    """The axes to reduce; an empty list means all, or none if the operator says so."""
    if axes:
        return axes
    return () if noop else tuple(range(data.ndim))


def _sum(data: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:  # noqa: FBT001 - torch's own
    return torch.sum(data, axes, keepdim=keep, dtype=data.dtype) if axes else data


@OPERATORS.add("ReduceSum", versions=(1, 18), host=(1,), why="axes as host values, which torch.export needs")
def reduce_sum(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceSum."""
    return _sum(data, _axes(data, axes, noop_with_empty_axes), bool(keepdims))


@OPERATORS.add("ReduceMean", versions=(1, 18), host=(1,), why=_WHY)
def reduce_mean(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceMean; of whole numbers, rounded towards zero."""
    dims = _axes(data, axes, noop_with_empty_axes)
    if not dims:
        return data
    if data.is_floating_point():
        return torch.mean(data, dims, keepdim=bool(keepdims))
    count = math.prod(data.shape[dim] for dim in dims)
    return torch.div(_sum(data, dims, bool(keepdims)), count, rounding_mode="trunc").to(data.dtype)


@OPERATORS.add("ReduceProd", versions=(1, 18), host=(1,), why=_WHY)
def reduce_prod(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceProd; torch multiplies along one axis at a time."""
    dims = sorted((dim % max(data.ndim, 1) for dim in _axes(data, axes, noop_with_empty_axes)), reverse=True)
    for dim in dims:
        data = torch.prod(data, dim, keepdim=bool(keepdims), dtype=data.dtype)
    return data


@OPERATORS.add("ReduceMax", versions=(1, 20), host=(1,), why=_WHY)
def reduce_max(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceMax."""
    return _extreme(torch.amax, data, _axes(data, axes, noop_with_empty_axes), keep=bool(keepdims), lowest=True)


@OPERATORS.add("ReduceMin", versions=(1, 20), host=(1,), why=_WHY)
def reduce_min(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceMin."""
    return _extreme(torch.amin, data, _axes(data, axes, noop_with_empty_axes), keep=bool(keepdims), lowest=False)


def _extreme(
    function: Callable[..., torch.Tensor],
    data: torch.Tensor,
    dims: tuple[int, ...],
    *,
    keep: bool,
    lowest: bool,
) -> torch.Tensor:
    if not dims:
        return data
    sizes = [data.shape[dim] for dim in dims]
    if any(isinstance(size, int) and size == 0 for size in sizes):  # torch refuses what ONNX defines
        shape = [1 if axis in {dim % data.ndim for dim in dims} else size for axis, size in enumerate(data.shape)]
        empty = torch.full(shape, _bound(data.dtype, lowest=lowest), dtype=data.dtype, device=data.device)
        return empty if keep else empty.squeeze(dims)
    return computed(lambda tensor: function(tensor, dims, keepdim=keep), data, ordered=True)


def _bound(dtype: torch.dtype, *, lowest: bool) -> float | int | bool:
    if dtype is torch.bool:
        return not lowest
    if dtype.is_floating_point:
        return -math.inf if lowest else math.inf
    return torch.iinfo(dtype).min if lowest else torch.iinfo(dtype).max


@OPERATORS.add("ReduceL1", versions=(1, 18), host=(1,), why=_WHY)
def reduce_l1(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceL1; where no axis is reduced, the absolute values."""
    return _sum(data.abs(), _axes(data, axes, noop_with_empty_axes), bool(keepdims))


@OPERATORS.add("ReduceL2", versions=(1, 18), host=(1,), why=_WHY)
def reduce_l2(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceL2."""
    squares = _sum(data * data, _axes(data, axes, noop_with_empty_axes), bool(keepdims))
    return torch.sqrt(squares).to(data.dtype)


@OPERATORS.add("ReduceSumSquare", versions=(1, 18), host=(1,), why=_WHY)
def reduce_sum_square(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceSumSquare."""
    return _sum(data * data, _axes(data, axes, noop_with_empty_axes), bool(keepdims))


def _refuse_whole(node: Node, graph: Graph) -> str | None:
    """Logarithms of whole numbers as whole numbers: runtimes differ, and nobody writes them."""
    floats = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UNDEFINED}
    known = graph.type_of(node.inputs[0]).dtype
    return None if known in floats else "logarithms of whole numbers have no form here"


@OPERATORS.add("ReduceLogSum", versions=(1, 18), host=(1,), refuse=_refuse_whole, why=_WHY)
def reduce_log_sum(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceLogSum."""
    return torch.log(_sum(data, _axes(data, axes, noop_with_empty_axes), bool(keepdims))).to(data.dtype)


@OPERATORS.add("ReduceLogSumExp", versions=(1, 18), host=(1,), refuse=_refuse_whole, why=_WHY)
def reduce_log_sum_exp(
    data: torch.Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> torch.Tensor:
    """ReduceLogSumExp."""
    dims = _axes(data, axes, noop_with_empty_axes)
    return torch.logsumexp(data, dims, keepdim=bool(keepdims)).to(data.dtype) if dims else data
