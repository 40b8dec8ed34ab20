"""Judge the policy on the frozen traces, and those it is compared with: write benchmarks/results/selection_traces.json.

    python -m benchmarks.selection_traces [--every N]

With --every only each N-th seed of a family is played and nothing is written. A policy sees, of each trace, what
`__init__` says: `calibration` before a backend is ready, then the time, the bucket, and what the chosen run took. Where
the machine had a second to spare before a batch, the policy may ask for one run on golden inputs, which gets `golden`.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.selection.baselines import AlwaysB, Baseline, Calibrated, EpsilonGreedy, Ucb
from benchmarks.selection.interface import Failure, Outcome, Policy
from benchmarks.selection_traces import families, hindsight
from benchmarks.selection_traces.traces import Floats, Integers, Trace
from server.selection.policy import Selector

RESULT = Path(__file__).parents[1] / "results" / "selection_traces.json"
NAMES = "abcd"
IDLE = 1.0  # seconds without a run, after which a policy may ask for a golden one
POLICIES: dict[str, Callable[[Sequence[int]], Policy]] = {
    "always A": Baseline,
    "always B": AlwaysB,
    "calibrated once": Calibrated,
    "ε-greedy": EpsilonGreedy,
    "UCB": Ucb,
    "segue": Selector,
}


@dataclass(frozen=True)
class Play:
    """What a policy did on one trace: seconds per batch, first choice per batch, busy and exploring seconds."""

    spent: Floats
    chosen: Integers
    busy: float
    explored: float


class Judge:
    """Plays one policy on one trace."""

    def __init__(self, trace: Trace, policy: Policy) -> None:
        self._trace, self._policy = trace, policy
        self._ready: set[int] = set()
        self._busy = self._explored = self._free = 0.0

    def play(self) -> Play:
        """Serve all batches."""
        trace = self._trace
        self._arrive(0.0)
        spent, chosen = np.zeros(len(trace.times)), np.zeros(len(trace.times), dtype=np.int64)
        for batch, moment in enumerate(trace.times.tolist()):
            self._arrive(moment)
            if moment - self._free >= IDLE:
                self._probe(batch, self._free + IDLE)
            spent[batch], chosen[batch] = self._serve(batch, moment)
            self._free = moment + spent[batch]
        return Play(spent, chosen, self._busy, self._explored)

    def _arrive(self, now: float) -> None:
        """Backends that are ready by now are announced, with what was measured before."""
        trace = self._trace
        for j in range(trace.backends):
            if j in self._ready or trace.ready[j] > now:
                continue
            self._ready.add(j)
            self._policy.backend_state(NAMES[j], available=True, now=now)
            for measured in trace.calibration[:, :, j]:
                for place, size in enumerate(trace.sizes):
                    self._observe(None, size, j, float(measured[place]), float(measured[place]), now)

    def _probe(self, batch: int, now: float) -> None:
        """One golden run, if the policy wants one. What is known are those of the coming batch's bucket."""
        trace = self._trace
        wish = self._policy.idle(now)
        if wish is None or wish.bucket != trace.sizes[trace.buckets[batch]]:
            return
        j = NAMES.index(wish.backend)
        golden = float(trace.golden[batch, j])
        elapsed = golden if math.isfinite(golden) else float(trace.elapsed[batch, j])
        self._observe(None, wish.bucket, j, golden, elapsed, now)
        self._busy += elapsed
        self._explored += elapsed

    def _serve(self, batch: int, moment: float) -> tuple[float, int]:
        """One batch until it is answered or has failed everywhere; its seconds and first choice."""
        trace, failed, spent, first = self._trace, list[str](), 0.0, -1
        size, explores = trace.sizes[trace.buckets[batch]], False
        while len(failed) < len(self._ready):
            decision = self._policy.choose(size, moment + spent, failed)
            j = NAMES.index(decision.backend)
            if j not in self._ready or decision.backend in failed:
                raise ValueError(f"{decision.backend} can't be chosen for batch {batch}")
            if first < 0:
                first, explores = j, decision.is_exploration
            took = float(trace.elapsed[batch, j])
            spent += took
            self._observe(batch, size, j, float(trace.durations[batch, j]), took, moment + spent)
            if math.isfinite(trace.durations[batch, j]):
                break
            failed.append(decision.backend)
        self._busy += spent
        self._explored += spent if explores else 0.0
        return spent, first

    def _observe(  # noqa: PLR0917 - the facts of one run, in the order of Outcome
        self, batch: int | None, size: int, j: int, seconds: float, elapsed: float, now: float
    ) -> None:
        failure = None
        if not math.isfinite(seconds):
            failure = Failure.NOT_FINITE if math.isnan(seconds) else Failure.ERROR
            seconds = elapsed if math.isfinite(elapsed) else 0.0
        self._policy.observe(Outcome(batch, size, NAMES[j], seconds, failure), now)


def score(trace: Trace, play: Play) -> dict[str, Any]:
    """What was lost against each hindsight, switches per bucket and hour, batches until degraded backends were left."""
    hours = max(float(trace.times[-1]) / 3600, 1e-9) * len(trace.sizes)
    return {
        "bucket": hindsight.lost(trace, play.spent, hindsight.per_bucket(trace)),
        "window": hindsight.lost(trace, play.spent, hindsight.per_window(trace)),
        "oracle": hindsight.lost(trace, play.spent, hindsight.per_batch(trace)),
        "exploration": play.explored / play.busy,
        "switches": hindsight.switches(trace, play.chosen) / hours,
        "left": [hindsight.batches_until_left(trace, play.chosen, episode) for episode in trace.episodes],
    }


def summary(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians and 95th percentiles over traces; `left_within` is of the episodes in which the backend served."""
    result: dict[str, Any] = {"traces": len(scores)}
    for key in ("bucket", "window", "oracle", "exploration", "switches"):
        values = [one[key] for one in scores]
        result[f"{key}_median"] = round(float(np.quantile(values, 0.5)), 5)
        result[f"{key}_p95"] = round(float(np.quantile(values, 0.95)), 5)
    left = [count for one in scores for count in one["left"] if count]
    result["left_within"] = round(sum(count <= 20 for count in left) / len(left), 5) if left else None
    return result


def measured(every: int) -> Iterator[tuple[families.Family, dict[str, list[dict[str, Any]]]]]:
    """Scores per family and policy."""
    for family in families.FAMILIES:
        scores: dict[str, list[dict[str, Any]]] = {name: [] for name in POLICIES}
        for seed in list(family.seeds)[::every]:
            trace = family.trace(seed)
            for name, make in POLICIES.items():
                scores[name].append(score(trace, Judge(trace, make(trace.sizes)).play()))
        yield family, scores


def main() -> None:
    """Play, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="play each N-th seed only, write nothing")
    every = parser.parse_args().every
    total: dict[str, list[dict[str, Any]]] = {name: [] for name in POLICIES}
    results: dict[str, Any] = {}
    for family, scores in measured(every):
        found = {name: summary(part) for name, part in scores.items()}
        results[family.name] = {"bounds": {"window": family.window, "oracle": family.oracle}, "policies": found}
        for name, part in scores.items():
            total[name] += part
        own = found["segue"]
        met = own["window_p95"] <= family.window and own["oracle_p95"] <= family.oracle
        print(
            f"{family.name:18} window {own['window_p95']:7.1%} of {family.window:.0%},"
            f" oracle {own['oracle_p95']:7.1%} of {family.oracle:.0%} {'met' if met else 'MISSED'},"
            f" exploration {own['exploration_p95']:.1%}",
            flush=True,
        )
    overall = {name: summary(part) for name, part in total.items()}
    for name, found in overall.items():
        print(name, found)
    if every == 1:
        catalogue = families.catalogue_fingerprint()
        data = {"catalogue": catalogue, "all": overall, "families": results}
        RESULT.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
