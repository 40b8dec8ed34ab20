"""Tests of `server.batching.joining`."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.batching.joining import form, join, split


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 4), st.sampled_from(["f4", "i8", "O"]))
def test_what_is_joined_comes_apart_again(sizes: list[int], missing: int, dtype: str) -> None:
    """For any sizes and dtypes, strings included; the rows added are the first of the last request."""
    total = sum(sizes)
    rows = np.arange(total * 2).reshape(total, 2)
    rows = rows.astype(str).astype(object) if dtype == "O" else rows.astype(dtype)
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    joined = join([{"x": part} for part in parts], total + missing)["x"]
    assert joined.dtype == rows.dtype
    assert joined[:total].tolist() == rows.tolist()
    assert joined[total:].tolist() == [parts[-1][0].tolist()] * missing
    assert [answer[0].tolist() for answer in split([joined], sizes)] == [part.tolist() for part in parts]


def test_one_request_is_not_copied() -> None:
    """A batch of one that needs no filling up is the request's own array."""
    x = np.ones((3, 2))
    assert join([{"x": x}], 3)["x"] is x


def test_lengths_are_made_equal() -> None:
    """In every axis but the first, by each tensor's own first element; inputs of equal length stay as they are."""
    one = {"x": np.array([[[7, 8]]]), "k": np.array([[1]])}
    other = {"x": np.array([[[1], [2], [3]], [[4], [5], [6]]]), "k": np.array([[2], [3]])}
    joined = join([one, other], 3)
    assert joined["x"].tolist() == [
        [[7, 8], [7, 7], [7, 7]],
        [[1, 1], [2, 1], [3, 1]],
        [[4, 1], [5, 1], [6, 1]],
    ]
    assert joined["k"].tolist() == [[1], [2], [3]]


def test_forms() -> None:
    """Rows do not matter; dtypes, names and ranks do; lengths unless any will do; without elements nothing is alike."""
    x = np.zeros((2, 3), np.float32)

    def alike(a: np.typing.NDArray[np.float32], b: np.typing.NDArray[np.float32], *, any_length: bool = False) -> bool:
        return form({"x": a}, any_length=any_length) == form({"x": b}, any_length=any_length)

    assert alike(x, np.zeros((5, 3), np.float32))
    assert not alike(x, np.zeros((2, 4), np.float32))
    assert alike(x, np.zeros((2, 4), np.float32), any_length=True)
    assert not alike(x, np.zeros((2, 4, 1), np.float32), any_length=True)
    assert not alike(x, x.astype(np.float16), any_length=True)
    assert form({"x": x}, any_length=False) != form({"y": x}, any_length=False)
    assert not alike(x[:, :0], x[:, :0])
