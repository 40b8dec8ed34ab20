"""When a result need not be measured again."""

import time

import pytest

from benchmarks import machine


def test_a_result_of_today_and_of_this_machine_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of another machine, nor one of yesterday."""
    result = {"measured": machine.now(), "machine": machine.describe()}
    assert machine.is_fresh(result)
    assert not machine.is_fresh(None)
    assert not machine.is_fresh({**result, "machine": {**machine.describe(), "cores": "1000"}})
    clock = time.time
    monkeypatch.setattr("benchmarks.machine.time.time", lambda: clock() + 90_000)
    assert not machine.is_fresh(result)
