"""What a backend is in a bucket: its state with the reason, its failures and when it is asked again. No latencies."""

import enum
import math

from server.selection.interface import Failure

# Evidence that a backend fails often, as a likelihood ratio's logarithm: three runs in ten fail rather than one in a
# hundred. Two failures close together are enough, single ones never; an answer that isn't finite is enough at once.
FAILED, ANSWERED, TOO_MUCH = 3.4, 0.36, 6.0
HEARSAY = 0.5  # of a failure's weight in the backend's other buckets
FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 5.0, 2.0, 300.0  # seconds until a quarantined backend is asked, and asked again
MOST_TRIES = 40  # beyond which the pause has long stopped growing
ANOTHER = 4.0  # times the pause, where a smaller bucket of the same backend is asked for less
BY_LUCK = 0.05  # a quarantine ends when so many answers in succession are as unlikely as this, had nothing changed
RELAPSE = 300.0  # seconds: who fails again within them hadn't healed
LEAVES = 8  # batches left to others, beyond those answered, after which a backend doesn't serve


class State(enum.Enum):
    """Where a backend stands, in one bucket or, before it is loaded, in all."""

    BUILDING = "building"
    PROVING = "proving"
    CALIBRATING = "calibrating"
    ELIGIBLE = "eligible"
    QUARANTINED = "quarantined"
    ABSTAINING = "abstaining"
    REJECTED = "rejected"
    AWAY = "away"


class Health:
    """A backend's failures in one bucket.

    Attributes:
        evidence: That it fails often.
        left: How many batches more it left to others than it answered, lately.
        failed: Runs that failed since the trouble began; `answered` of those that answered.
        luck: The chance of the last answers in succession, if it failed as often as before.
        reason: Why it is quarantined or abstains, or None.
        retry_at: When it is asked again, in seconds; infinite if it isn't quarantined.
        since: When it was quarantined last.
        relapses: How often it was quarantined again soon after it had returned.
    """

    __slots__ = (
        "answered", "evidence", "failed", "failures", "left", "luck", "reason", "relapses", "retry_at", "returned_at",
        "since", "state", "tries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.evidence, self.failures, self.left = 0.0, 0, 0
        self.state = State.ELIGIBLE
        self.reason: str | None = None
        self.retry_at, self.returned_at, self.since = math.inf, -math.inf, -math.inf
        self.tries = self.relapses = self.failed = self.answered = 0
        self.luck = 1.0

    def answer(self, now: float) -> bool:
        """A run answered; returns whether that ends a quarantine."""
        if self.reason is None:
            if self.evidence:
                self.evidence = max(0.0, self.evidence - ANSWERED)
                self.answered += 1
            if self.left:
                self.left -= 1
            return False
        self.luck *= (self.answered + 1) / (self.answered + self.failed + 2)  # Laplace's rule of succession
        self.answered += 1
        self.retry_at = now
        return self.luck < BY_LUCK

    def fail(self, now: float, failure: Failure) -> None:
        """A run failed through the backend's fault."""
        self.failures += 1
        if self.reason is None and not self.evidence and now - self.returned_at >= RELAPSE:
            self.failed = self.answered = 0
        self.failed += 1
        if self.reason is None:
            self.evidence += TOO_MUCH if failure is Failure.NOT_FINITE else FAILED
            if self.evidence < TOO_MUCH:
                return
        self._pause(State.QUARANTINED, now)
        what = "answers not finite" if failure is Failure.NOT_FINITE else "failed runs"
        self.reason = f"{what}, {self.failures} failures in all, asked {self.tries} times since"

    def leave(self, now: float) -> None:
        """A run was left to another backend, which is no fault; but whoever leaves most batches doesn't serve."""
        if self.reason is None:
            self.left += 1
            if self.left < LEAVES:
                return
            self.failed, self.answered = self.left, 0
        self._pause(State.QUARANTINED if self.state is State.QUARANTINED else State.ABSTAINING, now)
        if self.state is State.ABSTAINING:
            self.reason = f"leaves batches to others, {self.left} more than it answered, asked {self.tries} times since"

    def _pause(self, state: State, now: float) -> None:
        """Serve no more for a while."""
        if self.reason is None:
            relapse = now - self.returned_at < RELAPSE
            self.relapses = self.relapses + 1 if relapse else 0
            self.tries = self.tries + 1 if relapse else 0
            self.since = now
        else:
            self.tries += 1
        self.state, self.luck = state, 1.0
        self.retry_at = now + min(FIRST_PAUSE * GROWTH ** min(self.tries, MOST_TRIES), LONGEST_PAUSE)

    def wait_for_another(self, now: float) -> None:
        """Another bucket is asked for less."""
        self.retry_at = now + ANOTHER * (self.retry_at - now)

    def hear(self) -> None:
        """The backend failed in another bucket."""
        if self.reason is None:
            self.evidence = min(self.evidence + HEARSAY * FAILED, FAILED)

    def release_on_parole(self, now: float) -> None:
        """End a quarantine if there is one; one failure begins it anew until the backend has answered for a while."""
        if self.reason is not None:
            self.reason, self.retry_at, self.returned_at = None, math.inf, now
            if self.state is State.QUARANTINED:
                self.evidence = FAILED
            self.state, self.left = State.ELIGIBLE, self.left // 2
