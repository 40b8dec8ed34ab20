"""Decisions survive a restart; what isn't an export is refused whole."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.selection.policy import Selector
from tests.server.selection.world import Server

TIMES = {"a": 0.02, "b": 0.01, "c": 0.03}


def learned() -> Server:
    """A server that has served for a while, and switched."""
    server = Server(TIMES)
    server.serve(300)
    server.times["b"] = 0.05
    server.serve(60)
    return server


EXPORT: dict[str, Any] = json.loads(json.dumps(learned().policy.export(400.0)))


def restored(data: object, now: float = 5.0) -> Selector:
    """A new policy with an export taken up."""
    policy = Selector((1,))
    policy.restore(data, now)
    return policy


def test_restored_is_equivalent() -> None:
    """What was exported is what a restored policy exports, but for the doubt that a restart brings."""
    again = restored(EXPORT).export(5.0)
    for key in ("version", "backends", "selected", "spent", "switches_left"):
        assert again[key] == EXPORT[key]
    assert [{**switch, "time": 0} for switch in again["switches"]] == [{**s, "time": 0} for s in EXPORT["switches"]]
    assert [s["time"] for s in again["switches"]] == pytest.approx([s["time"] for s in EXPORT["switches"]])
    known = {key: [pair[key] for pair in EXPORT["pairs"]] for key in ("backend", "bucket", "level", "runs")}
    assert {key: [pair[key] for pair in again["pairs"]] for key in known} == known
    assert all(
        after["variance"] > before["variance"] for before, after in zip(EXPORT["pairs"], again["pairs"], strict=True)
    )


def test_serving_goes_on_where_it_was() -> None:
    """The first batch after a restart goes where the last one before went; old estimates are seen anew."""
    server = Server({**TIMES, "b": 0.05}, policy=restored(EXPORT, 0.0))
    assert server.serve(1) == [EXPORT["selected"]["1"]] == ["a"]
    old = {pair["backend"]: pair["old"] for pair in server.policy.snapshot(server.now)["pairs"]}
    assert old == {"a": False, "b": True, "c": True}
    assert server.serve(800).count("a") >= 785
    looked = [decision.backend for decision in server.chosen if decision.is_exploration]
    assert "b" in looked


def test_a_restart_is_no_new_loan() -> None:
    """What was explored and switched before is held against what is wished for after."""
    before, after = learned().policy.budget, restored(EXPORT).budget
    assert (after.busy, after.explored, after.runs) == (before.busy, before.explored, before.runs)
    assert after.left() == before.left() < 1
    assert (after.switches.left, after.switches.buckets) == (before.switches.left, 1)


def test_another_set_of_backends_is_borne() -> None:
    """A backend that is gone stays away, a new one is measured, and the best of them serves."""
    server = Server({"a": 0.02, "d": 0.005}, policy=restored(EXPORT, 0.0))
    assert server.serve(300)[-50:].count("d") >= 45
    states = {pair["backend"]: pair["state"] for pair in server.policy.snapshot(server.now)["pairs"]}
    assert states == {"a": "eligible", "b": "away", "c": "away", "d": "eligible"}


def test_other_buckets_are_left_out() -> None:
    """A bucket that the model no longer has is ignored."""
    policy = Selector((2, 4))
    policy.restore(EXPORT, 0.0)
    assert policy.export(0.0)["pairs"] == []


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {**EXPORT, "version": 1},
        {**EXPORT, "spent": {**EXPORT["spent"], "busy": 0.0}},
        {**EXPORT, "switches_left": {"left": float("nan"), "buckets": 1}},
        {**EXPORT, "backends": {"a": {}}},
        {**EXPORT, "backends": {str(i): EXPORT["backends"]["a"] for i in range(17)}},
        {**EXPORT, "pairs": [{**EXPORT["pairs"][0], "level": float("nan")}]},
        {**EXPORT, "pairs": [{**EXPORT["pairs"][0], "level": 1e400}]},
        {**EXPORT, "pairs": [{**EXPORT["pairs"][0], "backend": "z"}]},
        {**EXPORT, "pairs": [{**EXPORT["pairs"][0], "runs": True}]},
        {**EXPORT, "pairs": 7},
        {**EXPORT, "selected": {"x": "a"}},
        {**EXPORT, "switches": [{"time": 0}]},
    ],
)
def test_malformed_data_is_refused(data: object) -> None:
    """A ValueError, and the policy is as it was."""
    policy = Selector((1,))
    before = policy.export(0.0)
    with pytest.raises(ValueError, match=r"."):
        policy.restore(data, 0.0)
    assert policy.export(0.0) == before


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_data_raises_nothing_but_value_errors(data: st.DataObject) -> None:
    """Wherever an export is damaged, it is taken up or refused."""
    damaged: Any = copy.deepcopy(EXPORT)
    place, junk = (
        damaged,
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({})),
    )
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(junk)
            break
        place = place[key]
    policy = Selector((1,))
    try:
        policy.restore(damaged, 0.0)
    except ValueError:
        return
    policy.backend_state("a", available=True, now=0.0)
    assert policy.choose(1, 1.0, ()).backend == "a"
