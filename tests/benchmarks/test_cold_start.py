"""How the start from a cache is told."""

import pytest

from benchmarks.cold_start import seconds_of, table

METRICS = """\
# TYPE segue_model_load_seconds gauge
segue_model_load_seconds{backend="torch-cpu",model="vit",version="1"} 5.0
# TYPE segue_model_prepare_seconds gauge
segue_model_prepare_seconds{backend="torch-cpu",model="vit",version="1"} 0.5
# TYPE segue_model_prove_seconds gauge
segue_model_prove_seconds{backend="torch-cpu",model="vit",version="1"} 4.0
# TYPE segue_requests gauge
segue_requests{backend="onnxruntime-cpu"} 4.0
"""


def test_the_sum_is_taken_apart() -> None:
    """Loading is what is left of the sum when preparing and proving are taken off; other metrics are not looked at."""
    assert seconds_of(METRICS) == {"torch-cpu": {"prepare": 0.5, "load": pytest.approx(0.5), "prove": 4.0}}


def test_each_backend_has_a_line() -> None:
    """A start's backends in a table, with the longest answer meanwhile."""
    starts = {"filled": {"backends": seconds_of(METRICS), "longest_answer_ms": 321.4}}
    assert table(starts).splitlines()[2:] == ["| filled | torch-cpu | 0.50 | 0.50 | 4.00 | 321 |"]
