"""A server small enough to reckon by hand: backends of fixed times, one batch a second, idle in between."""

from collections.abc import Callable, Mapping, Sequence

from server.selection.interface import Decision, Failure, Outcome
from server.selection.policy import Selector

Times = Mapping[str, float]


class Server:
    """Serves batches by a policy and remembers what it chose."""

    def __init__(
        self, times: Times, buckets: Sequence[int] = (1,), policy: Selector | None = None, now: float = 0.0
    ) -> None:
        self.policy = policy or Selector(buckets)
        self.times: dict[str, float] = dict(times)
        self.fails: Callable[[str, int], Failure | None] = lambda _name, _batch: None
        self.now, self.batch = now, 0
        self.chosen: list[Decision] = []
        for name in times:
            self.policy.backend_state(name, available=True, now=now)

    def serve(self, batches: int, bucket: int = 1, *, idle: bool = True) -> list[str]:
        """So many batches; returns the backends that they were first given to, explorations left out."""
        before = len(self.chosen)
        for _ in range(batches):
            self.now += 1.0
            self.batch += 1
            self._batch(bucket)
            while idle and (wish := self.policy.idle(self.now)) is not None:
                failure = self.fails(wish.backend, -1)
                self._run(None, wish.bucket, wish.backend, failure)
        return [decision.backend for decision in self.chosen[before:] if not decision.is_exploration]

    def _batch(self, bucket: int) -> None:
        failed: list[str] = []
        while len(failed) < len(self.policy.table.present):
            decision = self.policy.choose(bucket, self.now, failed)
            assert decision.backend in self.policy.table.present
            assert decision.backend not in failed
            if not failed:
                self.chosen.append(decision)
            failure = self.fails(decision.backend, self.batch)
            self._run(self.batch, bucket, decision.backend, failure)
            if failure is None:
                return
            failed.append(decision.backend)

    def _run(self, batch: int | None, bucket: int, backend: str, failure: Failure | None) -> None:
        seconds = self.times[backend] * bucket
        self.now += seconds
        self.policy.observe(Outcome(batch, bucket, backend, seconds, failure), self.now)
