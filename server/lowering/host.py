"""Operators on shapes: Python numbers and tuples of them, never tensors.

A value of rank 0 is a number, one of rank 1 a tuple of numbers; higher ranks do not occur. While a module is traced,
numbers may be torch's symbolic ones, so nothing here asks for their value where that is not needed.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from onnx import TensorProto

# A number is an int, float or bool, or torch's symbolic form of one.
Number = Any
Value = Any  # a Number or a tuple of them

_INTEGERS: Final = frozenset({
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
})  # fmt: skip
_BOOL: Final = int(TensorProto.BOOL)


def shape(data: torch.Tensor, *, start: int = 0, end: int | None = None) -> Value:
    """Shape: the sizes of a tensor, or of the axes from `start` to `end`."""
    return tuple(data.shape)[start:end]


def size(data: torch.Tensor) -> Value:
    """Size: the number of elements."""
    return data.numel()


def pick(data: Value, indices: Value, *, axis: int = 0) -> Value:  # noqa: ARG001 - a tuple has one axis
    """Gather."""
    if isinstance(indices, tuple):
        return tuple(data[index] for index in indices)
    return data[indices]


def concat(*values: Value, axis: int = 0) -> Value:  # noqa: ARG001 - a tuple has one axis
    """Concat."""
    return tuple(number for value in values for number in value)


def cut(data: Value, starts: Value, ends: Value, axes: Value = (0,), steps: Value = (1,)) -> Value:  # noqa: ARG001
    """Slice; `axes` can only name the one axis of a tuple."""
    return data[starts[0] : ends[0] : steps[0]]


def cast(data: Value, *, to: int, saturate: int = 1) -> Value:  # noqa: ARG001 - for eight-bit floats
    """Cast between whole numbers, single-precision numbers and truth values."""
    if to in _INTEGERS:
        return _each(_whole, data)
    if to == _BOOL:
        return _each(lambda number: number != 0, data)
    return _each(_real, data)


def unsqueeze(data: Value, axes: Value) -> Value:  # noqa: ARG001 - there is one way to make a tuple of a number
    """Unsqueeze a number."""
    return (data,)


def squeeze(data: Value, axes: Value = None) -> Value:  # noqa: ARG001 - there is one axis to drop
    """Squeeze."""
    if not isinstance(data, tuple):
        return data
    (number,) = data
    return number


def reshape(data: Value, target: Value, *, allowzero: int = 0) -> Value:  # noqa: ARG001 - sizes stay what they are
    """Reshape to rank 0 or 1, which the inferred rank of the result has shown this to be."""
    numbers = data if isinstance(data, tuple) else (data,)
    return numbers if target else numbers[0]


def same(data: Value, *, perm: tuple[int, ...] = (0,)) -> Value:  # noqa: ARG001 - there is one order of one axis
    """Identity and Transpose, which change nothing below rank 2."""
    return data


def constant_of_shape(target: Value, *, value: Number = 0) -> Value:
    """ConstantOfShape."""
    return (value,) * target[0] if target else value


def expand(data: Value, target: Value) -> Value:
    """Expand."""
    if not target:
        return data
    numbers = data if isinstance(data, tuple) else (data,)
    return numbers * target[0] if len(numbers) == 1 else numbers


def tile(data: Value, repeats: Value) -> Value:
    """Tile."""
    return data * repeats[0]


def spread(start: Number, limit: Number, delta: Number) -> Value:
    """Range."""
    return tuple(range(start, limit, delta))


def where(condition: Value, one: Value, other: Value) -> Value:
    """Where. A condition on a symbolic size is decided, and recorded as an assumption, while tracing."""
    return _each(lambda flag, a, b: a if flag else b, condition, one, other)


def power(base: Value, exponent: Value) -> Value:
    """Pow."""
    return _each(operator.pow, base, exponent)


def _whole(number: Number) -> Number:
    """Rounded towards zero, as ONNX does."""
    return torch.sym_int(number)


def _real(number: Number) -> Number:
    """As a single-precision number: whole numbers below 2**24, which sizes are, are exact as they are."""
    return torch.sym_float(number)


def _rounded(number: float) -> float:
    """Python computes in double precision, the model in single."""
    return float(np.float32(number))


def _divide(one: Number, other: Number) -> Number:
    if _is_real(one) or _is_real(other):
        return _single(operator.truediv, one, other)
    if one >= 0 and other > 0:
        return one // other
    quotient = abs(one) // abs(other)
    return quotient if (one >= 0) == (other > 0) else -quotient


def _is_real(number: Number) -> bool:
    return isinstance(number, (float, torch.SymFloat))


def _single(function: Callable[[Number, Number], Number], one: Number, other: Number) -> Number:
    """A product or quotient in single precision.

    The result stays in double precision where rounding up or down afterwards must give the same: dividing by a whole
    number, or scaling by a power of two. In other cases a symbolic size is pinned to its value.
    """
    if isinstance(other, float):
        exact = other.is_integer() if function is operator.truediv else math.frexp(other)[0] in {0.5, -0.5}
        if exact:
            return function(one, other)
    return _rounded(function(float(one), float(other)))


def _multiply(one: Number, other: Number) -> Number:
    if _is_real(one) or _is_real(other):
        return _single(operator.mul, one, other) if _is_real(one) else _single(operator.mul, other, one)
    return one * other


def _each(function: Callable[..., Number], *values: Value) -> Value:
    """Apply a function element by element; numbers, and tuples of one number, go with every element of the others."""
    length = max((len(value) for value in values if isinstance(value, tuple)), default=None)
    if all(len(value) == 1 for value in values if isinstance(value, tuple)) and length is not None:
        return (function(*(value[0] if isinstance(value, tuple) else value for value in values)),)
    if length is None:
        return function(*values)
    rows = [value * length if isinstance(value, tuple) and len(value) == 1 else value for value in values]
    columns = [row if isinstance(row, tuple) else (row,) * length for row in rows]
    return tuple(function(*column) for column in zip(*columns, strict=True))


def _elementwise(function: Callable[..., Number]) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        return _each(function, *values)

    return apply


def _folded(function: Callable[[Number, Number], Number]) -> Callable[..., Value]:
    """An operator with any number of inputs."""

    def apply(*values: Value) -> Value:
        result = values[0]
        for value in values[1:]:
            result = _each(function, result, value)
        return result

    return apply


def _reduced(function: Callable[[Sequence[Number]], Number]) -> Callable[..., Value]:
    def reduce(data: Value, axes: Value = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        if not isinstance(data, tuple) or (noop_with_empty_axes and not axes):
            return data
        result = function(data)
        return (result,) if keepdims else result

    return reduce


def _product(numbers: Sequence[Number]) -> Number:
    result = 1
    for number in numbers:
        result = _multiply(result, number)
    return result


def _maximum(one: Number, other: Number) -> Number:
    return torch.sym_max(one, other)


def _minimum(one: Number, other: Number) -> Number:
    return torch.sym_min(one, other)


def _largest(numbers: Sequence[Number]) -> Number:
    return _folded(_maximum)(*numbers)


def _smallest(numbers: Sequence[Number]) -> Number:
    return _folded(_minimum)(*numbers)


def _modulo(one: Number, other: Number) -> Number:
    return one % other


HOST: Final[Mapping[str, Callable[..., Value]]] = {
    "Abs": _elementwise(abs), "Add": _elementwise(operator.add), "And": _elementwise(lambda a, b: a and b),
    "Cast": cast, "Ceil": _elementwise(lambda a: _real(math.ceil(a))), "Concat": concat,
    "ConstantOfShape": constant_of_shape, "Div": _elementwise(_divide), "Equal": _elementwise(operator.eq),
    "Expand": expand, "Floor": _elementwise(lambda a: _real(math.floor(a))), "Gather": pick,
    "Greater": _elementwise(operator.gt), "GreaterOrEqual": _elementwise(operator.ge), "Identity": same,
    "Less": _elementwise(operator.lt), "LessOrEqual": _elementwise(operator.le), "Max": _folded(_maximum),
    "Min": _folded(_minimum), "Mod": _elementwise(_modulo), "Mul": _elementwise(_multiply),
    "Neg": _elementwise(operator.neg), "Not": _elementwise(operator.not_), "Or": _elementwise(lambda a, b: a or b),
    "Range": spread, "ReduceMax": _reduced(_largest), "ReduceMin": _reduced(_smallest),
    "ReduceProd": _reduced(_product), "ReduceSum": _reduced(sum), "Reshape": reshape, "Shape": shape, "Size": size,
    "Slice": cut, "Squeeze": squeeze, "Sub": _elementwise(operator.sub), "Tile": tile, "Transpose": same,
    "Unsqueeze": unsqueeze, "Where": where,
}  # fmt: skip
