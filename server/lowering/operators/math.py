"""Arithmetic, element by element and on matrices."""

from typing import Final

import torch
from onnx import TensorProto
from torch.nn import functional

from server.errors import GraphNotLowerable
from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.graph import Graph, Node
from server.lowering.operators.integers import as_int64, computed, divided, from_int64, remainder
from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
_EYE: Final = "onnx2torch's is always on the CPU; it breaks on truth values and on diagonals outside the matrix"


@OPERATORS.add("Acosh", versions=(9, 22), why=_MISSING)
def acosh(data: torch.Tensor) -> torch.Tensor:
    """Acosh."""
    return torch.acosh(data)


@OPERATORS.add("Asinh", versions=(9, 22), why=_MISSING)
def asinh(data: torch.Tensor) -> torch.Tensor:
    """Asinh."""
    return torch.asinh(data)


@OPERATORS.add("Atanh", versions=(9, 22), why=_MISSING)
def atanh(data: torch.Tensor) -> torch.Tensor:
    """Atanh."""
    return torch.atanh(data)


@OPERATORS.add("Cosh", versions=(9, 22), why=_MISSING)
def cosh(data: torch.Tensor) -> torch.Tensor:
    """Cosh."""
    return torch.cosh(data)


@OPERATORS.add("Sinh", versions=(9, 22), why=_MISSING)
def sinh(data: torch.Tensor) -> torch.Tensor:
    """Sinh."""
    return torch.sinh(data)


@OPERATORS.add("Div", versions=(7, 14), why="whole numbers: onnx2torch's goes through floating point")
def div(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Div; whole numbers are divided towards zero."""
    if one.is_floating_point() or one.is_complex():
        return one / other
    return divided(one, other)


@OPERATORS.add("Mod", versions=(10, 13), why="whole numbers: the sign of the remainder")
def mod(one: torch.Tensor, other: torch.Tensor, *, fmod: int = 0) -> torch.Tensor:
    """Mod; the result has the divisor's sign, or with `fmod` the dividend's."""
    if one.dtype is torch.uint64:
        return remainder(one, other)
    return computed(torch.fmod if fmod else torch.remainder, one, other)


@OPERATORS.add("Pow", versions=(7, 15), why="the result has the base's element type")
def power(base: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Pow."""
    if not base.is_floating_point() and exponent.is_floating_point():
        return torch.pow(base.to(torch.float64), exponent.to(torch.float64)).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


@OPERATORS.add("Max", versions=(8, 13), why="any element type; onnx2torch's copies all operands first")
def maximum(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Max."""
    for other in others:
        first = computed(torch.maximum, first, other, ordered=True)
    return first


@OPERATORS.add("Min", versions=(8, 13), why="any element type; onnx2torch's copies all operands first")
def minimum(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Min."""
    for other in others:
        first = computed(torch.minimum, first, other, ordered=True)
    return first


@OPERATORS.add("Sum", versions=(8, 13), why="onnx2torch's adds in place, from a tensor of zeros")
def total(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Sum."""
    for other in others:
        first = first + other
    return first


@OPERATORS.add("Mean", versions=(8, 13), why="onnx2torch's adds in place, from a tensor of zeros")
def mean(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Mean."""
    return total(first, *others) / (1 + len(others))


@OPERATORS.add("Clip", versions=(11, 13), why="bounds that are computed")
def clip(data: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None) -> torch.Tensor:
    """Clip."""
    if low is not None:
        data = computed(torch.maximum, data, low, ordered=True)
    return data if high is None else computed(torch.minimum, data, high, ordered=True)


@OPERATORS.add("BitShift", versions=(11, 11), why=_MISSING)
def bit_shift(data: torch.Tensor, places: torch.Tensor, *, direction: str) -> torch.Tensor:
    """BitShift of unsigned numbers; bits that leave are lost."""
    bits, steps = as_int64(data), as_int64(places)
    if direction == "LEFT":
        shifted = bits << steps
    else:  # int64 shifts copies of the sign in, which uint64 has not
        kept = torch.where(steps > 0, ~(torch.full_like(bits, -1) << (64 - steps).clamp(0, 63)), -1)
        shifted = (bits >> steps) & kept
    return from_int64(shifted, data.dtype)


@OPERATORS.add("BitwiseAnd", versions=(18, 18), why=_MISSING)
def bitwise_and(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """BitwiseAnd."""
    return computed(torch.bitwise_and, one, other)


@OPERATORS.add("BitwiseOr", versions=(18, 18), why=_MISSING)
def bitwise_or(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """BitwiseOr."""
    return computed(torch.bitwise_or, one, other)


@OPERATORS.add("BitwiseXor", versions=(18, 18), why=_MISSING)
def bitwise_xor(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """BitwiseXor."""
    return computed(torch.bitwise_xor, one, other)


@OPERATORS.add("BitwiseNot", versions=(18, 18), why=_MISSING)
def bitwise_not(data: torch.Tensor) -> torch.Tensor:
    """BitwiseNot."""
    return computed(torch.bitwise_not, data)


@OPERATORS.add("IsInf", versions=(10, 20), why="detect_negative and detect_positive")
def is_inf(data: torch.Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> torch.Tensor:
    """IsInf."""
    found = torch.isinf(data)
    if not detect_negative:
        found = found & (data > 0)
    return found if detect_positive else found & (data < 0)


@OPERATORS.add("CumSum", versions=(11, 14), host=(1,), why="onnx2torch's sums backwards where `reverse` is left out")
def cumulative_sum(data: torch.Tensor, axis: int | tuple[int], *, exclusive: int = 0, reverse: int = 0) -> torch.Tensor:
    """CumSum. The sum of all before an element is the sum up to the one before it, never a difference."""
    dim = axis[0] if isinstance(axis, tuple) else axis
    if reverse:
        data = data.flip(dim)
    if exclusive:
        zero = torch.zeros_like(data.narrow(dim, 0, 1))
        data = torch.cat([zero, data.narrow(dim, 0, data.shape[dim] - 1)], dim)
    result = torch.cumsum(data, dim, dtype=data.dtype)
    return result.flip(dim) if reverse else result


@OPERATORS.add("PRelu", versions=(9, 16), why="onnx2torch's writes through a mask, whose size depends on the data")
def prelu(data: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """PRelu."""
    return torch.where(data < 0, data * slope, data)


@OPERATORS.add("ThresholdedRelu", versions=(10, 22), why=_MISSING)
def thresholded_relu(data: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    """ThresholdedRelu."""
    return torch.where(data > alpha, data, torch.zeros((), dtype=data.dtype, device=data.device))


@OPERATORS.add("Gelu", versions=(20, 20), why=_MISSING)
def gelu(data: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    """Gelu, exact or through tanh."""
    return functional.gelu(data, approximate=approximate)


@OPERATORS.add("Selu", versions=(6, 22), why="alpha and gamma other than the default ones")
def selu(
    data: torch.Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> torch.Tensor:
    """Selu."""
    return gamma * torch.where(data > 0, data, alpha * torch.expm1(data))


@OPERATORS.add("LpNormalization", versions=(1, 22), why=_MISSING)
def lp_normalization(data: torch.Tensor, *, axis: int = -1, p: int = 2) -> torch.Tensor:
    """LpNormalization; a row of zeros stays one."""
    norm = torch.linalg.vector_norm(data, p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros((), dtype=data.dtype, device=data.device), data / norm)


@OPERATORS.add("Det", versions=(11, 22), why=_MISSING)
def det(data: torch.Tensor) -> torch.Tensor:
    """Det, the determinant."""
    determinant: torch.Tensor = torch.linalg.det(data)
    return determinant


@OPERATORS.add("Gemm", versions=(7, 13), why="a bias that broadcasts; a Linear where the weights are constants")
def gemm(
    one: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None,
    *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0,  # noqa: N803 - ONNX's names
) -> torch.Tensor:  # fmt: skip
    """Gemm: alpha * A' @ B' + beta * C."""
    result = torch.matmul(one.t() if transA else one, other.t() if transB else other)
    if alpha != 1.0:
        result = (result * alpha).to(result.dtype)
    if bias is None:
        return result
    return result + (bias if beta == 1.0 else (bias * beta).to(bias.dtype))


def _refuse_type(node: Node, graph: Graph) -> str | None:
    """Between element types that torch has, casts are alike."""
    wanted = node.attributes.get("to", TensorProto.FLOAT)
    known = [graph.type_of(name).dtype for name in (*node.inputs, *node.outputs)]
    if wanted not in TORCH_DTYPES or any(dtype and dtype not in TORCH_DTYPES for dtype in known):
        return "torch has no such element type (strings, eight- and four-bit floats)"
    return None


@OPERATORS.add(
    "Cast",
    versions=(6, 25),
    refuse=_refuse_type,
    why="half of onnx2torch's element types; the number of the type decides",
)
def cast(data: torch.Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> torch.Tensor:  # noqa: ARG001 - both are for eight-bit floats
    """Cast to an element type that torch has."""
    return data.to(TORCH_DTYPES[to])


@OPERATORS.add("CastLike", versions=(15, 25), refuse=_refuse_type, why=_MISSING)
def cast_like(data: torch.Tensor, target: torch.Tensor, *, saturate: int = 1, round_mode: str = "up") -> torch.Tensor:  # noqa: ARG001 - both are for eight-bit floats
    """Cast to another tensor's element type."""
    return data.to(target.dtype)


@OPERATORS.add("EyeLike", versions=(9, 22), why=_EYE)
def eye_like(data: torch.Tensor, *, dtype: int | None = None, k: int = 0) -> torch.Tensor:
    """EyeLike: ones on the k-th diagonal."""
    rows, columns = data.shape
    across = torch.arange(columns, device=data.device) - torch.arange(rows, device=data.device).unsqueeze(1)
    return (across == k).to(data.dtype if dtype is None else TORCH_DTYPES[dtype])


@OPERATORS.add("Trilu", versions=(14, 14), host=(1,), why=_MISSING)
def trilu(data: torch.Tensor, k: int | tuple[int] = 0, *, upper: int = 1) -> torch.Tensor:
    """Trilu: the upper or lower triangle."""
    k = k[0] if isinstance(k, tuple) else k
    return torch.triu(data, k) if upper else torch.tril(data, k)


@OPERATORS.add("Dropout", versions=(7, 22), host=(1, 2), many=True, why="the mask; no random numbers")
def dropout(
    data: torch.Tensor, ratio: float = 0.5, training: bool | None = None, *, seed: int = 0, count: int,  # noqa: ARG001, FBT001 - nothing here is random
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Dropout outside of training, or of nothing: the data as they are."""
    if training and ratio:
        raise GraphNotLowerable("Dropout", "", "the elements that it drops in training are random")
    return (data, torch.ones_like(data, dtype=torch.bool))[:count]
