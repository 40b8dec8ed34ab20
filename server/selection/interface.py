"""What a policy that chooses backends is asked and told. No simulation here, and nothing that a real server lacks.

A policy serves one model version. It is pure logic: time comes in as `now`, in seconds of a clock that never goes back.

A server knows which buckets the model has, which backends are proved and loaded at this moment, how long each run took,
that a run raised or gave values that are not finite, and that it is idle. It doesn't know what a run on another
backend would have taken, whether a slow run was noise, when traffic comes, how long it lasts, what a rebuilt backend
is like, or whether the input or the backend is to blame for a failure: the batch fails over and the policy may compare.
With several workers, batches are chosen for before earlier ones are observed.
"""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Failure(enum.Enum):
    """How a run failed."""

    ERROR = "error"  # the backend raised
    NOT_FINITE = "not finite"  # it answered with NaN or infinity, which costs the whole run
    LEFT = "left to others"  # it said at once that the input is not for it: no fault, but no answer either


class Decision(NamedTuple):
    """Which backend runs a batch.

    Attributes:
        backend: One that is available and has not failed this batch.
        is_exploration: The batch goes there to learn. A decision that isn't exploration and differs from the bucket's
            decision before it counts as a switch.
    """

    backend: str
    is_exploration: bool = False


class Calibration(NamedTuple):
    """A run on golden inputs that an idle server shall make."""

    bucket: int
    backend: str


class Outcome(NamedTuple):
    """One run that ended.

    Attributes:
        batch: The batch's number; runs of one batch on several backends (failover) share it. None for a calibration.
        bucket: The bucket's batch size.
        backend: Which backend ran.
        seconds: How long, until the answer or the failure.
        failure: None for an answer.
    """

    batch: int | None
    bucket: int
    backend: str
    seconds: float
    failure: Failure | None


class Policy(Protocol):
    """Chooses backends, to spend the least mean time per batch."""

    def backend_state(self, backend: str, *, available: bool, now: float) -> None:
        """A backend is proved and loaded, or was taken away. At least one is available before the first batch."""

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:
        """Choose for a batch that starts now.

        Args:
            bucket: The batch's bucket.
            now: Seconds.
            failed: The backends that this batch failed on already; empty at first. Never every available one.
        """

    def observe(self, outcome: Outcome, now: float) -> None:
        """A run ended."""

    def idle(self, now: float) -> Calibration | None:
        """Nothing runs and nothing waits: what to calibrate, if anything.

        Asked when the server becomes idle, after each calibration and then once a second. The run isn't interrupted
        when a batch arrives, so the batch may wait for it.
        """


# Makes a policy for a model with these buckets.
Factory = Callable[[Sequence[int]], Policy]
