"""Sizes of dimensions: numbers, and products of names where a dimension is dynamic."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """A size that is known at run time only: a number times named sizes, in the names' order.

    Two dimensions of one name are equal in every run; of different names nothing is known.
    """

    factor: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "*".join([str(self.factor)] * (self.factor != 1) + list(self.names))


Size = int | Product
Shape = tuple[Size, ...]


def named(name: str) -> Product:
    """The size of that name alone."""
    return Product(1, (name,))


def product(sizes: Iterable[Size]) -> Size:
    """The number of elements of a shape with these dimensions."""
    factor, names = 1, list[str]()
    for size in sizes:
        factor *= size if isinstance(size, int) else size.factor
        names.extend(() if isinstance(size, int) else size.names)
    return Product(factor, tuple(sorted(names))) if names and factor else factor


def quotient(whole: Size, part: Size) -> Size | None:
    """The size that times `part` gives `whole`, or None where the division does not come out."""
    factors, names = _parts(whole)
    divisor, divided = _parts(part)
    if divisor == 0 or factors % divisor or divided - names:
        return None
    return product([factors // divisor, *map(named, (names - divided).elements())])


def _parts(size: Size) -> tuple[int, Counter[str]]:
    return (size, Counter()) if isinstance(size, int) else (size.factor, Counter(size.names))


def reshaped(source: Shape, target: Sequence[Size | None]) -> list[Size | None]:
    """What ONNX's Reshape makes of a shape: 0 copies a dimension, -1 takes what is left.

    Args:
        source: The shape before.
        target: The second input's elements; None where nothing is known of one.

    Returns:
        The shape after; None for dimensions of which nothing is known.
    """
    copied = [source[axis] if size == 0 and axis < len(source) else size for axis, size in enumerate(target)]
    if -1 in copied:
        others = [size for size in copied if size != -1]
        known = [size for size in others if size is not None]
        rest = quotient(product(source), product(known)) if len(known) == len(others) else None
        copied[copied.index(-1)] = rest
    return copied


def reshape_target(source: Shape, wanted: Shape) -> list[int] | None:
    """A constant second input with which Reshape leads from one shape to the other, or None if there is none."""
    target: list[int] = []
    for axis, size in enumerate(wanted):
        if isinstance(size, int):
            if size == 0:
                return None  # 0 means another thing there
            target.append(size)
        else:
            target.append(0 if axis < len(source) and source[axis] == size else -1)
    if target.count(-1) > 1 or not math.prod(size for size in wanted if isinstance(size, int)):
        return None
    if -1 not in target and product(source) != product(wanted):
        return None
    return target if tuple(reshaped(source, target)) == wanted else None
