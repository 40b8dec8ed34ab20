"""What the policy promises whoever serves by it."""

import math
import time

import pytest

from server.selection.character import Objective
from server.selection.interface import Failure, Outcome
from server.selection.policy import Selector
from server.selection.states import LEAVES, Health, State
from tests.server.selection.world import Server


def states(server: Server) -> dict[str, str]:
    """Each backend's state in the only bucket."""
    return {pair["backend"]: pair["state"] for pair in server.policy.snapshot(server.now)["pairs"]}


@pytest.mark.parametrize("fastest", ["a", "b", "c"])
def test_the_fastest_serves(fastest: str) -> None:
    """Whichever backend is the fastest, nearly all batches go to it, once each other was served for long enough."""
    server = Server({name: 0.01 if name == fastest else 0.02 for name in "abc"})
    assert server.serve(300)[100:].count(fastest) >= 195


def test_each_bucket_has_its_own_choice() -> None:
    """A backend that is the fastest in one bucket need not serve another."""
    policy = Selector((1, 8))
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    seconds = {(1, "a"): 0.01, (1, "b"): 0.03, (8, "a"): 0.3, (8, "b"): 0.1}
    now, last = 0.0, {}
    for batch in range(600):
        size, now = (1, 8)[batch % 2], now + 1
        decision = policy.choose(size, now, ())
        last[size] = decision.backend
        now += seconds[size, decision.backend]
        policy.observe(Outcome(batch, size, decision.backend, seconds[size, decision.backend], None), now)
    assert last == {1: "a", 8: "b"}


def test_a_backend_that_becomes_slow_is_left_within_twenty_batches() -> None:
    """And is taken back when it is well again, each time with the figures in words."""
    server = Server({"a": 0.01, "b": 0.015})
    server.serve(200)
    server.times["a"] = 0.1
    assert server.serve(30).count("a") <= 20
    left = server.policy.history[-1]
    assert (left.bucket, left.source, left.target) == (1, "a", "b")
    assert "ms against" in left.reason
    server.times["a"] = 0.01
    assert server.serve(3000)[-100:].count("a") >= 95


def test_what_strikes_all_alike_moves_nothing_for_long() -> None:
    """If every backend becomes three times slower the better one still serves soon after."""
    server = Server({"a": 0.01, "b": 0.015})
    server.serve(300)
    server.times = {"a": 0.03, "b": 0.045}
    assert server.serve(200)[-100:].count("a") >= 95


def test_a_failing_backend_is_quarantined_and_taken_back() -> None:
    """No input's fault: the other backend answers. It is asked again by calibration, and returns when it answers."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda name, _batch: Failure.ERROR if name == "a" else None
    assert server.serve(60).count("a") <= 6
    assert states(server)["a"] == State.QUARANTINED.value
    assert "quarantined: failed runs" in server.policy.history[-1].reason
    server.fails = lambda _name, _batch: None
    assert server.serve(1500)[-50:].count("a") >= 45
    assert states(server)["a"] == State.ELIGIBLE.value


def test_one_answer_that_is_not_finite_is_enough() -> None:
    """A backend that answers NaN where another doesn't is quarantined at once."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda name, _batch: Failure.NOT_FINITE if name == "a" else None
    server.serve(1, idle=False)
    assert states(server) == {"a": "quarantined", "b": "eligible"}


def test_an_input_that_fails_everywhere_counts_against_none() -> None:
    """A client that sends the same bad input again and again takes no backend away."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda _name, batch: Failure.ERROR if batch >= 0 else None
    server.serve(50)
    assert states(server) == {"a": "eligible", "b": "eligible"}
    assert {name: server.policy.table.buckets[1].pairs[name].health.failures for name in "ab"} == {"a": 0, "b": 0}


def test_what_is_left_to_others_is_no_failure() -> None:
    """A backend that leaves some batches stays, is blamed for none, and no look at it stays open."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda name, batch: Failure.LEFT if name == "a" and batch % 3 == 0 else None
    assert server.serve(300).count("a") == 300
    assert states(server) == {"a": "eligible", "b": "eligible"}
    pairs = server.policy.table.buckets[1].pairs
    assert [(pairs[name].health.failures, pairs[name].exploring) for name in "ab"] == [(0, 0), (0, 0)]
    assert not server.policy._court._open


def test_a_look_that_is_left_to_others_is_closed() -> None:
    """An exploring batch that the backend leaves counts as such, and the next one that it answers is its own."""
    server = Server({"a": 0.01, "b": 0.011})
    server.fails = lambda name, batch: Failure.LEFT if name == "b" and batch % 2 else None
    server.serve(2000)
    assert sum(decision.is_exploration for decision in server.chosen) > 0
    assert server.policy.table.buckets[1].pairs["b"].exploring == 0


def test_a_backend_that_leaves_most_batches_does_not_serve() -> None:
    """Another is selected, which says why; no failure is counted, golden inputs are no way back, and answers are."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda name, batch: Failure.LEFT if name == "a" and batch >= 0 else None
    assert server.serve(600).count("a") <= 2 * LEAVES
    assert states(server) == {"a": "abstaining", "b": "eligible"}
    assert [(switch.target, switch.kind) for switch in server.policy.history][-1] == ("b", "left")
    assert "a is abstaining: leaves batches to others" in server.policy.history[-1].reason
    assert server.policy.table.buckets[1].pairs["a"].health.failures == 0
    server.fails = lambda _name, _batch: None
    assert server.serve(1500)[-50:].count("a") >= 45
    assert states(server) == {"a": "eligible", "b": "eligible"}


def test_one_in_quarantine_is_not_excused_by_what_it_leaves() -> None:
    """A backend that failed stays in quarantine until it answers, whatever it leaves to others meanwhile."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.fails = lambda name, _batch: Failure.NOT_FINITE if name == "a" else None
    server.serve(5)
    server.fails = lambda name, _batch: Failure.LEFT if name == "a" else None
    server.serve(100)
    assert states(server) == {"a": "quarantined", "b": "eligible"}
    assert "not finite" in (server.policy.table.buckets[1].pairs["a"].health.reason or "")


def test_a_quick_failure_is_no_speed() -> None:
    """A backend that always fails at once is never measured as fast."""
    server = Server({"a": 0.01, "b": 0.0001})
    server.fails = lambda name, _batch: Failure.ERROR if name == "b" else None
    assert server.serve(300)[10:].count("b") <= 5
    assert server.policy.table.buckets[1].pairs["b"].estimate.runs == 0


def test_exploration_keeps_to_its_share() -> None:
    """Over a long time, looking at others takes at most one hundredth of the busy time."""
    server = Server({"a": 0.01, "b": 0.011, "c": 0.05})
    server.serve(6000)
    assert 0 < server.policy.budget.share <= 0.01


def test_twins_are_let_be() -> None:
    """Backends that are equally fast are not exchanged."""
    server = Server({"a": 0.01, "b": 0.01})
    server.serve(3000)
    assert len(server.policy.history) <= 1


def test_pins_hold_fall_through_and_are_lifted() -> None:
    """The first pinned backend that can be had serves; the reason tells why an earlier one doesn't."""
    server = Server({"a": 0.01, "b": 0.02, "c": 0.03})
    server.serve(50)
    server.policy.pin(["c", "b"])
    assert set(server.serve(20)) == {"c"}
    assert server.policy.history[-1].reason == "pinned to c then b"
    server.policy.backend_state("c", available=False, now=server.now)
    assert set(server.serve(20)) == {"b"}
    assert server.policy.history[-1].reason == "pinned to c then b, c is not available"
    server.policy.pin(None)
    assert server.serve(100)[-20:].count("a") >= 19


def test_pins_cost_the_free_choice_nothing() -> None:
    """However often an operator pins and lifts: the next batch goes to the best known backend, with the reason."""
    server = Server({"a": 0.01, "b": 0.012, "c": 0.02})
    server.serve(100)
    for _ in range(30):
        for name in "abc":
            server.policy.pin(name)
            assert set(server.serve(5)) == {name}
        server.policy.pin(None)
        assert set(server.serve(5)) == {"a"}
        assert server.policy.history[-1].reason == "no longer pinned, a 10.0 ms"
    server.times["a"] = 0.1
    assert server.serve(30).count("a") <= 20


def test_a_single_name_can_be_pinned_and_falls_through_when_it_fails() -> None:
    """A pin is a wish: while its backend is quarantined, others serve; nothing is explored meanwhile."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(50)
    server.policy.pin("b")
    assert server.policy.pinned == ("b",)
    server.fails = lambda name, _batch: Failure.NOT_FINITE if name == "b" else None
    assert server.serve(10)[1:].count("a") >= 8
    server.fails = lambda _name, _batch: None
    assert server.serve(800)[-20:] == ["b"] * 20


@pytest.mark.parametrize(
    ("objective", "expected"),
    [(Objective.MEAN, "b"), (Objective.THROUGHPUT, "b"), (Objective.P95, "b"), (Objective.P50, "a")],
)
def test_objectives_differ(objective: Objective, expected: str) -> None:
    """A backend that is mostly fast but often stalls is the best by its median alone."""
    policy = Selector((1,), objective)
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    for batch in range(2000):
        for name, seconds in (("a", 0.08 if batch % 10 == 9 else 0.01), ("b", 0.014)):
            policy.observe(Outcome(batch, 1, name, seconds, None), float(batch))
    costs = {pair.backend: policy.table.cost(pair) for pair in policy.table.buckets[1].pairs.values()}
    assert min(costs, key=lambda name: costs[name]) == expected


@pytest.mark.parametrize("objective", Objective)
def test_failures_count_by_any_objective(objective: Objective) -> None:
    """A backend that is a little faster and fails on each tenth batch is not the better one, whatever is asked for."""
    policy = Selector((1,), objective)
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    for batch in range(2000):
        failure = Failure.ERROR if batch % 10 == 9 else None
        policy.observe(Outcome(batch, 1, "a", 0.01, failure), float(batch))
        policy.observe(Outcome(batch, 1, "b", 0.0108, None), float(batch))
    costs = {pair.backend: policy.table.cost(pair) for pair in policy.table.buckets[1].pairs.values()}
    assert costs["b"] < costs["a"] < costs["b"] + 0.2


def test_backends_come_and_go() -> None:
    """A backend that is taken away gets nothing, and the history says where its batches went and why."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(100)
    server.policy.backend_state("a", available=False, now=server.now, reason="unloaded")
    assert set(server.serve(50)) == {"b"}
    assert server.policy.history[-1].reason.startswith("a is not available")
    assert states(server)["a"] == State.AWAY.value
    server.policy.backend_state("a", available=True, now=server.now)
    assert server.serve(400)[-50:].count("a") >= 45


def test_stages_before_loading_are_shown() -> None:
    """What is being built, proved or was rejected is told with its reason."""
    server = Server({"a": 0.01})
    server.policy.stage("b", State.PROVING, "bucket 4 of 8")
    server.policy.stage("c", State.REJECTED, "differs by 0.2 from TensorFlow")
    server.serve(3)
    found = {pair["backend"]: (pair["state"], pair["reason"]) for pair in server.policy.snapshot(server.now)["pairs"]}
    assert found["b"] == ("proving", "bucket 4 of 8")
    assert found["c"] == ("rejected", "differs by 0.2 from TensorFlow")


def test_without_a_backend_there_is_no_choice() -> None:
    """Asking while nothing can be had is an error, not a guess."""
    with pytest.raises(ValueError, match="no backend"):
        Selector((1,)).choose(1, 0.0, ())
    server = Server({"a": 0.01})
    with pytest.raises(ValueError, match="no backend is left"):
        server.policy.choose(1, 0.0, ["a"])


def test_a_decision_takes_microseconds() -> None:
    """Choosing and observing take a few microseconds; the bound here leaves room for a busy machine."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(500)
    policy, best = server.policy, math.inf
    for batch in range(40):
        start = time.perf_counter()
        for i in range(100):
            decision = policy.choose(1, server.now + batch, ())
            policy.observe(Outcome(batch * 100 + i, 1, decision.backend, 0.01, None), server.now + batch)
        best = min(best, (time.perf_counter() - start) / 100)
    assert best < 30e-6


def test_what_was_not_asked_for_is_free() -> None:
    """Runs that the server made on its own, to prove a backend, are learnt from and not charged as exploration."""
    server = Server({"a": 0.01, "b": 0.02})
    for _ in range(5):
        for name in "ab":
            server.policy.observe(Outcome(None, 1, name, server.times[name], None), 0.0)
    assert server.policy.budget.explored == 0
    assert server.serve(10, idle=False) == ["a"] * 10


def test_a_size_without_golden_inputs_starves_no_other() -> None:
    """What can't be calibrated isn't asked for again, and the other sizes get their turn."""
    policy = Selector((1, 2))
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    wished = set()
    for second in range(30):
        wish = policy.idle(float(second))
        if wish is not None:
            wished.add(wish.bucket)
            if wish.bucket == 1:
                policy.has_no_inputs(1)
            else:
                policy.observe(Outcome(None, wish.bucket, wish.backend, 0.01, None), float(second))
    assert wished == {1, 2}
    assert policy.snapshot(30.0)["exploration_share"] == 1.0


def test_a_disturbed_calibration_is_paid_for() -> None:
    """A run that something else slowed teaches nothing, and its time is exploration all the same."""
    policy = Selector((1,))
    policy.backend_state("a", available=True, now=0.0)
    assert policy.idle(0.0) is not None
    policy.disturbed(2.0)
    assert policy.budget.explored == 2.0
    assert policy.snapshot(0.0)["pairs"][0]["samples"] == 0


def test_what_warms_up_slowly_is_found() -> None:
    """A backend whose first eight runs after each silence are slow, and which is the fastest then, comes to serve."""
    policy, now, rows, used, chosen = Selector((1,)), 0.0, 0, -100.0, []
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)

    def run(batch: int | None, name: str) -> None:
        nonlocal now, rows, used
        if name == "b":
            rows = 1 if now - used > 15 else rows + 1
            used = now
        seconds = 0.01 if name == "a" else 0.02 if rows <= 8 else 0.005
        now += seconds
        policy.observe(Outcome(batch, 1, name, seconds, None), now)

    for name in "aaaabbbb":
        run(None, name)
    for batch in range(4000):
        now += 1.0
        decision = policy.choose(1, now, ())
        chosen.append(decision.backend)
        run(batch, decision.backend)
    assert chosen[-100:].count("b") >= 95
    assert [switch.kind for switch in policy.history][:1] == ["trial"]


def answers_needed(health: Health, now: float) -> int:
    """How many answers in succession end a quarantine."""
    count = 1
    while not health.answer(now):
        count += 1
    health.release_on_parole(now)
    return count


def test_more_answers_are_asked_of_who_answers_often_anyway() -> None:
    """A few answers prove that one has healed that always failed, and nothing of one that failed now and then."""
    always, sometimes = Health(), Health()
    for _ in range(8):
        always.fail(0.0, Failure.ERROR)
    for _ in range(4):
        sometimes.fail(0.0, Failure.ERROR)
        for _ in range(2):
            sometimes.answer(0.0)
    assert answers_needed(always, 0.0) == 2
    assert answers_needed(sometimes, 0.0) >= 5


def test_each_relapse_asks_for_more_answers() -> None:
    """A backend that fails again soon after it returned must answer more often before it serves again."""
    health, now, needed = Health(), 0.0, []
    for _ in range(5):
        while health.reason is None:
            health.fail(now, Failure.ERROR)
        needed.append(answers_needed(health, now))
        now += 1.0
    assert needed == sorted(needed)
    assert needed[0] < 6 < needed[-1]


def test_failures_leave_the_allowance_alone() -> None:
    """Leaving a backend that fails needs no leave, and takes none from the way back."""
    server = Server({"a": 0.01, "b": 0.02})
    server.serve(300)
    before = server.policy.budget.switches.left
    server.fails = lambda name, _batch: Failure.ERROR if name == "a" else None
    server.serve(20)
    assert server.policy.history[-1].kind == "failing"
    assert server.policy.budget.switches.left >= before


def test_without_means_the_smallest_bucket_alone_is_tried_unproved() -> None:
    """Where a quarantined backend can't be asked, one bucket's batches find out whether it is well, for all."""
    policy = Selector((1, 8))
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    for size in (1, 8):
        policy.table.buckets[size].pairs["a"].health.fail(0.0, Failure.NOT_FINITE)
    released = [policy._may_parole(policy.table.buckets[size].pairs["a"], 1e4) for size in (1, 8)]
    assert released == [False, False]
    for size in (1, 8):
        policy.choose(size, 1e4)
    assert [policy._may_parole(policy.table.buckets[size].pairs["a"], 1e4) for size in (1, 8)] == [True, False]
