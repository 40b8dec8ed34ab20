"""What became of the requests of an overload, and whether that is as it must be. Pure: events in, figures out."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from benchmarks.verdict import Verdict

AT_ONCE: Final = 0.01
"""Seconds within which a refusal must be there."""
_REFUSALS: Final = (
    ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full"),
    ("RESOURCE_EXHAUSTED", " go first: it would take "),
    ("RESOURCE_EXHAUSTED", "requests in flight hold "),
)
_LATE: Final = ("RESOURCE_EXHAUSTED", "Run() timeout exceeded")


class Fate(Enum):
    """What can become of a request."""

    ANSWERED = "answered"
    REFUSED = "refused when it came"
    LATE = "failed when its time was over"
    BROKEN = "lost with its connection"
    OTHER = "anything else"


def fate(code: str, text: str) -> Fate:
    """By the name of the status code, and the text: both kinds of refusal have codes that other failures have too."""
    if code == "OK":
        return Fate.ANSWERED
    if any(code == refusal and words in text for refusal, words in _REFUSALS):
        return Fate.REFUSED
    if code == "DEADLINE_EXCEEDED" or (code == _LATE[0] and _LATE[1] in text):
        return Fate.LATE
    return Fate.BROKEN if code == "UNAVAILABLE" else Fate.OTHER


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it was sent and when it was over, in seconds of one clock, and how it ended."""

    begin: float
    end: float
    code: str
    text: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


@dataclass
class Outcome:
    """What became of the requests of one phase. Times are in seconds."""

    seconds: float
    sent: int = 0
    answered: int = 0
    """Within the phase: what was answered after its end is no throughput of its time."""
    answered_after: int = 0
    refused: int = 0
    late: int = 0
    broken: int = 0
    other: dict[str, int] = field(default_factory=dict)
    refusal_p50: float = 0.0
    refusal_p99: float = 0.0
    refusal_max: float = 0.0
    refusals_over_10_ms: float = 0.0
    """A share of them."""
    answer_p50: float = 0.0
    answer_p99: float = 0.0
    health_checks: int = 0
    health_not_serving: int = 0
    health_p99: float = 0.0
    memory_begin_mib: float = 0.0
    memory_course_mib: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the begin, and what the server held then."""

    @property
    def goodput(self) -> float:
        """Requests answered within the phase, per second."""
        return self.answered / self.seconds

    @property
    def memory_rise(self) -> float:
        """How far the highest point of the last three quarters lies above the first quarter's median, as a share."""
        held = [mib for _, mib in self.memory_course_mib]
        quarter = max(1, len(held) // 4)
        return max(held[quarter:]) / statistics.median(held[:quarter]) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What must hold: by default what is promised; a test in passing on a busy machine is content with less."""

    goodput: float = 0.9
    refusal_p99: float = AT_ONCE
    late: float = 0.01
    """Of all that were not answered: what is not refused at once must be as rare as what lies beyond a p99."""
    memory_rise: float = 0.03


def outcome(requests: Sequence[Request], begin: float, seconds: float) -> Outcome:
    """The figures of the requests of a phase."""
    by_fate: dict[Fate, list[Request]] = {each: [] for each in Fate}
    for request in requests:
        by_fate[fate(request.code, request.text)].append(request)
    answers = sorted(request.seconds for request in by_fate[Fate.ANSWERED])
    refusals = sorted(request.seconds for request in by_fate[Fate.REFUSED])
    within = sum(request.end <= begin + seconds for request in by_fate[Fate.ANSWERED])
    return Outcome(
        seconds,
        sent=len(requests),
        answered=within,
        answered_after=len(answers) - within,
        refused=len(refusals),
        late=len(by_fate[Fate.LATE]),
        broken=len(by_fate[Fate.BROKEN]),
        other=dict(Counter(f"{request.code}: {request.text}" for request in by_fate[Fate.OTHER])),
        refusal_p50=percentile(refusals, 50),
        refusal_p99=percentile(refusals, 99),
        refusal_max=percentile(refusals, 100),
        refusals_over_10_ms=sum(taken > AT_ONCE for taken in refusals) / len(refusals) if refusals else 0.0,
        answer_p50=percentile(answers, 50),
        answer_p99=percentile(answers, 99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Of sorted values, one of them; 0 if there are none."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0


def verdicts(capacity: Outcome, flood: Outcome, limits: Limits) -> list[Verdict]:
    """What the flood must show."""
    share = flood.goodput / capacity.goodput
    failed = flood.refused + flood.late
    p99, most, over = 1e3 * flood.refusal_p99, 1e3 * flood.refusal_max, flood.refusals_over_10_ms
    lost = flood.broken + sum(flood.other.values())
    return [
        Verdict(
            f"{share:.1%} of the capacity is answered in time, at least {limits.goodput:.0%}", share >= limits.goodput
        ),
        Verdict(
            f"refused within {p99:.1f} ms at p99, at most {1e3 * limits.refusal_p99:g} ms"
            f" (the longest took {most:.1f} ms, {over:.2%} more than 10 ms)",
            flood.refused > 0 and flood.refusal_p99 <= limits.refusal_p99,
        ),
        Verdict(
            f"{flood.late} of {failed} that were not answered failed late, at most {limits.late:.0%}",
            flood.late <= limits.late * failed,
        ),
        Verdict(f"{lost} requests lost their connection or failed otherwise, none may", lost == 0),
        Verdict(
            f"{flood.health_not_serving} of {flood.health_checks} health checks were not SERVING, none may",
            flood.health_checks > 0 and flood.health_not_serving == 0,
        ),
        Verdict(
            f"memory rises by {flood.memory_rise:.2%} from the first quarter on, at most {limits.memory_rise:.0%}",
            flood.memory_rise <= limits.memory_rise,
        ),
    ]
