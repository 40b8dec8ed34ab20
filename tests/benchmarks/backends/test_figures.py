"""Timings become figures honestly."""

import numpy as np
import pytest

from benchmarks.backends.errors import errors
from benchmarks.backends.figures import natives, paired_ratio, references, summarise, table
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


def test_a_line_says_what_was_measured() -> None:
    """Medians are in milliseconds, batch beside batch, and ratios are there where a reference took part."""
    figures = summarise({"tensorflow": [0.1, 0.3, 0.2], "torch-cpu": [0.1, 0.1, 0.1]})
    figures["torch-cpu"] |= {"tensorflow": [2.0, 1.5, 2.5], "native": [1.0, 0.9, 1.25]}
    rows = [{"batch": 4, "contenders": figures}, {"batch": 8, "contenders": figures}]
    lines = table(rows).splitlines()
    assert lines[2:] == [
        "| tensorflow | 200.0 | 200.0 |",
        "| torch-cpu | 100.0, 2.00 (1.50-2.50) | 100.0, 2.00 (1.50-2.50) |",
    ]
    assert natives(rows).splitlines()[2:] == ["| torch-cpu / native-compiled | 1.00 (0.90-1.25) | 1.00 (0.90-1.25) |"]


def test_our_module_is_compared_with_the_native_one_of_its_precision() -> None:
    """Compiled with compiled, bfloat16 with bfloat16, and only what took part."""
    everything = ["torch-cpu", "torch-cpu-bf16", "native-compiled", "native-compiled-bf16", "native-eager"]
    assert references(everything) == {
        "native": {"torch-cpu": "native-compiled", "torch-cpu-bf16": "native-compiled-bf16"},
        "native_autocast": {},
    }
    autocast = references([*everything, "native-compiled-autocast-bf16"])["native_autocast"]
    assert autocast == {"torch-cpu-bf16": "native-compiled-autocast-bf16"}
    assert references(["torch-cpu", "native-eager"]) == {"native": {}, "native_autocast": {}}


def test_errors_are_over_all_elements_of_all_outputs() -> None:
    """The largest and the mean square difference to the reference."""
    reference: dict[str, Array] = {"y": np.zeros(3, np.float32), "z": np.zeros(1)}
    other: dict[str, Array] = {"y": np.array([0, 0, 4], np.float32), "z": np.zeros(1)}
    assert errors({"tensorflow": reference, "a": other}, "tensorflow") == {"a": {"largest": 4.0, "rms": 2.0}}
    assert errors({"a": other}, "tensorflow") == {}
