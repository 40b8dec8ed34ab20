"""The simulated server does what its interface says, the same each time."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.selection.baselines import Ucb
from benchmarks.selection.conditions import realise
from benchmarks.selection.interface import Decision, Failure
from benchmarks.selection.scenarios import scenario
from benchmarks.selection.specification import Kind
from benchmarks.selection.world import BrokenContractError, play
from tests.benchmarks.selection.quiet import BACKEND, Scripted, only, quiet, slow


def test_same_seed_same_play() -> None:
    """Two plays of one scenario by one policy are equal in every figure."""
    records = [play(realise(scenario("everything", 3)), Ucb(scenario("everything", 3).buckets)) for _ in range(2)]
    assert records[0] == records[1]


def test_seeds_and_families_differ() -> None:
    """Neither a family's seeds nor two families share their noise."""
    first, second, other = (realise(scenario(*key)).noise[:, 0] for key in (("steady", 0), ("steady", 1), ("drift", 0)))
    assert len({float(noise[0]) for noise in (first, second, other)}) == 3


@pytest.mark.parametrize("family", ["spikes", "everything", "noisy_neighbour"])
def test_noise_has_mean_one(family: str) -> None:
    """What the score expects is what runs take on average."""
    means = [realise(scenario(family, seed)).noise.mean(axis=0) for seed in range(12)]
    assert float(np.concatenate(means).mean()) == pytest.approx(1, abs=0.01)


def test_every_batch_is_observed_once() -> None:
    """A quiet server answers every batch in the time of its backend."""
    policy = Scripted(only("b"))
    play(realise(quiet()), policy)
    assert [outcome.batch for outcome, _ in policy.seen] == list(range(1000))
    assert {round(outcome.seconds, 9) for outcome, _ in policy.seen} == {0.2}


def test_clock_never_goes_back() -> None:
    """Also with several workers and failing backends, a policy's clock only advances."""
    policy = Scripted(only("a"), calibrations=5)
    play(realise(replace(quiet(effects=(slow(0.5, kind=Kind.FAIL),)), workers=3)), policy)
    assert policy.clock == sorted(policy.clock)


def test_failed_batch_goes_on() -> None:
    """A failing backend costs time and failovers, and no client sees it."""
    policy = Scripted(only("a"))
    record = play(realise(quiet(effects=(slow(1.0, kind=Kind.NOT_FINITE),))), policy)
    failed = [outcome.batch for outcome, _ in policy.seen if outcome.failure is Failure.NOT_FINITE]
    answered = {outcome.batch for outcome, _ in policy.seen if outcome.failure is None}
    assert record.failovers == len(failed) > 400
    assert record.client_failures == 0
    assert answered == set(range(1000))
    assert record.cost[999] == pytest.approx(0.1 + 0.2)


def test_poison_is_nobodys_fault() -> None:
    """A batch that fails everywhere is tried everywhere and counted neither as cost nor as a client's failure."""
    conditions = realise(quiet(poison_chance=0.05))
    policy = Scripted(only("a"))
    record = play(conditions, policy)
    poisoned = np.flatnonzero(conditions.poison).tolist()
    assert poisoned
    assert record.client_failures == 0
    assert sum(record.cost) == pytest.approx(0.1 * (1000 - len(poisoned)))
    tried = [(outcome.batch, outcome.backend) for outcome, _ in policy.seen if outcome.failure]
    assert tried == [(batch, backend) for batch in poisoned for backend in "ab"]


def test_all_backends_failing_is_seen_by_clients() -> None:
    """If no backend answers a good input, clients see it, and that is counted."""
    broken = replace(BACKEND, failure_chance=1.0)
    assert play(realise(quiet(broken, broken)), Scripted(only("a"))).client_failures == 1000


def test_calibration_is_exploration() -> None:
    """Calibrations are busy time, all of it exploration; batches on which a policy explores are, too."""
    record = play(realise(quiet()), Scripted(only("a"), calibrations=10))
    assert record.explored == pytest.approx(10 * 0.2)
    assert record.busy == pytest.approx(10 * 0.2 + 1000 * 0.1)
    assert play(realise(quiet()), Scripted(lambda _: Decision("b", is_exploration=True))).explored == pytest.approx(200)


def test_batch_waits_for_calibration() -> None:
    """A server that never stops calibrating makes its batches wait, and the wait is recorded."""
    assert play(realise(quiet()), Scripted(only("a"), calibrations=10**6)).blocked > 10


def test_cold_runs() -> None:
    """The first runs are slow, and the first after a pause."""
    cold = replace(BACKEND, cold_runs=2, cold_factor=4.0, cold_after=50.0)
    policy = Scripted(only("a"))
    traffic = replace(quiet().traffic, pauses=((400.0, 600.0),))
    play(realise(replace(quiet(cold, BACKEND), traffic=traffic)), policy)
    slow_ones = [outcome.batch for outcome, _ in policy.seen if outcome.seconds > 0.3]
    (third, fourth) = slow_ones[2:]
    assert slow_ones[:2] == [0, 1]
    assert fourth is not None
    assert fourth - 1 == third
    assert policy.seen[fourth][1] > 600


def test_late_backend_is_announced() -> None:
    """A backend that is not there yet may not be chosen, one that came may."""
    late = replace(BACKEND, available=((300.0, 1000.0),))
    conditions = realise(quiet(BACKEND, late))
    with pytest.raises(BrokenContractError, match="b at"):
        play(conditions, Scripted(only("b")))
    policy = Scripted(lambda now: Decision("b" if now > 302 else "a"))
    play(conditions, policy)
    assert policy.present == ["a", "b"]


def test_failed_backend_may_not_be_chosen_again() -> None:
    """A policy that insists on the backend that failed is wrong, and told so."""

    class Stubborn(Scripted):
        def choose(self, bucket: int, now: float, failed: object) -> Decision:  # noqa: ARG002 - the fault under test
            return Decision("a")

    with pytest.raises(BrokenContractError, match="failed"):
        play(realise(quiet(replace(BACKEND, failure_chance=1.0), BACKEND)), Stubborn(only("a")))
