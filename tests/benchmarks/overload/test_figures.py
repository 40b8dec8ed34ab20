"""What became of an overload's requests is told apart rightly, and each limit can be missed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.overload.figures import Fate, Limits, Outcome, Request, fate, outcome, verdicts

FULL = "The batch scheduling queue to which this task was submitted is full"
TOO_LATE = "3 requests for slow go first: it would take 1.250 s, and 0.500 s are left"
CAPACITY = Outcome(30.0, sent=1100, answered=1080)
GOOD = Outcome(
    120.0, sent=13_000, answered=4200, refused=8800, refusal_p99=0.008, refusal_max=0.05, health_checks=1100,
    memory_begin_mib=100.0, memory_course_mib=[(float(second), 106.0 + second / 120) for second in range(120)],
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("OK", "", Fate.ANSWERED),
        ("UNAVAILABLE", FULL, Fate.REFUSED),
        ("UNAVAILABLE", f"{FULL}; currently 10 batches enqueued and max_enqueued_batches is 10", Fate.REFUSED),
        ("RESOURCE_EXHAUSTED", TOO_LATE, Fate.REFUSED),
        ("RESOURCE_EXHAUSTED", "requests in flight hold 7 of 8 bytes, and this one takes 2", Fate.REFUSED),
        ("RESOURCE_EXHAUSTED", "Run() timeout exceeded while waiting in batching queue", Fate.LATE),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Fate.LATE),
        ("UNAVAILABLE", "Socket closed", Fate.BROKEN),
        ("RESOURCE_EXHAUSTED", "cannot allocate", Fate.OTHER),
        ("INTERNAL", "an internal error", Fate.OTHER),
    ],
)  # fmt: skip
def test_failures_of_one_code_are_told_apart_by_their_texts(code: str, text: str, expected: Fate) -> None:
    """A refusal at once is neither a failure at the deadline nor a lost connection, though they share codes."""
    assert fate(code, text) is expected


def test_an_answer_after_the_end_is_no_throughput_of_the_phase() -> None:
    """It is counted for itself."""
    told = outcome([Request(0.0, 9.9, "OK"), Request(9.5, 10.0, "OK"), Request(9.9, 10.1, "OK")], 0.0, 10.0)
    assert (told.sent, told.answered, told.answered_after, told.goodput) == (3, 2, 1, 0.2)


def test_the_times_of_refusals_are_those_of_refusals_alone() -> None:
    """Late failures and lost connections are counted beside them, and make them look neither slow nor quick."""
    refusals = [Request(0.0, 0.001, "RESOURCE_EXHAUSTED", TOO_LATE) for _ in range(98)]
    refusals += [Request(0.0, seconds, "RESOURCE_EXHAUSTED", TOO_LATE) for seconds in (0.012, 0.5)]
    others = [
        Request(0.0, 1.0, "RESOURCE_EXHAUSTED", "Run() timeout exceeded while waiting in batching queue"),
        Request(0.0, 0.0001, "UNAVAILABLE", "Socket closed"),
        Request(0.0, 0.0001, "INTERNAL", "oh"),
    ]
    told = outcome(refusals + others, 0.0, 10.0)
    assert (told.refused, told.late, told.broken, told.other) == (100, 1, 1, {"INTERNAL: oh": 1})
    assert (told.refusal_p50, told.refusal_p99, told.refusal_max) == (0.001, 0.5, 0.5)
    assert told.refusals_over_10_ms == 0.02


def test_memory_rises_only_from_the_first_quarter_on() -> None:
    """What a server takes when the load begins is no growth; what it takes afterwards is, also if it gives it back."""
    flat = replace(GOOD, memory_course_mib=[(0.0, 50.0), (1.0, 100.0), (2.0, 100.0)] + [(3.0, 100.0)] * 9)
    assert flat.memory_rise == 0
    assert replace(
        flat, memory_course_mib=[*flat.memory_course_mib, (4.0, 110.0), (5.0, 100.0)]
    ).memory_rise == pytest.approx(0.1)


def test_a_good_run_holds() -> None:
    """With the figures of a run as it must be every verdict holds."""
    assert all(verdict.holds for verdict in verdicts(CAPACITY, GOOD, Limits()))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: replace(run, answered=3800), "88.0% of the capacity"),
        (lambda run: replace(run, refusal_p99=0.011), "refused within 11.0 ms"),
        (lambda run: replace(run, refused=0), "refused within"),
        (lambda run: replace(run, late=100), "100 of 8900 that were not answered failed late"),
        (lambda run: replace(run, broken=1), "1 requests lost"),
        (lambda run: replace(run, other={"INTERNAL: oh": 2}), "2 requests lost"),
        (lambda run: replace(run, health_not_serving=1), "1 of 1100 health checks"),
        (lambda run: replace(run, health_checks=0), "0 of 0 health checks"),
        (lambda run: replace(run, memory_course_mib=[(t, 100.0 + t) for t in range(100)]), "memory rises"),
    ],
)  # fmt: skip
def test_each_limit_can_be_missed(spoil: Callable[[Outcome], Outcome], words: str) -> None:
    """One figure beyond its limit makes its verdict fail, and that one alone."""
    (failed,) = [verdict for verdict in verdicts(CAPACITY, spoil(GOOD), Limits()) if not verdict.holds]
    assert failed.claim.startswith(words)
