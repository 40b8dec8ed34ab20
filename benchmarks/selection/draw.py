"""Random numbers whose streams stay the same across numpy's versions: all come from uniform doubles of PCG64."""

import math
import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def stream(*key: str | int) -> np.random.Generator:
    """A generator for a key. Streams of different keys are independent."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal numbers by Box and Muller's transform; numpy does not promise to keep its own stream."""
    radius = np.sqrt(-2 * np.log1p(-generator.random(shape)))
    turned: NDArray[np.float64] = radius * np.cos(2 * math.pi * generator.random(shape))
    return turned


class Draw:
    """Draws a scenario's facts, rounded to six digits so that no two machines disagree about the last bit."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def even(self, low: float, high: float) -> float:
        """Evenly between the bounds."""
        return rounded(low + (high - low) * self._generator.random())

    def log(self, low: float, high: float) -> float:
        """Evenly on the logarithmic scale."""
        return rounded(low * (high / low) ** self._generator.random())

    def whole(self, low: int, high: int) -> int:
        """A whole number, both bounds included."""
        return low + int(self._generator.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Whether it happens."""
        return bool(self._generator.random() < probability)

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.whole(0, len(items) - 1)]


def rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
