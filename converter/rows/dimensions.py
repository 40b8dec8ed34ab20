"""Numbers known by a formula: sizes of axes, and what graphs compute from them. Pure.

A number is a factor times symbols. The symbol BATCH is the number of rows that are run together; every other symbol
stands for a number that depends on the weights and on the sizes of the other axes of the inputs, which are equal
wherever rows are joined. What cannot be written so, or would have to be rounded, becomes a symbol of its own, named by
how it was computed, so that the same computation gives the same symbol; but only if BATCH is not in it.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

BATCH: Final = "batch"
_FRACTION: Final = "~"  # begins the symbols of numbers that need not be whole


class Unproved(Exception):
    """The analysis cannot show that rows stay apart; the text says where it ends."""


@dataclass(frozen=True, slots=True)
class Number:
    """`factor` times the product of `symbols`, which are sorted. Only constants of the graph may be fractions."""

    factor: int | Fraction
    symbols: tuple[str, ...] = ()

    @property
    def value(self) -> int | Fraction | None:
        """The number itself, if no symbol is in it."""
        return None if self.symbols else self.factor

    @property
    def has_batch(self) -> bool:
        """True if it depends on how many rows are run together."""
        return BATCH in self.symbols

    @property
    def per_row(self) -> "Number | None":
        """The number divided by the number of rows, if that is a factor of it exactly once."""
        if self.symbols.count(BATCH) != 1:
            return None
        return Number(self.factor, tuple(symbol for symbol in self.symbols if symbol != BATCH))

    def __mul__(self, other: "Number") -> "Number":
        factor = self.factor * other.factor
        return Number(factor, tuple(sorted(self.symbols + other.symbols)) if factor else ())

    def __str__(self) -> str:
        return "*".join([str(self.factor), *self.symbols] if self.factor != 1 or not self.symbols else self.symbols)


ONE: Final = Number(1)
ROWS: Final = Number(1, (BATCH,))


def product(numbers: Iterable[Number]) -> Number:
    """All of them multiplied."""
    result = ONE
    for number in numbers:
        result *= number
    return result


def divided(a: Number, b: Number) -> Number | None:
    """The quotient where it is exact whatever the symbols stand for; None elsewhere."""
    missing = Counter(b.symbols) - Counter(a.symbols)
    if b.factor == 0 or missing or a.factor % b.factor:
        return None
    return Number(a.factor // b.factor, tuple(sorted((Counter(a.symbols) - Counter(b.symbols)).elements())))


def symbol(name: str, *, whole: bool = True) -> Number:
    """A number known by its name alone, of which the digest is kept, for names nest."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return Number(1, (digest if whole else _FRACTION + digest,))


def computed(operation: str, *numbers: Number, whole: bool = True) -> Number:
    """The result of an operation that nothing more is known of.

    Raises:
        Unproved: it depends on the number of rows.
    """
    if any(number.has_batch for number in numbers):
        raise Unproved(f"{operation} of a number that depends on how many rows there are")
    return symbol(f"{operation}({','.join(map(str, numbers))})", whole=whole)


def add(a: Number, b: Number) -> Number:
    """The sum."""
    if not _whole(a, b):
        return computed("add", *sorted((a, b), key=str), whole=False)
    if a.factor == 0:
        return b
    if b.factor == 0:
        return a
    if a.symbols == b.symbols:
        factor = a.factor + b.factor
        return Number(factor, a.symbols if factor else ())
    return computed("add", *sorted((a, b), key=str))


def subtract(a: Number, b: Number) -> Number:
    """The difference."""
    return add(a, Number(-b.factor, b.symbols))


def multiply(a: Number, b: Number) -> Number:
    """The product."""
    return a * b if _whole(a, b) else computed("mul", *sorted((a, b), key=str), whole=False)


def divide(a: Number, b: Number) -> Number:
    """The quotient, as integers or as floats: what is not exact is known by name alone."""
    exact = divided(a, b) if _whole(a, b) else None
    return computed("div", a, b, whole=False) if exact is None else exact


def _larger(wanted: Callable[[bool], bool], name: str) -> Callable[[Number, Number], Number]:
    def chosen(a: Number, b: Number) -> Number:
        order = compare(a, b)
        if order is None:
            return computed(name, *sorted((a, b), key=str), whole=_whole(a, b))
        return a if wanted(order >= 0) else b

    return chosen


largest = _larger(lambda first: first, "max")
smallest = _larger(lambda first: not first, "min")


def compare(a: Number, b: Number) -> int | None:
    """Negative, 0 or positive as a is less than, equal to or more than b; None if that is not known.

    There is one row at least.
    """
    if a == b:
        return 0
    if a.value is not None and b.value is not None:
        return (a.value > b.value) - (a.value < b.value)
    for one, other, sign in ((a, b, 1), (b, a, -1)):
        if set(one.symbols) == {BATCH} and one.factor >= 1 and other.value is not None and other.value < one.factor:
            return sign
    return None


def both(a: Number, b: Number) -> Number:
    """Whether both are true, as 1 or 0."""
    if 0 in {a.value, b.value}:
        return Number(0)
    return ONE if a == b == ONE else computed("and", *sorted((a, b), key=str))


def opposite(a: Number) -> Number:
    """Whether it is false, as 1 or 0."""
    return computed("not", a) if a.value is None else Number(int(not a.value))


def chosen(condition: Number, yes: Number, no: Number) -> Number:
    """One of two, by a truth that may be unknown."""
    if condition.value is not None or yes == no:
        return yes if condition.value else no
    return computed("where", condition, yes, no, whole=_whole(yes, no))


def cast_whole(number: Number) -> Number:
    """The number as an integer type has it."""
    return number if _whole(number) else computed("int", number)


def _whole(*numbers: Number) -> bool:
    return all(
        isinstance(number.factor, int) and not any(name.startswith(_FRACTION) for name in number.symbols)
        for number in numbers
    )
