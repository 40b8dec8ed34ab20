"""Rules of operators that work element by element, and of arithmetic on the few numbers that become shapes. Pure."""

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Final

import numpy as np
from onnx import TensorProto

from converter.rows.dimensions import (
    Number,
    Unproved,
    add,
    both,
    cast_whole,
    chosen,
    compare,
    computed,
    divide,
    largest,
    multiply,
    opposite,
    smallest,
    subtract,
)
from converter.rows.nodes import Inputs, Node, given, optional, present, rule
from converter.rows.values import MAX_CONTENT, Content, Value, broadcast, content_of, numbers_of, refuse_rows

Combine = Callable[[Number, Number], Number]


def _truth(holds: Callable[[int, int], bool]) -> Combine:
    def combine(a: Number, b: Number) -> Number:
        order = compare(a, b)
        return computed(holds.__name__, a, b) if order is None else Number(int(holds(order, 0)))

    return combine


_ARITHMETIC: Final[Mapping[str, Combine]] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Max": largest,
    "Min": smallest,
    "And": both,
    "Or": lambda a, b: opposite(both(opposite(a), opposite(b))),
    "Equal": _truth(operator.eq),
    "Less": _truth(operator.lt),
    "LessOrEqual": _truth(operator.le),
    "Greater": _truth(operator.gt),
    "GreaterOrEqual": _truth(operator.ge),
}
_WHOLE_TYPES: Final = frozenset({TensorProto.INT32, TensorProto.INT64})
_REAL_TYPES: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


_POINTWISE: Final = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "Mean", "Mish", "Mod", "Neg", "PRelu", "Pow", "Reciprocal", "RegexFullMatch",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
    "Sqrt", "StringConcat", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Xor",
    "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.LabelEncoder",
)  # fmt: skip


@rule(*_POINTWISE)
def pointwise(_node: Node, inputs: Inputs) -> list[Value]:
    """Each element of the result depends on the elements at its place alone."""
    return [broadcast(present(inputs))]


@rule(*_ARITHMETIC)
def arithmetic(node: Node, inputs: Inputs) -> list[Value]:
    """The same, and with known numbers the result is known too."""
    values = present(inputs)
    contents = [value.content for value in values if value.content is not None]
    if len(contents) < len(values) or node.proto.op_type not in _ARITHMETIC:
        return [broadcast(values)]
    combine = _ARITHMETIC[node.proto.op_type]
    try:
        return [numbers_of(reduce(lambda a, b: _combined(combine, a, b), contents))]
    except Unproved:
        return [broadcast(values)]  # which refuses numbers that depend on the number of rows


def _combined(combine: Combine, a: Content, b: Content) -> Content:
    left, right = np.broadcast_arrays(a, b)
    if left.size > MAX_CONTENT:
        raise Unproved("it computes too many numbers")
    return content_of((combine(x, y) for x, y in zip(left.flat, right.flat, strict=True)), left.shape)


@rule("Where")
def where(_node: Node, inputs: Inputs) -> list[Value]:
    """Chooses between elements; between known numbers where the choice is known."""
    choice, yes, no = (value.content for value in present(inputs))
    if choice is None or yes is None or no is None:
        return [broadcast(present(inputs))]
    parts = np.broadcast_arrays(choice, yes, no)
    return [numbers_of(content_of(map(chosen, *(part.flat for part in parts)), parts[0].shape))]


@rule("Not")
def negation(_node: Node, inputs: Inputs) -> list[Value]:
    """The opposite of each."""
    value = given(inputs, 0)
    if value.content is None or value.has_sizes:
        return [value.other]
    return [numbers_of(content_of(map(opposite, value.numbers), value.content.shape))]


@rule("Identity")
def identity(_node: Node, inputs: Inputs) -> list[Value]:
    """The tensor as it is."""
    return [given(inputs, 0)]


@rule("Dropout")
def dropout(_node: Node, inputs: Inputs) -> list[Value]:
    """The tensor as it is, outside training."""
    training = optional(inputs, 2)
    if training is not None and [number.value for number in training.numbers] != [0]:
        raise Unproved("it drops elements at random")
    value = given(inputs, 0)
    return [value, value.other]


@rule("Cast", "CastLike")
def cast(node: Node, inputs: Inputs) -> list[Value]:
    """Another dtype; whole numbers stay what they are in the types that shapes are computed in."""
    value = given(inputs, 0)
    if value.content is None:
        return [value]
    to = node.integer("to", 0)
    if to in _WHOLE_TYPES:
        return [numbers_of(content_of(map(cast_whole, value.numbers), value.content.shape))]
    refuse_rows(value)  # a float rounds large numbers
    values = [number.value for number in value.numbers]
    if to in _REAL_TYPES:
        kept = all(one is None or int(np.float32(one)) == one for one in values)
    else:
        kept = all(one in {0, 1} for one in values)
    return [value if kept else value.other]


@rule("QuantizeLinear", "DequantizeLinear")
def quantization(node: Node, inputs: Inputs) -> list[Value]:
    """Element by element with one scale, or with one for each place along an axis that is not that of the rows."""
    value = given(inputs, 0)
    others = present(inputs[1:])
    refuse_rows(*others)
    if any(other.dims for other in others):
        rank = len(value.dims)
        if value.axis == node.integer("axis", 1) % rank or node.integer("block_size", 0):
            raise Unproved("it scales along the axis of the rows")
    return [value.other]
