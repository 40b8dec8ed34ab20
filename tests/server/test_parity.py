"""Tests of `server.parity`."""

import ml_dtypes
import numpy as np
import pytest

from server.arrays import Array
from server.backends.interface import Precision
from server.parity import Difference, Tolerance, allowed, compare, default_tolerance

EXACT = Tolerance(0.0, 0.0)
LOOSE = Tolerance(1e-5, 1e-3)


def test_equal_answers_pass_exactly() -> None:
    """No difference is measured where there is none, infinities and NaN included."""
    answer = np.array([1.0, -2.0, np.inf, -np.inf, np.nan], np.float32)
    assert compare(answer, answer.copy(), EXACT) == Difference(0.0, 0.0, 5)


def test_the_rule_is_absolute_plus_relative() -> None:
    """An element passes up to absolute + relative x |expected| and fails beyond it."""
    expected = np.array([100.0, 0.0], np.float64)
    assert not compare(expected, np.array([100.1, 1e-5]), LOOSE).problem
    assert "1 of 2 elements" in compare(expected, np.array([100.2, 0.0]), LOOSE).problem
    assert "1 of 2 elements" in compare(expected, np.array([100.0, 2e-5]), LOOSE).problem


def test_what_was_measured_is_reported() -> None:
    """The largest differences are given even where the answer passes."""
    measured = compare(np.array([2.0, 4.0]), np.array([2.0, 4.002]), LOOSE)
    assert measured.problem == ""
    assert measured.max_absolute == pytest.approx(0.002)
    assert measured.max_relative == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (np.zeros(3, np.float64), "dtype is float64, TensorFlow's is float32"),
        (np.zeros((3, 1), np.float32), "shape is [3, 1], TensorFlow's is [3]"),
        (np.array([0, np.nan, 0], np.float32), "NaN or infinity"),
        (np.array([0, np.inf, 0], np.float32), "NaN or infinity"),
    ],
)
def test_form_comes_before_values(got: Array, words: str) -> None:
    """A wrong dtype or shape, or a NaN of the backend's own, is never taken for rounding."""
    assert words in compare(np.zeros(3, np.float32), got, Tolerance(1e9, 1e9)).problem


def test_a_sign_of_infinity_matters() -> None:
    """Infinity is not minus infinity."""
    assert compare(np.array([np.inf]), np.array([-np.inf]), LOOSE).problem


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True, False]), np.array([True, True])),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)),
    ],
)
def test_what_is_not_a_float_must_be_equal(
    expected: Array,
    got: Array,
) -> None:
    """Integers, booleans and strings have no rounding to forgive, whatever the tolerance."""
    assert "1 of 2" in compare(expected, got, Tolerance(10, 10)).problem
    assert not compare(expected, expected.copy(), EXACT).problem


def test_empty_answers_are_equal() -> None:
    """A batch of no rows has nothing to differ in."""
    assert compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), EXACT) == Difference()


def test_the_default_gate_grows_with_the_output() -> None:
    """Rounding is proportional to values, so a box coordinate of 300 may differ more than a probability."""
    assert default_tolerance([np.array([0.5], np.float32)]) == Tolerance(1e-5, 1e-3)
    assert default_tolerance([np.array([-300.0, np.inf], np.float32)]) == Tolerance(1e-5 * 300, 1e-3)
    assert default_tolerance([np.array([1], np.int32)]) == Tolerance(0.0, 0.0)


def test_half_precision_outputs_get_their_own_gate() -> None:
    """float16 and bfloat16 answers are compared at their own resolution."""
    assert default_tolerance([np.zeros(1, np.float16)]).relative == 4e-3
    assert default_tolerance([np.zeros(1, ml_dtypes.bfloat16)]).relative == 3e-2
    ones = np.ones(2, ml_dtypes.bfloat16)
    assert compare(ones, ones.copy(), EXACT) == Difference(0.0, 0.0, 2)


def test_measurements_add_up() -> None:
    """Several cases of one output become one figure; the first problem stays."""
    both = Difference(1.0, 0.1, 2).merged(Difference(0.5, 0.2, 3, "bad"))
    assert both == Difference(1.0, 0.2, 5, "bad")


@pytest.mark.parametrize(
    ("precision", "unit"), [(Precision.TF32, 2.0**-10), (Precision.BF16, 2.0**-7), (Precision.FP16, 2.0**-10)]
)
def test_lower_precision_is_held_to_its_own_rounding(precision: Precision, unit: float) -> None:
    """Four units in the last place of the output's range, however large or small the output is."""
    manifest = Tolerance(1e-5, 1e-3)
    for scale in (1e-3, 1.0, 1e4):
        expected = np.array([-3.0, 0.0, 8.0], np.float32) * np.float32(scale)
        tolerance = allowed(manifest, precision, [expected, expected / 2])
        assert tolerance.absolute == pytest.approx(max(1e-5, 4 * unit * 8 * scale), rel=1e-6)
        assert tolerance.relative == manifest.relative
        assert not compare(expected, expected + np.float32(3.9 * unit * 8 * scale), tolerance).problem
        assert compare(expected, expected + np.float32(4.3 * unit * 8 * scale), tolerance).problem
    assert allowed(manifest, Precision.FP32, [expected]) == manifest


def test_a_class_that_changes_is_wrong_in_any_precision() -> None:
    """What is no float stays exact."""
    exact = Tolerance(0.0, 0.0)
    assert allowed(exact, Precision.BF16, [np.array([1, 2])]) == exact


def test_an_output_that_hardly_varies_is_held_to_its_spread() -> None:
    """Otherwise any row's answer would pass for any other's."""
    expected = np.array([100.0, 100.1, 100.2], np.float32)
    tolerance = allowed(Tolerance(1e-5, 0.0), Precision.BF16, [expected])
    assert tolerance.absolute == pytest.approx(0.05, rel=1e-3)
