"""The server, simulated: `play` lets a policy serve a scenario's batches and records what that cost. No judging here.

Batches wait in order for a free worker. A failed batch goes on at once to another backend, until one answers or all
have failed. When nothing runs and nothing waits the policy may calibrate. Costs are recorded as true expectations, so
that luck in the noise is neither blamed nor praised; what the policy observes is the noisy time.
"""

import heapq
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.selection.conditions import CALIBRATIONS, CELLS, ERROR_SHARE, Conditions
from benchmarks.selection.interface import Calibration, Failure, Outcome, Policy

NAMES = ("a", "b", "c", "d")
INDEX = {name: j for j, name in enumerate(NAMES)}
TICK = 1.0  # seconds between two questions to an idle policy


class BrokenContractError(Exception):
    """The policy chose a backend that is away or has failed the batch, or calibrates what does not exist."""


@dataclass
class Record:
    """What a policy did. Lists are per batch.

    Attributes:
        chosen: Index of the backend that it chose first.
        exploring: Whether that was exploration.
        cost: Expected seconds of all the batch's runs, cold ones and failed ones at what they take; 0 if poison.
        busy: Observed seconds of all runs, calibrations included.
        explored: Observed seconds of calibrations and of runs that explored.
        blocked: Seconds that batches waited for a calibration to end.
        failovers: Failed runs after which another backend took the batch.
        client_failures: Batches that failed on every available backend though their input was good.
    """

    chosen: list[int]
    exploring: list[bool]
    cost: list[float]
    busy: float = 0.0
    explored: float = 0.0
    blocked: float = 0.0
    failovers: int = 0
    client_failures: int = 0


class Run(NamedTuple):
    """A run under way, in the order of its end."""

    end: float
    number: int
    batch: int  # -1 for a calibration
    outcome: Outcome
    exploring: bool
    failed: tuple[str, ...]


def play(conditions: Conditions, policy: Policy) -> Record:
    """Let a policy serve all batches of a scenario.

    Raises:
        BrokenContractError: The policy chose what it may not.
    """
    return _Server(conditions, policy).serve()


class _Server:
    def __init__(self, conditions: Conditions, policy: Policy) -> None:
        scenario, count = conditions.scenario, len(conditions.arrivals)
        self._conditions, self._policy, self._backends = conditions, policy, scenario.backends
        self._sizes, self._place = scenario.buckets, {size: k for k, size in enumerate(scenario.buckets)}
        self._arrivals: list[float] = conditions.arrivals.tolist()
        self._buckets: list[int] = conditions.buckets.tolist()
        where = conditions.cells, conditions.buckets
        self._mean: list[list[float]] = conditions.mean[where].tolist()
        self._noise: list[list[float]] = conditions.noise.tolist()
        self._failure = _failures(conditions)
        self._poison: list[bool] = conditions.poison.tolist()
        # Runs since a bucket's cache was cold, and when the last one ended [k][j].
        self._runs = [[0] * len(scenario.backends) for _ in scenario.buckets]
        self._used = [[-np.inf] * len(scenario.backends) for _ in scenario.buckets]
        self._events = sorted(
            (moment, j, moment == span[0])
            for j, backend in enumerate(scenario.backends)
            for span in backend.available
            for moment in span
            if moment < scenario.duration
        )
        self._present: set[str] = set()
        self._waiting: deque[int] = deque()
        self._running: list[Run] = []
        self._free, self._started, self._calibrations = scenario.workers, 0, 0
        self._now = self._next_state = 0.0
        self._record = Record([0] * count, [False] * count, [0.0] * count)

    def serve(self) -> Record:
        """Go from one arrival or end of a run to the next."""
        arrivals, running, waiting = [*self._arrivals, np.inf], self._running, self._waiting
        arrived, count = 0, len(self._arrivals)
        arrival = arrivals[0]
        while True:
            if self._now >= self._next_state:
                self._tell_states()
            while waiting and self._free:
                self._start_batch(waiting.popleft(), (), exploring=False)
            if running:
                end = running[0].end
            elif arrived == count:
                return self._record
            else:
                end = self._idle()
            if arrival < end:
                self._now = arrival
                waiting.append(arrived)
                arrived += 1
                arrival = arrivals[arrived]
            else:
                self._now = end
                if running and running[0].end == end:
                    self._finish(heapq.heappop(running))

    def _tell_states(self) -> None:
        while self._events and self._events[0][0] <= self._now:
            _, j, available = self._events.pop(0)
            (self._present.add if available else self._present.discard)(NAMES[j])
            self._policy.backend_state(NAMES[j], available=available, now=self._now)
        self._next_state = self._events[0][0] if self._events else np.inf

    def _idle(self) -> float:
        """Offer a calibration; returns when it ends, or when to ask again."""
        wish = self._policy.idle(self._now)
        if wish is None:
            return self._now + TICK
        if wish.backend not in self._present or wish.bucket not in self._place:
            raise BrokenContractError(f"no {wish} at {self._now:.3f} s")
        self._start_calibration(wish)
        return self._running[0].end

    def _start_batch(self, batch: int, failed: tuple[str, ...], *, exploring: bool) -> None:
        bucket = self._buckets[batch]
        name, explores = self._policy.choose(self._sizes[bucket], self._now, failed)
        if name not in self._present or name in failed:
            raise BrokenContractError(f"{name} at {self._now:.3f} s, available {self._present}, failed {failed}")
        j = INDEX[name]
        if not failed:
            self._record.chosen[batch], self._record.exploring[batch] = j, explores
        failure = Failure.ERROR if self._poison[batch] else self._failure[batch][j]
        expected = self._mean[batch][j] * self._cold(bucket, j) * (ERROR_SHARE if failure is Failure.ERROR else 1)
        if not self._poison[batch]:
            self._record.cost[batch] += expected
        outcome = Outcome(batch, self._sizes[bucket], name, expected * self._noise[batch][j], failure)
        self._run(batch, bucket, j, outcome, exploring=explores or exploring, failed=failed)

    def _start_calibration(self, wish: Calibration) -> None:
        bucket, j = self._place[wish.bucket], INDEX[wish.backend]
        truth, turn = self._conditions, self._calibrations % CALIBRATIONS
        self._calibrations += 1
        where = min(int(self._now / truth.scenario.duration * CELLS), CELLS - 1), bucket, j
        luck, failure = truth.calibration_luck[turn, j], None
        if luck < truth.error[where]:
            failure = Failure.ERROR
        elif luck < _any_failure(truth.error[where], truth.not_finite[where]):
            failure = Failure.NOT_FINITE
        seconds = truth.mean[where] * self._cold(bucket, j) * truth.calibration_noise[turn, j]
        seconds *= ERROR_SHARE if failure is Failure.ERROR else 1
        outcome = Outcome(None, wish.bucket, wish.backend, float(seconds), failure)
        self._run(-1, bucket, j, outcome, exploring=True, failed=())

    def _run(
        self, batch: int, bucket: int, j: int, outcome: Outcome, *, exploring: bool, failed: tuple[str, ...]
    ) -> None:
        self._free -= 1
        self._started += 1
        end = self._now + outcome.seconds
        self._used[bucket][j] = end
        heapq.heappush(self._running, Run(end, self._started, batch, outcome, exploring, failed))

    def _finish(self, run: Run) -> None:
        record, outcome = self._record, run.outcome
        self._free += 1
        record.busy += outcome.seconds
        if run.exploring:
            record.explored += outcome.seconds
        self._policy.observe(outcome, self._now)
        if run.batch < 0:
            record.blocked += self._now - self._arrivals[self._waiting[0]] if self._waiting else 0.0
        elif outcome.failure is not None:
            failed = (*run.failed, outcome.backend)
            self._tell_states()
            if self._present.issubset(failed):
                record.client_failures += not self._poison[run.batch]
                return
            record.failovers += 1
            self._start_batch(run.batch, failed, exploring=run.exploring)

    def _cold(self, bucket: int, j: int) -> float:
        """The factor of a run that starts now."""
        backend, runs = self._backends[j], self._runs[bucket]
        if self._now - self._used[bucket][j] > backend.cold_after:
            runs[j] = 0
        runs[j] += 1
        return backend.cold_factor if runs[j] <= backend.cold_runs else 1.0


def _any_failure(error: float, not_finite: float) -> float:
    return error + (1 - error) * not_finite


def _failures(conditions: Conditions) -> list[list[Failure | None]]:
    """How each run of each batch would fail [i][j]."""
    where = conditions.cells, conditions.buckets
    error, not_finite = conditions.error[where], conditions.not_finite[where]
    codes = (conditions.luck < error).astype(int)
    codes[(codes == 0) & (conditions.luck < error + (1 - error) * not_finite)] = 2
    kinds = (None, Failure.ERROR, Failure.NOT_FINITE)
    if not codes.any():
        return [[None] * codes.shape[1]] * len(codes)
    return [[kinds[code] for code in row] for row in codes.tolist()]
