"""Tests of `server.engines.metrics`, of what it asks, and of what a lane says of its switches."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from server.arrays import Array
from server.backends.fake import Compute, FakeBackend
from server.batching.parameters import BatchingParameters
from server.engines.engine import Engine, load_engine
from server.engines.ensemble import Candidate, Stage
from server.engines.lane import Lane
from server.engines.metrics import STATES, EngineCollector
from server.errors import LeftToOthers
from server.lifecycle.decisions import Decisions
from server.lifecycle.engine_room import EngineRoom
from server.lifecycle.servable import Servable
from server.repository.package import open_package
from server.selection.interface import Decision
from server.selection.persistence import CALIBRATED
from server.selection.policy import Selector
from server.selection.states import LEAVES
from tests.packages import write_package
from tests.pages import right
from tests.server.engines.choosing import Told, batch, engine
from tests.server.engines.explaining import Explains, Stands

SIGNATURE = {"model": "m", "version": "1", "signature": "serving_default"}


@contextmanager
def asked(tmp_path: Path, *backends: FakeBackend) -> Iterator[tuple[Servable, EngineCollector, CollectorRegistry]]:
    """A version with these engines and the real policy, and what tells of it."""
    write_package(tmp_path / "m" / "1")
    room = EngineRoom(backends, lambda _: BatchingParameters(max_batch_size=4), Selector, Decisions(None))
    servable = room.load(open_package("m", 1, tmp_path / "m" / "1")).servable
    collector, registry = EngineCollector(), CollectorRegistry()
    registry.register(collector)
    collector.add("m", 1, servable.ensemble)
    try:
        yield servable, collector, registry
    finally:
        servable.close()


def ask(servable: Servable) -> None:
    """One request of one row."""
    feeds = {"x_in": np.ones((1, 4), np.float32), "bias_in": np.zeros((1, 4), np.float32)}
    servable.run(servable.signature(""), feeds, ["y_out"])


def test_a_pin_is_a_switch_that_metrics_and_log_tell_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the real policy: who answers, from whom to whom it went, and why: a word for Prometheus, more in the log."""
    caplog.set_level(logging.INFO, "server")
    with asked(tmp_path, FakeBackend(right, "a"), FakeBackend(right, "b")) as (servable, _, registry):
        servable.ensemble.add(engine_of(servable))
        servable.ensemble.pin(["a"])
        ask(servable)
        servable.ensemble.pin(["b"])
        ask(servable)
        value = registry.get_sample_value
        switch = {**SIGNATURE, "bucket": "1", "from": "a", "to": "b", "reason": "pinned"}
        assert value("segue_backend_switches_total", switch) == 1
        here = {**SIGNATURE, "bucket": "1"}
        assert value("segue_backend_selected", {**here, "backend": "a"}) == 0
        assert value("segue_backend_selected", {**here, "backend": "b"}) == 1
        assert value("segue_batch_run_seconds_count", {**here, "backend": "a"}) == 1
        spent = [
            value("segue_backend_busy_seconds_total", {**SIGNATURE, "backend": backend, "purpose": purpose}) or 0.0
            for backend in ("a", "b")
            for purpose in ("serve", "explore", "calibrate")
        ]
        assert spent[0] > 0
        assert spent[3] > 0
        assert [spent[i] for i in (1, 2, 4, 5)] == [0, 0, 0, 0]
        assert value("segue_backend_quarantined", {**here, "backend": "b"}) == 0
    (line,) = [record.getMessage() for record in caplog.records if "instead of" in record.getMessage()]
    beginning = "model m version 1 signature serving_default, batches of up to 1: b answers instead of a: "
    assert line.startswith(beginning)
    assert len(line) > len(beginning)


def engine_of(servable: Servable, compute: Compute = right) -> Engine:
    """A second engine, "b", proved as any."""
    sizes = servable.batching.buckets if servable.batching else ()
    return load_engine(servable.package, FakeBackend(compute, "b"), sizes)


def test_what_is_left_to_others_is_counted_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A backend that leaves its batches is no failing one: not in quarantine, but not selected, with words for why."""
    caplog.set_level(logging.INFO, "server")
    leaving: list[str] = []

    def leaves(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        if leaving:
            raise LeftToOthers("it holds a large integer")
        return right(feeds)

    with asked(tmp_path, FakeBackend(right, "a"), FakeBackend(right, "b")) as (servable, _, registry):
        servable.ensemble.add(engine_of(servable, leaves))
        servable.ensemble.pin(["b"])
        ask(servable)
        leaving.append("from now on")
        for _ in range(LEAVES + 1):
            ask(servable)
        value = registry.get_sample_value
        kind = {**SIGNATURE, "backend": "b", "kind": "left_to_others"}
        assert value("segue_backend_failures_total", kind) == LEAVES
        here = {**SIGNATURE, "bucket": "1"}
        assert value("segue_backend_quarantined", {**here, "backend": "b"}) == 0
        assert value("segue_backend_selected", {**here, "backend": "a"}) == 1
        assert states_of(registry, "b") == ["abstaining"]
    said = [record.getMessage() for record in caplog.records]
    assert any("a stepped in for b: it holds a large integer" in line for line in said)
    assert any("a answers instead of b: " in line and "b is abstaining: leaves batches" in line for line in said)


def test_a_lone_backend_is_the_one_that_answers(tmp_path: Path) -> None:
    """Without a policy there is nothing of switches; the time is all served."""
    with asked(tmp_path, FakeBackend(right, "a")) as (servable, collector, registry):
        ask(servable)
        here = {**SIGNATURE, "backend": "a"}
        assert registry.get_sample_value("segue_backend_selected", {**here, "bucket": "1"}) == 1
        busy = registry.get_sample_value("segue_backend_busy_seconds_total", {**here, "purpose": "serve"})
        assert busy == registry.get_sample_value("segue_batch_run_seconds_sum", {**here, "bucket": "1"})
        proof = {**here, "output": "y"}
        assert registry.get_sample_value("segue_proof_max_absolute_difference", proof) == 0
        collector.remove("m", 1)
        assert not [sample for family in registry.collect() for sample in family.samples]


def states_of(registry: CollectorRegistry, backend: str) -> list[str]:
    """Those in which a backend is said to be."""
    labels = {"model": "m", "version": "1", "backend": backend}
    value = registry.get_sample_value
    return [state for state in STATES if value("segue_candidate_state", {**labels, "state": state})]


def test_a_backend_is_calibrating_until_it_is_known(tmp_path: Path) -> None:
    """With the real policy: proved is not known; after three runs in some bucket it is."""
    with asked(tmp_path, FakeBackend(right, "a"), FakeBackend(right, "b")) as (servable, _, registry):
        servable.ensemble.add(engine_of(servable))
        servable.ensemble.pin(["b"])
        ask(servable)
        assert states_of(registry, "b") == ["calibrating"]
        for _ in range(CALIBRATED):
            ask(servable)
        assert states_of(registry, "b") == ["eligible"]


def test_every_stage_shows_in_every_bucket(tmp_path: Path) -> None:
    """With the real policy: one that is being built, proved or was rejected has its state and reason in each bucket."""
    with asked(tmp_path, FakeBackend(right, "a"), FakeBackend(right, "b")) as (servable, _, registry):
        lane = servable.ensemble.lanes["serving_default"]

        def stands(backend: str) -> set[tuple[str, str]]:
            explained = lane.explain()
            assert explained is not None
            found = [one for one in explained.snapshot.standings if one.backend == backend]
            assert [one.bucket for one in found] == list(lane.buckets)
            return {(one.state, one.reason) for one in found}

        for stage, state in ((Stage.WAITING, "building"), (Stage.PREPARING, "building"), (Stage.PROVING, "proving")):
            servable.ensemble.note(Candidate("b", stage))
            ((said, reason),) = stands("b")
            assert said == state
            assert reason
            assert states_of(registry, "b") == [stage.value]
        servable.ensemble.note(Candidate("c", Stage.REJECTED, "it differs"))
        assert stands("c") == {("rejected", "it differs")}
        servable.ensemble.add(engine_of(servable))
        assert {state for state, _ in stands("b")} == {"calibrating"}
        quarantined = {**SIGNATURE, "backend": "c", "bucket": "1"}
        assert registry.get_sample_value("segue_backend_quarantined", quarantined) is None, "it takes no part"


def test_a_candidate_has_one_state(tmp_path: Path) -> None:
    """Of each backend that was thought of, as far as it is; one that fails in any bucket is in quarantine."""
    with asked(tmp_path, FakeBackend(right, "a"), FakeBackend(right, "b")) as (servable, _, registry):
        servable.ensemble.add(engine_of(servable))
        servable.ensemble.note(Candidate("c", Stage.PREPARING))
        servable.ensemble.note(Candidate("d", Stage.REJECTED, "it differs"))
        policy = Explains()
        policy.say(Stands(1, "b", "eligible"), Stands(4, "b", "quarantined", "it raised", 0.5, 3))
        servable.ensemble.lanes["serving_default"].policy = policy
        found = {backend: states_of(registry, backend) for backend in "abcd"}
        estimate = registry.get_sample_value(
            "segue_backend_estimate_seconds", {**SIGNATURE, "backend": "b", "bucket": "4"}
        )
        assert estimate == 0.5
    assert found == {"a": ["eligible"], "b": ["quarantined"], "c": ["preparing"], "d": ["rejected"]}


def test_time_is_counted_by_what_it_was_for() -> None:
    """A batch that goes elsewhere to learn is exploration, whoever runs it, and no switch."""

    @dataclass
    class Curious(Told):
        """Explores with every other batch."""

        def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:
            """See Curious."""
            first = super().choose(bucket, now, failed)
            return Decision("b", is_exploration=True) if len(self.outcomes) % 2 else first

    lane = Lane("model.onnx", engine("a", lambda x: x), buckets=(1,), policy=Curious())
    lane.add(engine("b", lambda x: x))
    for _ in range(4):
        lane.run(batch(), ["y"])
    counts = lane.counts()
    assert counts.seconds.keys() == {("a", "serve"), ("b", "explore")}
    assert all(seconds > 0 for seconds in counts.seconds.values())
    assert not counts.switches
    assert counts.selected == {1: "a"}
