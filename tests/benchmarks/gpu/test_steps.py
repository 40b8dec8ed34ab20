"""Tests of `benchmarks.gpu.steps`: what fails or takes too long costs itself alone."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from benchmarks.gpu.steps import LATE, LeftOut, Steps
from tests.conftest import ROOT


def _fails() -> dict[str, int]:
    raise ValueError("no such thing")


def _leaves_out() -> dict[str, int]:
    raise LeftOut("nothing to do")


def test_a_step_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    """The file has what each gave and why one gave nothing, after every step."""
    out = tmp_path / "deep" / "result.json"
    steps = Steps(out, 60)
    assert steps.run("first", lambda: {"a": 1})
    assert not steps.run("second", _fails)
    assert not steps.run("third", _leaves_out)
    assert not steps.run("fourth", lambda: {"b": 1}, needs=1000)
    assert steps.run("fifth", lambda: {"c": 3})
    written = json.loads(out.read_text())
    assert (written["first"], written["fifth"]) == ({"a": 1}, {"c": 3})
    assert not {"second", "third", "fourth"} & set(written)
    problems = {name: step["problem"] for name, step in written["steps"].items()}
    assert problems["second"].startswith("failed: ValueError: no such thing (test_steps.py:")
    assert problems["third"] == "left out: nothing to do"
    assert problems["fourth"].startswith("left out: it takes up to 1000 s")
    steps.end()
    assert json.loads(out.read_text())["seconds"] >= 0


def test_a_step_that_hangs_is_cut_off_in_time(tmp_path: Path) -> None:
    """The process ends by itself with what there is, and cleans up, whatever the step is stuck in."""
    out, mark = tmp_path / "result.json", tmp_path / "cleaned"
    program = f"""
        import pathlib, threading
        from benchmarks.gpu.steps import Steps
        steps = Steps(pathlib.Path({str(out)!r}), 1, at_end=pathlib.Path({str(mark)!r}).touch)
        steps.run("quick", lambda: {{"a": 1}})
        steps.run("stuck", threading.Event().wait)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, timeout=60, check=False, capture_output=True
    )
    assert done.returncode == LATE
    written = json.loads(out.read_text())
    assert written["quick"] == {"a": 1}
    assert "over" in written["steps"]["end"]["problem"]
    assert mark.exists()
