"""Rules over the sizes of arrays, as text: `d[0][1] >= 2` says that axis 1 of the first input has at least two.

Whole numbers, `+ - * // %`, `min`, `max`, comparisons, `and`, `or`, `not`: nothing else, and nothing
of Python's is ever run.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Final

Shapes = Sequence[Sequence[int]]

_NUMBERS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[int, int], bool]]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


class SizeRule:
    """One rule."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            ValueError: it is no such rule.
        """
        self.text = text
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} is no rule over sizes") from error
        _require_known(self._tree, text)

    def holds(self, shapes: Shapes) -> bool:
        """Whether it holds for the inputs of these shapes; one that divides by zero does not."""
        try:
            return bool(_value(self._tree, shapes))
        except ZeroDivisionError:
            return False


def _require_known(node: ast.AST, text: str) -> None:
    inner: Sequence[ast.AST]
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARISONS for op in ops):
            inner = [left, *others]
        case ast.BoolOp(values=values):
            inner = values
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            inner = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _NUMBERS:
            inner = [left, right]
        case ast.Call(func=ast.Name(id="min" | "max"), args=inner, keywords=[]) if len(inner) > 1:
            pass
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            inner = []
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id="d"), slice=ast.Constant(value=int())),
            slice=ast.Constant(value=int()),
        ):
            inner = []
        case _:
            raise ValueError(f"{text!r} is no rule over sizes")
    for each in inner:
        _require_known(each, text)


def _value(node: ast.AST, shapes: Shapes) -> int:
    """What a part of a rule comes to; truth values count as numbers, as in Python."""
    result: int
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(each, shapes) for each in (left, *others)]
            result = all(_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, values, values[1:], strict=False))
        case ast.BoolOp(op=op, values=parts):
            result = (all if isinstance(op, ast.And) else any)(_value(part, shapes) for part in parts)
        case ast.UnaryOp(op=op, operand=operand):
            result = not _value(operand, shapes) if isinstance(op, ast.Not) else -_value(operand, shapes)
        case ast.BinOp(left=left, op=op, right=right):
            result = _NUMBERS[type(op)](_value(left, shapes), _value(right, shapes))
        case ast.Call(func=func, args=parts):
            pick = min if isinstance(func, ast.Name) and func.id == "min" else max
            result = pick(_value(part, shapes) for part in parts)
        case ast.Subscript(value=ast.Subscript(slice=ast.Constant(value=place)), slice=ast.Constant(value=axis)):
            result = shapes[int(str(place))][int(str(axis))]
        case ast.Constant(value=number):
            result = int(str(number))
        case _:  # __init__ lets nothing else through
            raise AssertionError(node)
    return result
