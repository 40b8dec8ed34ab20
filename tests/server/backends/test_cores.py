"""Promises of server.backends.cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.backends import cores

COUNT = "from server.backends.cores import physical_cores; print(physical_cores())"


def test_no_more_threads_than_cores_that_may_be_used() -> None:
    """A process that is held to one core counts one, whatever the machine has."""
    assert 1 <= cores.physical_cores() <= (os.cpu_count() or 1)
    one = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {COUNT}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "1"


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 3), ("", 3)])
def test_a_containers_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    """Threads beyond a container's share would only be stopped in turn; hardware threads of one core count once."""
    (tmp_path / "cpu.max").write_text(text)
    for number in range(6):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 3},{number % 3 + 3}\n")
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert cores.physical_cores() == expected
