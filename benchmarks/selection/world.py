"""The server, simulated: `play` lets a policy serve a scenario's batches and records what that cost. No judging here.

Batches wait in order for a free worker. A failed batch goes on at once to another backend, until one answers or all
have failed. When nothing runs and nothing waits the policy may calibrate. Costs are recorded as true expectations, so
that luck in the noise is neither blamed nor praised; what the policy observes is the noisy time.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmarks.selection.conditions import CALIBRATIONS, CELLS, ERROR_SHARE, Conditions
from benchmarks.selection.interface import Calibration, Failure, Outcome, Policy

NAMES = ("a", "b", "c", "d")
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
    backend: int
    outcome: Outcome
    exploring: bool
    failed: tuple[str, ...]


def play(conditions: Conditions, policy: Policy) -> Record:
    """Let a policy serve all batches of a scenario.

    Raises:
        BrokenContractError: The policy chose what it may not.
    """
    return _Server(conditions, policy).serve()


@dataclass
class _Cache:
    """How warm a backend is in a bucket."""

    runs: int = 0
    used: float = field(default=-np.inf)


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
        self._caches = [[_Cache() for _ in scenario.backends] for _ in scenario.buckets]
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
        self._free, self._arrived, self._started, self._calibrations = scenario.workers, 0, 0, 0
        self._now = 0.0
        self._record = Record([0] * count, [False] * count, [0.0] * count)

    def serve(self) -> Record:
        count = len(self._arrivals)
        while True:
            self._tell_states()
            while self._waiting and self._free:
                self._start_batch(self._waiting.popleft(), (), exploring=False)
            if self._arrived == count and not self._running:
                return self._record
            pause = np.inf if self._running else self._idle()
            arrival = self._arrivals[self._arrived] if self._arrived < count else np.inf
            end = self._running[0].end if self._running else np.inf
            self._now = min(arrival, end, pause)
            if end == self._now:
                self._finish(heapq.heappop(self._running))
            elif arrival == self._now:
                self._waiting.append(self._arrived)
                self._arrived += 1

    def _tell_states(self) -> None:
        while self._events and self._events[0][0] <= self._now:
            _, j, available = self._events.pop(0)
            (self._present.add if available else self._present.discard)(NAMES[j])
            self._policy.backend_state(NAMES[j], available=available, now=self._now)

    def _idle(self) -> float:
        """Offer a calibration; returns when to ask again."""
        wish = self._policy.idle(self._now)
        if wish is None:
            return self._now + TICK
        if wish.backend not in self._present or wish.bucket not in self._place:
            raise BrokenContractError(f"no {wish} at {self._now:.3f} s")
        self._start_calibration(wish)
        return np.inf

    def _start_batch(self, batch: int, failed: tuple[str, ...], *, exploring: bool) -> None:
        bucket = self._buckets[batch]
        name, explores = self._policy.choose(self._sizes[bucket], self._now, failed)
        if name not in self._present or name in failed:
            raise BrokenContractError(f"{name} at {self._now:.3f} s, available {self._present}, failed {failed}")
        j = NAMES.index(name)
        if not failed:
            self._record.chosen[batch], self._record.exploring[batch] = j, explores
        failure = Failure.ERROR if self._poison[batch] else self._failure[batch][j]
        expected = self._mean[batch][j] * self._cold(bucket, j) * (ERROR_SHARE if failure is Failure.ERROR else 1)
        if not self._poison[batch]:
            self._record.cost[batch] += expected
        outcome = Outcome(batch, self._sizes[bucket], name, expected * self._noise[batch][j], failure)
        self._run(batch, j, outcome, exploring=explores or exploring, failed=failed)

    def _start_calibration(self, wish: Calibration) -> None:
        bucket, j = self._place[wish.bucket], NAMES.index(wish.backend)
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
        self._run(-1, j, outcome, exploring=True, failed=())

    def _run(self, batch: int, j: int, outcome: Outcome, *, exploring: bool, failed: tuple[str, ...]) -> None:
        self._free -= 1
        self._started += 1
        end = self._now + outcome.seconds
        self._caches[self._place[outcome.bucket]][j].used = end
        heapq.heappush(self._running, Run(end, self._started, batch, j, outcome, exploring, failed))

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
        backend, cache = self._backends[j], self._caches[bucket][j]
        if self._now - cache.used > backend.cold_after:
            cache.runs = 0
        cache.runs += 1
        return backend.cold_factor if cache.runs <= backend.cold_runs else 1.0


def _any_failure(error: float, not_finite: float) -> float:
    return error + (1 - error) * not_finite


def _failures(conditions: Conditions) -> list[list[Failure | None]]:
    """How each run of each batch would fail [i][j]."""
    where = conditions.cells, conditions.buckets
    error, not_finite = conditions.error[where], conditions.not_finite[where]
    codes = (conditions.luck < error).astype(int)
    codes[(codes == 0) & (conditions.luck < error + (1 - error) * not_finite)] = 2
    kinds = (None, Failure.ERROR, Failure.NOT_FINITE)
    return [[kinds[code] for code in row] for row in codes.tolist()]
