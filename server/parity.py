"""Does an answer equal TensorFlow's? One rule, used where a conversion is proved and where a server proves a backend.

Pure: numpy in, a verdict out. Tolerances come from the package's manifest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from server.arrays import Array
from server.backends.interface import Precision


@dataclass(frozen=True, slots=True)
class Tolerance:
    """An element passes if |got - expected| <= absolute + relative * |expected|."""

    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What was measured over the elements of one output.

    `problem` is empty if the answer passes, else says in words why it does not.
    """

    max_absolute: float = 0.0
    max_relative: float = 0.0
    elements: int = 0
    problem: str = ""

    def merged(self, other: "Difference") -> "Difference":
        """Both measurements as one; the first problem is kept."""
        return Difference(
            max(self.max_absolute, other.max_absolute),
            max(self.max_relative, other.max_relative),
            self.elements + other.elements,
            self.problem or other.problem,
        )


def is_floating(dtype: np.dtype[np.generic]) -> bool:
    """True for the dtypes whose answers may differ by rounding, bfloat16 and complex ones included."""
    return dtype.kind in "fc" or dtype == ml_dtypes.bfloat16


def are_finite(arrays: Iterable[Array]) -> bool:
    """False if a float among them is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays if is_floating(array.dtype))


def compare(expected: Array, got: Array, tolerance: Tolerance) -> Difference:
    """Compare one output with TensorFlow's: dtype and shape first, NaN and infinities next, then values."""
    if got.dtype != expected.dtype:
        return Difference(problem=f"dtype is {got.dtype}, TensorFlow's is {expected.dtype}")
    if got.shape != expected.shape:
        return Difference(problem=f"shape is {list(got.shape)}, TensorFlow's is {list(expected.shape)}")
    if not is_floating(expected.dtype):
        return _compare_exact(expected, got)
    wide: type = np.complex128 if expected.dtype.kind == "c" else np.float64
    return _compare_floats(expected.astype(wide), got.astype(wide), tolerance)


def _compare_exact(expected: Array, got: Array) -> Difference:
    wrong = int(np.count_nonzero(expected != got))
    problem = f"{wrong} of {expected.size} {expected.dtype} elements differ" if wrong else ""
    return Difference(elements=expected.size, problem=problem)


def _compare_floats(expected: Array, got: Array, tolerance: Tolerance) -> Difference:
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(
        expected[~finite], got[~finite], equal_nan=True
    ):
        return Difference(elements=expected.size, problem="NaN or infinity where TensorFlow has none, or the reverse")
    reference = np.abs(expected[finite])
    error = np.abs(expected[finite] - got[finite])
    if error.size == 0:
        return Difference(elements=expected.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Relative to values that are not just noise around zero.
        relative = np.where(reference > tolerance.absolute, error / reference, 0.0)
    worst = float(error.max())
    over = int(np.count_nonzero(error > tolerance.absolute + tolerance.relative * reference))
    problem = ""
    if over:
        problem = (
            f"{over} of {expected.size} elements differ by more than {tolerance.absolute:.1e} + "
            f"{tolerance.relative:.1e} x |expected|; the largest difference is {worst:.2e}"
        )
    return Difference(worst, float(relative.max()), expected.size, problem)


# Units in the last place that an answer computed in so many significant bits may be off: as many as a format's own
# rounding gets in default_tolerance. Chosen before anything was measured.
_UNITS = 4.0
_MOST_OF_SPREAD = 0.25
_SIGNIFICANT_BITS: Mapping[Precision, int] = {
    Precision.TF32: 11,  # the leading one included
    Precision.BF16: 8,
    Precision.FP16: 11,
}


def allowed(tolerance: Tolerance, precision: Precision, expected: Sequence[Array]) -> Tolerance:
    """What answers computed in a precision may differ by.

    In float32 what the manifest says. Below it, four units in the last place of the output's largest value besides:
    3.1e-2 of it in bfloat16, 3.9e-3 in float16 and in TF32, which has as many bits. Where an output hardly varies, a
    quarter of its spread at most: what is farther off could as well be another row's. Answers that are no floats stay
    exact: a class that changes is wrong.

    Args:
        tolerance: The manifest's.
        precision: What the backend computes in.
        expected: TensorFlow's golden answers for one output.
    """
    if precision is Precision.FP32 or not all(is_floating(answer.dtype) for answer in expected):
        return tolerance
    unit = 2.0 ** (1 - _SIGNIFICANT_BITS[precision])
    finite = np.concatenate([a[np.isfinite(a)].astype(np.float64).reshape(-1) for a in expected])
    if finite.size == 0:
        return tolerance
    absolute, spread = _UNITS * unit * float(np.abs(finite).max()), float(np.ptp(finite))
    if spread > 0:
        absolute = min(absolute, _MOST_OF_SPREAD * spread)
    return Tolerance(max(tolerance.absolute, absolute), tolerance.relative)


def default_tolerance(answers: Sequence[Array]) -> Tolerance:
    """The gate unless the user sets another: 1e-5 of the output's range, and 1e-3 relative; exact if it is no float.

    Half-precision outputs are rounded to 11 (float16) or 8 (bfloat16) significant bits, so one unit in the last place
    is already 1e-3 or 8e-3; they get four such units.
    """
    if not all(is_floating(a.dtype) for a in answers):
        return Tolerance(0.0, 0.0)
    floats = [a.astype(np.float64) for a in answers if a.dtype.kind != "c"]
    finite = [np.abs(a[np.isfinite(a)]) for a in floats]
    largest = max((float(a.max()) for a in finite if a.size), default=0.0)
    scale = max(1.0, largest)
    dtypes = {a.dtype for a in answers}
    if np.dtype(ml_dtypes.bfloat16) in dtypes:
        return Tolerance(3e-2 * scale, 3e-2)
    if np.dtype(np.float16) in dtypes:
        return Tolerance(4e-3 * scale, 4e-3)
    return Tolerance(1e-5 * scale, 1e-3)
