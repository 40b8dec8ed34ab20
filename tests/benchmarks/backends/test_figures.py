"""Timings become figures honestly."""

import numpy as np
import pytest

from benchmarks.backends.errors import errors
from benchmarks.backends.figures import Ratio, paired_ratio, references, summarise, table
from server.arrays import Array


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that slows down for some rounds slows both, and the ratio stays."""
    rng = np.random.default_rng(1)
    load = rng.uniform(1, 10, 25)
    ratio = paired_ratio((2 * load).tolist(), load.tolist())
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_the_interval_covers_what_is_not_known() -> None:
    """With noise, the interval holds the true ratio and narrows with the number of rounds."""
    rng = np.random.default_rng(2)
    few, many = (
        paired_ratio((1.5 * rng.lognormal(0, 0.2, n)).tolist(), rng.lognormal(0, 0.2, n).tolist()) for n in (7, 200)
    )
    assert few.low < 1.5 < few.high
    assert many.low < 1.5 < many.high
    assert many.high - many.low < few.high - few.low


def test_rounds_that_do_not_match_are_refused() -> None:
    """What was not measured together is not compared."""
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])


def test_a_row_says_what_was_measured() -> None:
    """Median and quartiles are in milliseconds, and ratios are there where a reference took part."""
    figures = summarise({"tensorflow": [0.1, 0.3, 0.2], "openvino-cpu": [0.1, 0.1, 0.1]})
    figures["openvino-cpu"]["tensorflow"] = [2.0, 1.5, 2.5]
    assert figures["tensorflow"]["median_ms"] == pytest.approx(200)
    lines = table([{"batch": 4, "contenders": figures}]).splitlines()
    assert lines[2] == "| 4 | tensorflow | 200.0 | 150.0 - 250.0 |  |  |"
    assert lines[3] == f"| 4 | openvino-cpu | 100.0 | 100.0 - 100.0 | {Ratio(2.0, 1.5, 2.5)} |  |"


def test_our_module_is_compared_with_the_native_one_of_its_precision() -> None:
    """Compiled with compiled, bfloat16 with bfloat16, and only what took part."""
    everything = ["torch-cpu", "torch-cpu-bf16", "native-compiled", "native-compiled-bf16", "native-eager"]
    assert references(everything) == {"torch-cpu": "native-compiled", "torch-cpu-bf16": "native-compiled-bf16"}
    assert references(["torch-cpu", "native-eager"]) == {}


def test_errors_are_over_all_elements_of_all_outputs() -> None:
    """The largest and the mean square difference to the reference."""
    reference: dict[str, Array] = {"y": np.zeros(3, np.float32), "z": np.zeros(1)}
    other: dict[str, Array] = {"y": np.array([0, 0, 4], np.float32), "z": np.zeros(1)}
    assert errors({"tensorflow": reference, "a": other}, "tensorflow") == {"a": {"largest": 4.0, "rms": 2.0}}
    assert errors({"a": other}, "tensorflow") == {}
