"""Tests of `converter.graph.sizes`."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converter.graph.sizes import Product, Shape, Size, named, product, quotient, reshape_target, reshaped

RUNS = ({"a": 2, "b": 3}, {"a": 5, "b": 5}, {"a": 1, "b": 4})
sizes = st.sampled_from([1, 2, 3, 4, named("a"), named("b"), product([2, named("a")])])
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


def concrete(shape: Shape, run: dict[str, int]) -> list[int]:
    """A shape in one run."""
    return [number(size, run) for size in shape]


def number(size: Size, run: dict[str, int]) -> int:
    """A size in one run."""
    return size if isinstance(size, int) else size.factor * math.prod(run[name] for name in size.names)


def test_products_and_quotients() -> None:
    """Numbers multiply, names gather, and what does not divide is unknown."""
    both = product([2, named("b"), 3, named("a")])
    assert both == Product(6, ("a", "b"))
    assert quotient(both, named("a")) == Product(6, ("b",))
    assert quotient(both, product([6, named("a"), named("b")])) == 1
    assert quotient(both, 4) is None
    assert quotient(named("a"), named("b")) is None
    assert product([named("a"), 0]) == 0


def test_copies_and_remainders() -> None:
    """ONNX's 0 and -1 mean what Reshape makes of them, also where the batch is dynamic."""
    source: Shape = (named("batch"), 17, 64)
    assert reshaped(source, [0, -1, 4, 16]) == [named("batch"), 17, 4, 16]
    assert reshaped(source, [-1, 64]) == [product([17, named("batch")]), 64]
    assert reshaped(source, [-1, None]) == [None, None]


@given(shapes, shapes)
def test_a_constant_target_leads_where_it_should_in_every_run(source: Shape, wanted: Shape) -> None:
    """Whatever sizes a run has, Reshape with the constant target gives the wanted shape."""
    target = reshape_target(source, wanted)
    for run in RUNS:
        if target is not None:
            before = np.zeros(concrete(source, run))
            copied = [before.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
            assert list(before.reshape(copied).shape) == concrete(wanted, run)


@given(shapes)
def test_every_shape_leads_to_itself_unless_two_sizes_are_unknown(shape: Shape) -> None:
    """A reshape to the same shape always has a constant target: copies."""
    assert reshape_target(shape, shape) is not None
