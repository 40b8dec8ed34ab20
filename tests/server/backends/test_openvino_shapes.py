"""Shapes are asked about once."""

from collections.abc import Mapping

import numpy as np
import pytest

from server.backends.openvino_shapes import REMEMBERED, FittingShapes


class _Asked:
    def __init__(self) -> None:
        self.shapes: list[Mapping[str, tuple[int, ...]]] = []

    def infer(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes.append(shapes)
        if shapes["x"] == (7,):
            msg = "no"
            raise ValueError(msg)


def test_what_fitted_is_remembered_and_what_did_not_is_asked_again() -> None:
    """Only shapes that fit are kept, whatever the arrays hold."""
    asked = _Asked()
    shapes = FittingShapes(asked.infer)
    for value in range(3):
        shapes.check({"x": np.full(3, value)})
        with pytest.raises(ValueError, match="no"):
            shapes.check({"x": np.full(7, value)})
    assert asked.shapes == [{"x": (3,)}, {"x": (7,)}, {"x": (7,)}, {"x": (7,)}]


def test_only_so_many_are_remembered() -> None:
    """The latest ones stay, and one that is used again counts as late."""
    asked = _Asked()
    shapes = FittingShapes(asked.infer)
    sizes = [size for size in range(REMEMBERED + 1) if size != 7]
    for size in sizes:
        shapes.check({"x": np.zeros(size)})
    shapes.check({"x": np.zeros(sizes[0])})
    shapes.check({"x": np.zeros(5000)})
    count = len(asked.shapes)
    shapes.check({"x": np.zeros(sizes[0])})
    assert len(asked.shapes) == count
    shapes.check({"x": np.zeros(sizes[1])})
    assert len(asked.shapes) == count + 1
