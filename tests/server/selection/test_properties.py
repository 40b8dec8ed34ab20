"""What holds whatever backends do: drawn at random, shrunk by hypothesis."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from server.selection.budget import REFILL, RUNS, WHILE_OWING
from server.selection.interface import Failure, Outcome
from server.selection.policy import Selector

NAMES = ("a", "b", "c")
SIZES = (1, 4)

happenings = st.lists(
    st.one_of(
        st.tuples(st.just("serve"), st.integers(0, 1), st.sampled_from((0.01, 0.012, 0.03, 0.2)), st.integers(1, 40)),
        st.tuples(st.just("appear"), st.integers(0, 2), st.just(0.0), st.just(0)),
        st.tuples(st.just("vanish"), st.integers(0, 2), st.just(0.0), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, 2), st.just(0.0), st.integers(0, 3)),
        st.tuples(st.just("pin"), st.integers(0, 3), st.just(0.0), st.just(0)),
    ),
    max_size=40,
)


class Play:
    """Lets things happen to a policy and checks each decision."""

    def __init__(self) -> None:
        self.policy, self.now, self.batch = Selector(SIZES), 0.0, 0
        self.present = {"a"}
        self.fails: dict[str, Failure | None] = dict.fromkeys(NAMES)
        self.policy.backend_state("a", available=True, now=0.0)
        self.decisions: list[tuple[int, str, bool]] = []

    def happen(self, kind: str, which: int, seconds: float, count: int) -> None:
        """One drawn happening."""
        if kind == "serve":
            for _ in range(count):
                self._serve(SIZES[which], seconds)
        elif kind == "pin":
            self.policy.pin(NAMES[which] if which < len(NAMES) else None)
        elif kind == "fail":
            self.fails[NAMES[which]] = (None, Failure.ERROR, Failure.NOT_FINITE, Failure.LEFT)[count]
        else:
            appears, name = kind == "appear", NAMES[which]
            if appears or self.present != {name}:
                (self.present.add if appears else self.present.discard)(name)
                self.policy.backend_state(name, available=appears, now=self.now)

    def _serve(self, size: int, seconds: float) -> None:
        self.now += 0.5
        self.batch += 1
        failed: list[str] = []
        while self.present.difference(failed):
            name, exploring = self.policy.choose(size, self.now, failed)
            assert name in self.present
            assert name not in failed
            if not failed:
                self.decisions.append((size, name, exploring))
            took = seconds * (1 + NAMES.index(name)) * size
            self.now += took
            self.policy.observe(Outcome(self.batch, size, name, took, self.fails[name]), self.now)
            if self.fails[name] is None:
                break
            failed.append(name)
        wish = self.policy.idle(self.now)
        if wish is not None:
            assert wish.backend in self.present
            assert wish.bucket in SIZES
            self.now += seconds
            failure = self.fails[wish.backend]
            self.policy.observe(Outcome(None, wish.bucket, wish.backend, seconds, failure), self.now)


@settings(max_examples=60, deadline=None)
@given(happenings)
def test_only_what_can_be_had_is_chosen(drawn: list[tuple[str, int, float, int]]) -> None:
    """Never a backend that is away or failed the batch; each switch has a reason; the history and data are bounded."""
    play = Play()
    for happening in drawn:
        play.happen(*happening)
    switches = list(play.policy.history)
    assert len(switches) <= 100
    assert all(switch.reason and switch.source != switch.target for switch in switches)
    assert [switch.time for switch in switches] == sorted(switch.time for switch in switches)
    taken = sum(
        before[1] != after[1]
        for size in SIZES
        for decided in [[d for d in play.decisions if d[0] == size and not d[2]]]
        for before, after in pairwise(decided)
    )
    assert taken <= len(switches) or len(switches) == 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from((0.01, 0.02, 0.05, 0.5)), min_size=200, max_size=900), st.integers(0, 2))
def test_exploration_is_bounded_in_any_run_of_batches(times: list[float], worst: int) -> None:
    """What exploring batches take is at most the loan, the share of busy time, and the last look's excess."""
    policy = Selector((1,))
    for name in NAMES:
        policy.backend_state(name, available=True, now=0.0)
    now, explored, longest = 0.0, 0.0, 0.0
    for batch, seconds in enumerate(times):
        now += 1.0
        name, exploring = policy.choose(1, now, ())
        took = seconds * (3 if NAMES.index(name) == worst else 1)
        policy.observe(Outcome(batch, 1, name, took, None), now)
        explored += took if exploring else 0.0
        longest = max(longest, took)
    busy = policy.budget.busy
    assert explored == policy.budget.explored
    assert explored <= max(REFILL * busy, RUNS * longest + WHILE_OWING * busy) + 2 * longest


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.005, 0.05), min_size=300, max_size=1500), st.floats(0.9, 1.1))
def test_switches_are_bounded_under_any_noise(times: list[float], ratio: float) -> None:
    """Backends within a tenth of each other are not exchanged all the time, however their runs scatter."""
    policy = Selector((1,))
    for name in "ab":
        policy.backend_state(name, available=True, now=0.0)
    for batch, seconds in enumerate(times):
        name, _ = policy.choose(1, float(batch), ())
        policy.observe(Outcome(batch, 1, name, seconds * (ratio if name == "b" else 1), None), float(batch))
    assert len(policy.history) <= 4 + len(times) / 60
