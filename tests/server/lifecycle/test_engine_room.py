"""Promises of server.lifecycle.engine_room, and of what it is made of: preparing, calibrating, decisions."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from server.arrays import Array
from server.backends.fake import Compute, FakeBackend
from server.backends.interface import GraphSpec, Precision
from server.batching.parameters import BatchingParameters
from server.engines.engine import load_engine
from server.engines.ensemble import Candidate, Stage
from server.errors import GraphNotLoadable, LeftToOthers
from server.lifecycle.calibrating import Calibrator
from server.lifecycle.decisions import Decisions
from server.lifecycle.engine_room import EngineRoom
from server.lifecycle.servable import Servable
from server.repository.names import GOLDEN
from server.repository.package import open_package
from server.selection.interface import Calibration, Failure
from server.selection.states import State
from tests.packages import Affine, write_package
from tests.server.engines.choosing import Told

SIGNATURE = "serving_default"


def right(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the package's graph computes."""
    y = 2 * feeds["x_in"] + 1 + feeds["bias_in"]
    return {"y_out": y, "z_out": -y}


def wrong(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """A sign is lost."""
    answer = right(feeds)
    return {"y_out": answer["y_out"], "z_out": answer["y_out"]}


def tripled(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the graph of another package computes."""
    y = 3 * feeds["x_in"] + 1 + feeds["bias_in"]
    return {"y_out": y, "z_out": -y}


class Slow(FakeBackend):
    """A backend that prepares until it is told to go on, or to stop."""

    def __init__(self, compute: Compute, name: str) -> None:
        super().__init__(compute, name)
        self.began = threading.Event()
        self.go_on = threading.Event()

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """See Backend.prepare."""
        assert len(graph.digest) == 64
        self.began.set()
        while not self.go_on.wait(0.01):
            if stop.is_set():
                raise GraphNotLoadable("nobody wants it any more")


class Picky(FakeBackend):
    """A backend that prepares nothing."""

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """See Backend.prepare."""
        assert not stop.is_set()
        raise GraphNotLoadable(f"no form for {graph.path.name} here")


def room_of(tmp_path: Path, *backends: FakeBackend, state: Path | None = None) -> tuple[EngineRoom, Servable]:
    """A room, and a version that it has loaded."""
    folder = tmp_path / "m" / "1"
    if not folder.exists():
        write_package(folder)
    room = EngineRoom(backends, lambda _: BatchingParameters(max_batch_size=4), lambda _: Told(), Decisions(state))
    servable = room.load(open_package("m", 1, folder)).servable
    return room, servable


def until(servable: Servable, backend: str, stage: Stage) -> Candidate:
    """Wait until a backend is so far."""
    for _ in range(3000):
        found = {one.backend: one for one in servable.ensemble.candidates()}.get(backend)
        if found and found.stage is stage:
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"{backend} is not {stage}: {servable.ensemble.candidates()}")


def policy_of(servable: Servable) -> Told:
    """The policy of the one signature."""
    policy = servable.ensemble.lanes[SIGNATURE].policy
    assert isinstance(policy, Told)
    return policy


def ask(servable: Servable, rows: int = 1) -> Array:
    """The answer for ones."""
    feeds = {"x_in": np.ones((rows, 4), np.float32), "bias_in": np.zeros((rows, 4), np.float32)}
    return servable.run(servable.signature(""), feeds, ["y_out"])[0]


def test_a_version_serves_while_others_are_prepared(tmp_path: Path) -> None:
    """The first backend answers at once; another joins when it is made and proved, and is then chosen from."""
    slow = Slow(right, "slow")
    room, servable = room_of(tmp_path, FakeBackend(right), slow)
    room.start(lambda: [servable], lambda: False)
    room.join(servable)
    assert slow.began.wait(30)
    assert ask(servable)[0, 0] == 3
    assert policy_of(servable).available == ["fake"]
    slow.go_on.set()
    until(servable, "slow", Stage.ELIGIBLE)
    assert policy_of(servable).available == ["fake", "slow"]
    policy_of(servable).order = ["slow"]
    ask(servable)
    assert policy_of(servable).outcomes[-1].backend == "slow"
    room.stop()
    servable.close()
    assert all(graph.closed for graph in slow.loaded)


def test_what_answers_wrongly_never_serves(tmp_path: Path) -> None:
    """A backend that does not reproduce TensorFlow's answers is left out, and it is said which output it errs in.

    The policy is told how far it came, and why no further.
    """
    bad = FakeBackend(wrong, "bad")
    room, servable = room_of(tmp_path, FakeBackend(right), Picky(right, "picky"), bad)
    room.start(lambda: [servable], lambda: False)
    room.join(servable)
    assert "output 'z'" in until(servable, "bad", Stage.REJECTED).reason
    assert until(servable, "picky", Stage.REJECTED).reason == "no form for model.onnx here"
    assert policy_of(servable).available == ["fake"]
    assert [state for name, state, _ in policy_of(servable).stages if name == "bad"] == [
        *(State.BUILDING, State.BUILDING, State.PROVING, State.REJECTED)
    ]
    assert ("picky", State.REJECTED, "no form for model.onnx here") in policy_of(servable).stages
    assert all(graph.closed for graph in bad.loaded)
    room.stop()
    servable.close()


def test_a_fault_of_ours_leaves_no_backend_in_preparation_for_ever(tmp_path: Path) -> None:
    """Whatever goes wrong when a proved backend is let in, people see that it takes no part, and the next one does."""

    class Shaky(Told):
        def backend_state(self, backend: str, *, available: bool, now: float) -> None:
            if backend == "unlucky":
                raise ZeroDivisionError("surprise")
            super().backend_state(backend, available=available, now=now)

    write_package(tmp_path / "m" / "1")
    backends = [FakeBackend(right), FakeBackend(right, "unlucky"), FakeBackend(right, "next")]
    room = EngineRoom(backends, lambda _: None, lambda _: Shaky(), Decisions(None))
    servable = room.load(open_package("m", 1, tmp_path / "m" / "1")).servable
    room.start(tuple, lambda: False)
    room.join(servable)
    until(servable, "next", Stage.ELIGIBLE)
    assert "surprise" in until(servable, "unlucky", Stage.REJECTED).reason
    policy_of(servable).order = ["next"]
    ask(servable)
    assert policy_of(servable).outcomes[-1].backend == "next"
    room.stop()
    servable.close()
    assert all(graph.closed for backend in backends for graph in backend.loaded)


def test_a_version_that_goes_stops_its_preparation(tmp_path: Path) -> None:
    """Unloading waits for no compilation, and what is prepared for the next version is not held up by it."""
    slow = Slow(right, "slow")
    room, servable = room_of(tmp_path, FakeBackend(right), slow)
    room.start(lambda: [servable], lambda: False)
    room.join(servable)
    assert slow.began.wait(30)
    servable.close()
    slow.began.clear()
    _, other = room_of(tmp_path, FakeBackend(right))
    room.join(other)
    assert slow.began.wait(30)
    room.stop()
    assert not slow.loaded
    other.close()


def test_quick_backends_come_first_for_every_version(tmp_path: Path) -> None:
    """No version waits for another's compilation before it gets the backends that take a moment."""
    slow = Slow(right, "slow")
    room, first = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "quick"), slow)
    _, second = room_of(tmp_path, FakeBackend(right))
    room.join(first)
    room.join(second)
    room.start(tuple, lambda: False)
    until(first, "quick", Stage.ELIGIBLE)
    until(second, "quick", Stage.ELIGIBLE)
    until(first, "slow", Stage.PREPARING)
    room.stop()
    for servable in (first, second):
        servable.close()


def test_pins_hold_now_and_after_a_restart(tmp_path: Path) -> None:
    """An operator's preference reaches what serves, what is loaded later, and the next server; until it is lifted."""
    state = tmp_path / "state"
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    room.start(lambda: [servable], lambda: False)
    room.pin("m", ["other", "fake"])
    assert policy_of(servable).pinned == ("other", "fake")
    room.stop()
    again, later = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    assert policy_of(later).pinned == ("other", "fake")
    again.pin("m", [])
    _, last = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    assert policy_of(last).pinned is None
    for each in (servable, later, last):
        each.close()


def test_what_was_learnt_survives_a_restart(tmp_path: Path) -> None:
    """The policies of the same package begin with what they knew; those of another package begin anew."""
    state = tmp_path / "state"
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    room.start(lambda: [servable], lambda: False)
    ask(servable)
    room.stop()
    _, later = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    assert policy_of(later).known == {"observed": 1}
    changed = tmp_path / "changed" / "m" / "1"
    write_package(changed, Affine(scale=3.0))
    others = [FakeBackend(tripled), FakeBackend(tripled, "other")]
    other = EngineRoom(others, lambda _: None, lambda _: Told(), Decisions(state))
    fresh = other.load(open_package("m", 1, changed)).servable
    assert policy_of(fresh).known == {}
    for each in (servable, later, fresh):
        each.close()


@pytest.mark.parametrize("text", ["{", "[]", '{"package": 1}', '{"m": 3}', "[" * 100_000])
def test_a_damaged_state_is_forgotten(tmp_path: Path, text: str) -> None:
    """Whatever the state folder holds, the server starts and learns anew."""
    state = tmp_path / "state"
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    room.start(lambda: [servable], lambda: False)
    room.stop()
    (kept,) = (state / "models").rglob("*.json")
    whole = json.loads(kept.read_text())
    for damaged in (text, json.dumps(whole | {"signatures": 1}), json.dumps(whole | {"signatures": {SIGNATURE: 1}})):
        kept.write_text(damaged)
        (state / "pins.json").write_text(text)
        _, later = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
        assert policy_of(later).known == {}
        assert ask(later)[0, 0] == 3
        later.close()
    servable.close()


def test_an_unwritable_state_folder_costs_no_request(tmp_path: Path) -> None:
    """What cannot be kept ends with the server, which serves all the same."""
    state = tmp_path / "state"
    state.write_text("a file, where a folder should be")
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"), state=state)
    room.start(lambda: [servable], lambda: False)
    room.pin("m", ["other"])
    assert ask(servable)[0, 0] == 3
    room.stop()
    servable.close()


def test_an_idle_server_tries_its_engines_on_golden_inputs(tmp_path: Path) -> None:
    """What a policy wants to know is tried while nothing else is to be done, and not before."""
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"))
    room.start(tuple, lambda: False)
    room.join(servable)
    until(servable, "other", Stage.ELIGIBLE)
    room.stop()
    policy = policy_of(servable)
    policy.wanted = [Calibration(8, "fake"), Calibration(3, "other"), Calibration(2, "other")]
    calls: list[int] = []
    done = threading.Event()

    def is_idle() -> bool:
        calls.append(len(policy.outcomes))
        if not policy.wanted:
            done.set()
        return len(calls) > 1

    calibrator = Calibrator(lambda: [servable], is_idle)
    calibrator.start()
    assert done.wait(30)
    calibrator.stop()
    assert calls[1] == 0, "it was busy at first"
    tried = [(o.bucket, o.backend, o.batch, o.failure) for o in policy.outcomes]
    assert tried == [(2, "other", None, None), (3, "other", None, None), (8, "fake", None, None)]
    servable.close()


def test_a_lone_backend_costs_nothing(tmp_path: Path) -> None:
    """Without a second backend there are no policies, threads or files."""
    state = tmp_path / "state"
    threads = threading.active_count()
    room, servable = room_of(tmp_path, FakeBackend(right), state=state)
    room.start(lambda: [servable], lambda: True)
    room.join(servable)
    assert servable.ensemble.lanes[SIGNATURE].policy is None
    assert threading.active_count() == threads
    room.stop()
    assert not state.exists()
    servable.close()


def state_of(tmp_path: Path, *names: str) -> tuple[Decisions, Path, list[Servable]]:
    """Decisions with a folder, and versions of models of these names."""
    decisions, loaded = Decisions(tmp_path / "state"), []
    backends = [FakeBackend(right), FakeBackend(right, "other")]
    for name in names:
        write_package(tmp_path / name / "1")
        room = EngineRoom(backends, lambda _: None, lambda _: Told(), decisions)
        loaded.append(room.load(open_package(name, 1, tmp_path / name / "1")).servable)
    return decisions, tmp_path / "state" / "models", loaded


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    """A version whose policies were told nothing since costs no writing, also after a restart; another's run does."""
    decisions, state, (one, two) = state_of(tmp_path, "one", "two")
    for each in (one, two):
        ask(each)
        decisions.keep(each)
    files = [state / name / "1.json" for name in ("one", "two")]
    before = [file.stat() for file in files]
    ask(two)
    for each in (one, two):
        decisions.keep(each)
    after = [file.stat() for file in files]
    assert [a.st_ino == b.st_ino for a, b in zip(before, after, strict=True)] == [True, False]
    again, _, _ = Decisions(tmp_path / "state"), one.close(), two.close()
    room = EngineRoom([FakeBackend(right), FakeBackend(right, "other")], lambda _: None, lambda _: Told(), again)
    back = room.load(open_package("one", 1, tmp_path / "one" / "1")).servable
    assert policy_of(back).known == {"observed": 1}
    again.keep(back)
    assert files[0].stat().st_ino == before[0].st_ino
    again.keep(back, anyway=True)
    assert files[0].stat().st_ino != before[0].st_ino
    assert [entry.name for entry in files[0].parent.iterdir()] == ["1.json"]
    back.close()


def test_what_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    """A disk that was full for a while loses nothing that is still known."""
    decisions, state, (servable,) = state_of(tmp_path, "one")
    state.parent.mkdir()
    state.write_text("in the way")
    ask(servable)
    decisions.keep(servable)
    state.unlink()
    decisions.keep(servable)
    assert (state / "one" / "1.json").exists()
    servable.close()


def test_forgetting_waits_for_no_disk(tmp_path: Path) -> None:
    """Who tells of a version's end does not touch the disk; a version that comes back keeps what was known."""
    decisions, state, (one, two) = state_of(tmp_path, "one", "two")
    for each in (one, two):
        ask(each)
        decisions.keep(each)
        decisions.forget(each.name, each.version)
    assert len(list(state.rglob("*.json"))) == 2
    decisions.recall(two)
    decisions.tidy()
    assert [file.parent.name for file in state.rglob("*.json")] == ["two"]
    for each in (one, two):
        each.close()


def test_a_fault_ends_neither_the_keeping_nor_the_trying(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that nobody would miss goes on after an error that nobody foresaw."""
    looks, seen = [0, 0], [threading.Event(), threading.Event()]

    def servables(which: int) -> list[Servable]:
        looks[which] += 1
        if looks[which] == 1:
            raise ZeroDivisionError("surprise")
        seen[which].set()
        return []

    calibrator = Calibrator(lambda: servables(0), lambda: True, period=0.001)
    calibrator.start()
    assert seen[0].wait(30)
    calibrator.stop()
    backends = [FakeBackend(right), FakeBackend(right, "other")]
    decisions = Decisions(tmp_path / "state")
    room = EngineRoom(backends, lambda _: None, lambda _: Told(), decisions, keep_seconds=0.001)
    room.start(lambda: servables(1), lambda: False)
    assert seen[1].wait(30)
    room.stop()
    assert [record.levelname for record in caplog.records].count("ERROR") >= 2


def test_a_folder_that_cannot_keep_decisions_is_told_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An operator learns it at the start, once, not when decisions have been lost; a folder to be made is fine."""
    Decisions(tmp_path / "not" / "there" / "yet")
    assert not caplog.records
    (tmp_path / "file").touch()
    decisions = Decisions(tmp_path / "file" / "8500")
    decisions.pin("affine", ["onnxruntime-cpu"])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"cannot keep decisions in {tmp_path}/file/8500, they end with this server")
    assert decisions.pinned("affine") == ("onnxruntime-cpu",)


def test_a_version_that_goes_waits_for_no_trying(tmp_path: Path) -> None:
    """An idle server that tries engines ends that with the run under way when the version is unloaded."""
    runs: list[int] = []

    def unloaded_meanwhile(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        if servables:
            runs.append(len(feeds["x_in"]))
            servables[0].drained(0)
        return right(feeds)

    servables: list[Servable] = []
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(unloaded_meanwhile, "other"))
    room.start(tuple, lambda: False)
    room.join(servable)
    until(servable, "other", Stage.ELIGIBLE)
    room.stop()
    policy_of(servable).wanted = [Calibration(1, "other")] * 5
    servables.append(servable)
    calibrator = Calibrator(lambda: servables, lambda: True)
    calibrator._look()
    assert runs == [1]
    servable.close()


def test_a_foreign_folder_is_not_held_against_an_engine(tmp_path: Path) -> None:
    """When another package lies in the folder, its golden inputs say nothing about the engines of what serves on.

    Nor does it mean that there are none of that size: the package may come back.
    """
    room, servable = room_of(tmp_path, FakeBackend(right), FakeBackend(right, "other"))
    room.start(tuple, lambda: False)
    room.join(servable)
    until(servable, "other", Stage.ELIGIBLE)
    room.stop()
    golden = tmp_path / "m" / "1" / GOLDEN
    np.savez(golden, **{key: array[:, :1] for key, array in np.load(golden).items()})
    policy_of(servable).wanted = [Calibration(1, "other")]
    Calibrator(lambda: [servable], lambda: True)._look()
    assert policy_of(servable).outcomes == []
    assert policy_of(servable).without_inputs == []
    servable.close()


def test_a_backend_may_leave_some_of_what_is_proved_to_others(tmp_path: Path) -> None:
    """One that joins need not take every batch size; the first has to, for nobody may be there to leave it to."""

    def small(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(feeds["x_in"]) > 2:
            raise LeftToOthers("two rows at the most")
        return right(feeds)

    def nothing(_feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        raise LeftToOthers("no rows at all")

    others = FakeBackend(small, "small"), FakeBackend(nothing, "nothing")
    room, servable = room_of(tmp_path, FakeBackend(right), *others)
    room.start(lambda: [servable], lambda: False)
    room.join(servable)
    until(servable, "small", Stage.ELIGIBLE)
    assert until(servable, "nothing", Stage.REJECTED).reason == "no rows at all"
    policy_of(servable).order = ["small"]
    assert ask(servable, 4).shape[0] == 4
    assert [outcome.failure for outcome in policy_of(servable).outcomes] == [Failure.LEFT, None]
    room.stop()
    servable.close()
    with pytest.raises(LeftToOthers, match="two rows at the most"):
        room_of(tmp_path, FakeBackend(small))


def test_what_is_not_wanted_any_more_is_not_loaded(tmp_path: Path) -> None:
    """A version that goes while a backend is prepared for it costs neither a loading nor a proof."""
    _, servable = room_of(tmp_path, FakeBackend(right))
    stop = threading.Event()

    class Late(FakeBackend):
        def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
            assert graph.path.exists()
            stop.set()

    late = Late(right, "late")
    with pytest.raises(GraphNotLoadable, match="nobody wants it"):
        load_engine(servable.package, late, (), stop)
    assert late.loaded == []
    servable.close()


def test_an_engine_is_not_left_behind_by_damaged_decisions(tmp_path: Path) -> None:
    """Whatever goes wrong after a version was loaded, its memory is given back."""
    write_package(tmp_path / "m" / "1")
    backend = FakeBackend(right)

    class Broken(Decisions):
        def recall(self, servable: Servable) -> None:
            raise ZeroDivisionError(servable.name)

    room = EngineRoom([backend], lambda _: None, lambda _: Told(), Broken(None))
    with pytest.raises(ZeroDivisionError):
        room.load(open_package("m", 1, tmp_path / "m" / "1"))
    assert [graph.closed for graph in backend.loaded] == [True]


@pytest.mark.parametrize("name", ["../../../outside", "a/../b", "x" * 300, "nul\0"])
def test_a_models_name_leads_nowhere(tmp_path: Path, name: str) -> None:
    """A configuration may call a model what it likes: what is kept of it stays inside the state folder."""
    write_package(tmp_path / "m" / "1")
    state = tmp_path / "deep" / "er" / "state"
    backends = [FakeBackend(right), FakeBackend(right, "other")]
    room = EngineRoom(backends, lambda _: None, lambda _: Told(), Decisions(state))
    servable = room.load(open_package(name, 1, tmp_path / "m" / "1")).servable
    room.start(lambda: [servable], lambda: False)
    room.stop()
    (kept,) = state.rglob("1.json")
    assert kept.parent.parent == state / "models"
    assert {entry.name for entry in tmp_path.iterdir()} == {"m", "deep"}
    servable.close()


def test_a_backend_joins_only_models_that_its_precision_is_allowed_for(tmp_path: Path) -> None:
    """What may be computed in is said for each model; one that may not join is no candidate, and is never loaded."""
    coarse = FakeBackend(right, "coarse")
    coarse.precision = Precision.BF16
    asked: list[tuple[str, Precision]] = []

    def allows(model: str, precision: Precision) -> bool:
        asked.append((model, precision))
        return model == "m" or precision is Precision.FP32

    room = EngineRoom(
        [FakeBackend(right), coarse, FakeBackend(right, "exact")],
        *(lambda _: None, lambda _: Told(), Decisions(None)),
        allows=allows,
    )
    servables = []
    for name in ("m", "other"):
        write_package(tmp_path / name / "1")
        servables.append(room.load(open_package(name, 1, tmp_path / name / "1")).servable)
    room.start(lambda: servables, lambda: False)
    for servable in servables:
        room.join(servable)
        until(servable, "exact", Stage.ELIGIBLE)
    until(servables[0], "coarse", Stage.ELIGIBLE)
    assert "coarse" not in [one.backend for one in servables[1].ensemble.candidates()]
    assert len(coarse.loaded) == 1
    assert ("other", Precision.BF16) in asked
    room.stop()
    for servable in servables:
        servable.close()
