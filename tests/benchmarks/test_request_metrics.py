"""Promises of benchmarks.request_metrics."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import request_metrics


@pytest.mark.parametrize(("most", "code"), [(1e6, 0), (0.0, 1)])
def test_the_exit_code_tells_whether_the_promise_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    most: float,
    code: int,
) -> None:
    """It is 1 if counting a request takes longer than it may; what was measured is written down all the same."""
    result = tmp_path / "result.json"
    monkeypatch.setattr(request_metrics, "MOST_MICROSECONDS", most)
    arguments = ["--rounds=1", "--requests=100", "--models", "1", f"--result={result}"]
    monkeypatch.setattr(sys, "argv", ["request_metrics", *arguments])
    assert request_metrics.main() == code
    measured = json.loads(result.read_text())["microseconds"]
    assert measured.keys() == {"request", "traced request"}
    over = [line for line in capsys.readouterr().out.splitlines() if "is over" in line]
    assert len(over) == code * len(measured)


def test_the_promise_is_fifteen_microseconds() -> None:
    """Of a plain request and of a traced one, each."""
    assert request_metrics.too_dear({"request": 15.0, "traced request": 14.9}) == []
    assert request_metrics.too_dear({"request": 3.0, "traced request": 15.1}) == ["traced request: 15.1 µs is over 15"]
