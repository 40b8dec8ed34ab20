"""Random inputs for a signature, and the search for random inputs that the model accepts.

Shapes and dtypes do not tell which integers are meaningful (token ids below the vocabulary's size, types 0 and 1) nor
which lengths. TensorFlow on a CPU refuses an index out of range, so trying finds out.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from converter.worker.samples import Inputs
from converter.worker.signature import Signature, Spec
from server.arrays import Array

LENGTHS: Final = (
    16,
    32,
    8,
    64,
    128,
    5,
    224,
    3,
    2,
    1,
    256,
    512,
)  # of dynamic dimensions, in the order of trying
_CEILINGS: Final = (
    30_000,
    10_000,
    3_000,
    1_000,
    256,
    100,
    32,
    10,
    5,
    3,
    2,
    1,
)  # integers are drawn below one of these
_RANKS: Final = (2, 1, 3, 4, 0)  # where even the rank is unknown
_LAST: Final = (None, 3, 1)  # sizes of a dynamic last dimension beside the length: colour channels
_MAX_ELEMENTS: Final = 1 << 23  # of one input
_SEARCH_SECONDS: Final = 90.0
_WORDS: Final = (
    b"the",
    b"quick",
    b"brown",
    b"fox",
    b"jumps",
    b"over",
    b"a",
    b"lazy",
    b"dog",
    b"again",
    b"",
    b"and on",
)

Answer = Callable[[Inputs], Mapping[str, Array] | None]  # None where TensorFlow refuses


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to draw inputs that the model accepts.

    Attributes:
        length: Size of every dynamic dimension but the batch.
        last: Size of dynamic last dimensions, where not the length.
        rank: Rank of inputs of unknown rank.
        ranges: Lowest value, and one beyond the highest, by integer input.
        uniform: Draw floats from [0, 1) rather than from the standard normal distribution.
        words: Strings to draw from.
    """

    length: int = 1
    last: int | None = None
    rank: int = 2
    ranges: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    uniform: bool = False
    words: Sequence[bytes] = _WORDS

    def shape(self, spec: Spec, batch: int | None) -> tuple[int, ...]:
        """The shape to draw for one input."""
        dimensions = spec.shape if spec.shape is not None else (None,) * self.rank
        sizes = [self.length if size is None else size for size in dimensions]
        if self.last is not None and len(sizes) > 1 and dimensions[-1] is None:
            sizes[-1] = self.last
        if batch is not None and sizes:
            sizes[0] = batch
        return tuple(sizes)


def draw(
    signature: Signature, plan: Plan, batch: int | None, rng: np.random.Generator, *, ends: bool = False
) -> dict[str, Array]:
    """Draw inputs; with `ends`, every integer input holds the ends of its range, so that trying tries them."""
    drawn = {spec.alias: _draw_one(spec, plan, plan.shape(spec, batch), rng) for spec in signature.inputs}
    for alias, (low, high) in plan.ranges.items() if ends else ():
        array = drawn[alias]
        if array.size:
            array.flat[-1] = low
            array.flat[0] = min(high - 1, int(np.iinfo(array.dtype).max))
    return drawn


def search(signature: Signature, answer: Answer, words: Sequence[bytes], rng: np.random.Generator) -> list[Plan]:
    """Find out how to draw inputs that the model accepts.

    Args:
        signature: The signature to call.
        answer: Asks TensorFlow, once.
        words: Strings that the model knows, from its tables.
        rng: Source of the trial inputs.

    Returns:
        A plan, then the same with another length if there are dynamic dimensions and it accepts another. Empty if it
        refused everything.
    """
    batch = 2 if signature.batchable else None
    deadline = time.monotonic() + _SEARCH_SECONDS

    def accepts(plan: Plan) -> Mapping[str, Array] | None:
        if any(_elements(plan.shape(spec, batch)) > _MAX_ELEMENTS for spec in signature.inputs):
            return None
        return answer(draw(signature, plan, batch, rng, ends=True))

    for candidate in _candidates(signature, (*words, *_WORDS)):
        if time.monotonic() > deadline:
            return []
        if accepts(candidate) is not None:
            plan = _finite(_widened(candidate, accepts), accepts)
            return [plan, *_other_length(signature, plan, accepts)]
    return []


def finite(outputs: Mapping[str, Array]) -> bool:
    """Whether no output holds NaN or infinity."""
    return all(bool(np.isfinite(array).all()) for array in outputs.values() if array.dtype.kind in "fcV")


def _candidates(signature: Signature, words: Sequence[bytes]) -> Iterator[Plan]:
    shapes = [spec.shape for spec in signature.inputs]
    first = 1 if signature.batchable else 0
    dynamic = any(shape is None or None in shape[first:] for shape in shapes)
    unknown = any(shape is None for shape in shapes)
    last = any(shape and len(shape) > 2 and shape[-1] is None for shape in shapes)
    integers = [spec for spec in signature.inputs if spec.numpy_dtype.kind in "iu"]
    pairs = [(0, ceiling) for ceiling in _CEILINGS] + [(1, 10), (1, 3), (1, 2)]
    for rank, channels, length, pair in itertools.product(
        _RANKS if unknown else (2,),
        _LAST if last else (None,),
        LENGTHS if dynamic else (1,),
        pairs if integers else [(0, 1)],
    ):
        yield Plan(length, channels, rank, {spec.alias: pair for spec in integers}, words=words)


def _widened(plan: Plan, accepts: Callable[[Plan], Mapping[str, Array] | None]) -> Plan:
    """Let each integer input have the widest range that the model accepts beside the others' ranges."""
    for alias, (low, high) in plan.ranges.items():
        for ceiling in (c for c in _CEILINGS if c > high):
            wider = dataclasses.replace(plan, ranges={**plan.ranges, alias: (low, ceiling)})
            if accepts(wider) is not None:
                plan = wider
                break
    return plan


def _finite(plan: Plan, accepts: Callable[[Plan], Mapping[str, Array] | None]) -> Plan:
    """Draw floats from [0, 1) if the model computes NaN or infinity from normally distributed ones."""
    outputs = accepts(plan)
    if outputs is not None and finite(outputs):
        return plan
    uniform = dataclasses.replace(plan, uniform=True)
    return plan if accepts(uniform) is None else uniform


def _other_length(
    signature: Signature, plan: Plan, accepts: Callable[[Plan], Mapping[str, Array] | None]
) -> Iterator[Plan]:
    first = 1 if signature.batchable else 0
    if not any(spec.shape is None or None in spec.shape[first:] for spec in signature.inputs):
        return
    for length in LENGTHS:
        other = dataclasses.replace(plan, length=length)
        if length != plan.length and accepts(other) is not None:
            yield other
            return


def _elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _draw_one(spec: Spec, plan: Plan, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype = spec.numpy_dtype
    if dtype == np.dtype(object):
        return _draw_words(plan.words, shape, rng)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape) > 0
    if dtype.kind in "iu":
        low, high = plan.ranges[spec.alias]
        high = min(high, int(np.iinfo(dtype).max) + 1)
        return np.asarray(rng.integers(low, high, shape, dtype=dtype))
    values = rng.random(shape) if plan.uniform else rng.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def _draw_words(words: Sequence[bytes], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    array = np.empty(_elements(shape), dtype=object)
    array[:] = [words[index] for index in rng.integers(0, len(words), array.size)]
    return array.reshape(shape)
