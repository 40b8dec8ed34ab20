"""Verdicts are said in words and by the exit code."""

import pytest

from benchmarks.verdict import Verdict, tell


def test_one_miss_is_a_miss(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 if one claim does not hold, and each line says which it is."""
    assert tell([Verdict("a", holds=True), Verdict("b", holds=True)]) == 0
    assert tell([Verdict("a", holds=True), Verdict("b", holds=False)]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == ["holds: a", "DOES NOT HOLD: b"]
