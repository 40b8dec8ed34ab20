"""`samples`: representative inputs are checked against the signature and become batches of distinct rows."""

from typing import Any

import numpy as np
import pytest

from converter.worker.protocol import FailureKind, WorkerFailure
from converter.worker.samples import Question, conform, questions, shortened
from tests.converter.worker.describing import signature, spec

_X = signature(spec("x", np.float32, (None, 2)))


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.array([[1, 2]], np.int64), np.int32, (None, 2)),
        (np.array([[0.5, 2]], np.float64), np.float32, (None, 2)),
        (np.array([[0.5, np.nan]], np.float64), np.float32, (None, 2)),
        (np.array([[1, 255]], np.int64), np.uint8, (1, 2)),
        (np.array([b"a"], object), object, (None,)),
        (np.array(3.0, np.float32), np.float32, ()),
        (np.zeros((2, 3), np.float32), np.float32, None),
    ],
)
def test_lossless_casts(array: np.ndarray, dtype: Any, shape: Any) -> None:
    """Inputs whose values the signature's dtype can hold are cast to it."""
    got = conform(signature(spec("x", dtype, shape)), {"x": array})["x"]
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": np.array([[0.1, 2]])}, "'x' has dtype float64, and float32 is needed"),
        ({"x": np.array([[1 << 24, (1 << 24) + 1]])}, "dtype int64"),
        ({"x": np.array([[True, False]])}, "dtype bool"),
        ({"x": np.array([[b"a", b"b"]], object)}, "dtype string, and float32"),
        ({"x": np.zeros(2, np.float32)}, "shape [2], and [?, 2] is needed"),
        ({"x": np.zeros((1, 3), np.float32)}, "shape [1, 3]"),
        ({}, "input 'x' is missing; its inputs are 'x'"),
        ({"x": np.zeros((1, 2), np.float32), "y": np.zeros(1)}, "there is no input 'y'"),
    ],
)
def test_rejections_name_the_input(inputs: dict[str, np.ndarray], words: str) -> None:
    """A sample that does not fit is rejected in words that name the alias and what is needed."""
    with pytest.raises(WorkerFailure) as caught:
        conform(_X, inputs)
    assert caught.value.kind is FailureKind.INPUTS_REJECTED
    assert words in caught.value.cause


def test_strings_are_not_numbers() -> None:
    """A number where a string is needed is rejected too."""
    with pytest.raises(WorkerFailure, match="and string is needed"):
        conform(signature(spec("x", object, (None,))), {"x": np.zeros(1)})


def test_rows_become_batches() -> None:
    """Distinct rows of all samples are pooled, cut into batches, and gone around when they run out."""
    first = np.array([[1, 1], [2, 2], [1, 1]], np.float32)
    made = questions(_X, [{"x": first}, {"x": np.array([[3, 3]], np.float32)}], [1, 2, 5])
    assert [question.batch for question in made] == [1, 2, 5]
    assert [question.inputs["x"][:, 0].tolist() for question in made] == [[1], [2, 3], [1, 2, 3, 1, 2]]


def test_rows_stay_together() -> None:
    """A row is the same row in every input, strings included."""
    both = signature(spec("n", np.int64, (None,)), spec("s", object, (None,)))
    strings = np.array([b"1", b"2", b"2"], object)
    made = questions(both, [{"n": np.array([1, 2, 2]), "s": strings}], [5])
    assert made[0].inputs["n"].tolist() == [1, 2, 1, 2, 1]
    assert made[0].inputs["s"].tolist() == [b"1", b"2", b"1", b"2", b"1"]


def test_other_row_shapes_appear() -> None:
    """Samples of another length make a case of their own beside the batches."""
    series = signature(spec("x", np.float32, (None, None)))
    long, short = np.zeros((2, 7), np.float32), np.ones((3, 4), np.float32)
    made = questions(series, [{"x": long}, {"x": short}], [1, 2])
    assert [(question.batch, question.inputs["x"].shape) for question in made] == [
        (1, (1, 7)),
        (2, (2, 7)),
        (1, (1, 4)),
    ]


@pytest.mark.parametrize("sizes", [(2, 3), (0, 0)])
def test_unequal_rows_are_taken_as_given(sizes: tuple[int, int]) -> None:
    """Inputs with different, or no, first dimensions are not batches: they go in as they are."""
    two = signature(spec("x", np.float32, (None,)), spec("y", np.float32, (None,)))
    sample = {"x": np.zeros(sizes[0], np.float32), "y": np.zeros(sizes[1], np.float32)}
    (made,) = questions(two, [sample], [1, 2])
    assert made.batch is None
    assert made.inputs is sample


def test_shortened() -> None:
    """Dynamic dimensions but the batch are cut to half, equal ones alike; without any there is nothing to cut."""
    two = signature(spec("a", np.float32, (None, None, 4)), spec("b", np.int32, (None, None)))
    question = Question(2, {"a": np.zeros((2, 7, 4), np.float32), "b": np.zeros((2, 7), np.int32)})
    shorter = shortened(two, question)
    assert shorter is not None
    assert [array.shape for array in shorter.inputs.values()] == [(2, 4, 4), (2, 4)]
    assert shortened(_X, Question(2, {"x": np.zeros((2, 2), np.float32)})) is None
