"""How well a policy chose, per scenario and over many. The bars that a policy has to meet are here and nowhere else.

Definitions, per scenario:

- *Time lost*: (what its batches were expected to take with its choices + waiting for its calibrations) ÷ (the same for
  the oracle of `hindsight`) less 1. Expectations are per bucket and cell of time; failed attempts and cold runs are in.
- *Switches*: decisions that aren't exploration and differ from the bucket's one before, while that one is available.
- *Allowed switches*: per bucket ALLOWED_PER_HOUR, and two for each change that hindsight needed. Two, for a change may
  be tried, taken back and made for good; four an hour, because a false alarm each quarter of an hour costs two
  decisions' worth of cold runs at most, and a person can still read the history.
- *Exploration*: observed time of calibrations and exploring batches ÷ observed time of all runs. The bar is on
  the 95th percentile: a scenario is an hour of a server that learns its backends anew, and no policy knows how long the
  hour will be.
- *Batches until left*: of a degradation and a bucket whose last decision before was the degraded backend, the decisions
  for it that follow (exploration aside) until AWAY decisions in succession are for others, or until it heals or is no
  longer the worse one. It is *clear* if serving takes CLEAR times as long as with the best other backend throughout, or
  MILD times and its runs fail, which noise never makes them; else it is *mild* if it takes MILD times as long. If it
  ends before it is left and within WITHIN batches, nothing can be said and it isn't counted.

The bar for leaving is 99 % of the clear ones, not all: with noise and spikes, a rule that surely leaves within 20
batches also leaves when nothing happened. The longest is reported. Mild ones are reported without a bar: with a noise
of 0.25 and a factor of 1.3, no rule tells them from luck within 20 batches and yet seldom raises a false alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection.conditions import Conditions
from benchmarks.selection.hindsight import Hindsight
from benchmarks.selection.specification import Effect, Kind
from benchmarks.selection.world import Record

LOST_MEDIAN, LOST_P95 = 0.03, 0.08
EXPLORATION = 0.01
WITHIN, LEFT_SHARE = 20, 0.99
ALLOWED_PER_HOUR, CALM_SHARE = 4.0, 0.99
CLEAR, MILD = 1.5, 1.1
AWAY = 10


@dataclass(frozen=True)
class Score:
    """One scenario's figures, as the module defines them. `needed` and `switches` are counts over all buckets."""

    family: str
    lost: float
    exploration: float
    switches: int
    needed: int
    bucket_hours: float
    left_clear: tuple[int, ...]
    left_mild: tuple[int, ...]
    failovers: int
    client_failures: int

    @property
    def calm(self) -> bool:
        """Whether the switches are within what is allowed."""
        return self.switches <= ALLOWED_PER_HOUR * self.bucket_hours + 2 * self.needed


@dataclass(frozen=True)
class Summary:
    """Many scenarios' figures; shares and fractions from 0 to 1, NaN where there was nothing to count."""

    scenarios: int
    lost_median: float
    lost_p95: float
    exploration_median: float
    exploration_p95: float
    exploration_max: float
    switches_median: float  # per bucket and hour
    switches_max: float
    calm_share: float
    left_median: float
    left_max: float
    left_within: float
    left_count: int
    mild_median: float
    mild_within: float
    failovers: int
    client_failures: int


def score(conditions: Conditions, hindsight: Hindsight, record: Record) -> Score:
    """Judge what a policy did in one scenario."""
    scenario = conditions.scenario
    best = float(hindsight.cost.sum())
    left: dict[bool, list[int]] = {True: [], False: []}
    for effect in scenario.effects:
        for bucket in effect.buckets if effect.is_degradation else ():
            found = _until_left(conditions, hindsight, record, effect, bucket)
            if found is not None:
                left[found[0]].append(found[1])
    return Score(
        family=scenario.family,
        lost=(sum(record.cost) + record.blocked) / best - 1,
        exploration=record.explored / record.busy,
        switches=_switches(conditions, record),
        needed=hindsight.needed,
        bucket_hours=len(scenario.buckets) * scenario.duration / 3600,
        left_clear=tuple(left[True]),
        left_mild=tuple(left[False]),
        failovers=record.failovers,
        client_failures=record.client_failures,
    )


def summarise(scores: Sequence[Score]) -> Summary:
    """Put scenarios together."""
    lost, exploration = [s.lost for s in scores], [s.exploration for s in scores]
    rates = [s.switches / s.bucket_hours for s in scores]
    clear = [count for s in scores for count in s.left_clear]
    mild = [count for s in scores for count in s.left_mild]
    return Summary(
        scenarios=len(scores),
        lost_median=_quantile(lost, 0.5),
        lost_p95=_quantile(lost, 0.95),
        exploration_median=_quantile(exploration, 0.5),
        exploration_p95=_quantile(exploration, 0.95),
        exploration_max=_quantile(exploration, 1),
        switches_median=_quantile(rates, 0.5),
        switches_max=_quantile(rates, 1),
        calm_share=sum(s.calm for s in scores) / len(scores),
        left_median=_quantile(clear, 0.5),
        left_max=_quantile(clear, 1),
        left_within=_within(clear),
        left_count=len(clear),
        mild_median=_quantile(mild, 0.5),
        mild_within=_within(mild),
        failovers=sum(s.failovers for s in scores),
        client_failures=sum(s.client_failures for s in scores),
    )


def bars(summary: Summary) -> dict[str, bool]:
    """Which bars all scenarios together meet."""
    return {
        "lost_median": summary.lost_median <= LOST_MEDIAN,
        "lost_p95": summary.lost_p95 <= LOST_P95,
        "exploration": summary.exploration_p95 <= EXPLORATION,
        "calm": summary.calm_share >= CALM_SHARE,
        "left": summary.left_within >= LEFT_SHARE,
    }


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


def _within(counts: Sequence[int]) -> float:
    return sum(count <= WITHIN for count in counts) / len(counts) if counts else float("nan")


def _decisions(record: Record, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows where the policy decided, not explored."""
    decided: NDArray[np.int64] = rows[~np.array(record.exploring)[rows]]
    return decided


def _switches(conditions: Conditions, record: Record) -> int:
    chosen, count = np.array(record.chosen), 0
    for bucket in range(len(conditions.scenario.buckets)):
        rows = _decisions(record, np.flatnonzero(conditions.buckets == bucket))
        before, after = chosen[rows[:-1]], chosen[rows[1:]]
        count += int(((before != after) & conditions.available[conditions.cells[rows[1:]], before]).sum())
    return count


def _until_left(
    conditions: Conditions, hindsight: Hindsight, record: Record, effect: Effect, bucket: int
) -> tuple[bool, int] | None:
    """Whether the degradation is clear, and the batches until its backend was left; None if nothing can be said."""
    (hit,) = effect.backends
    rows = np.flatnonzero(conditions.buckets == bucket)
    moments = (conditions.cells[rows] + 0.5) / len(conditions.mean) * conditions.scenario.duration
    decisions, chosen = _decisions(record, rows), np.array(record.chosen)
    during = rows[(moments >= effect.start) & (moments < effect.end)]
    before = decisions[decisions < during[0]] if len(during) else during
    if not len(before) or chosen[before[-1]] != hit:
        return None
    table = hindsight.expected[conditions.cells[during], bucket]
    ratio = table[:, hit] / np.delete(table, hit, axis=1).min(axis=1)
    better = np.flatnonzero(~(np.isfinite(ratio) & (ratio >= MILD)))
    during, ratio = (during[: better[0]], ratio[: better[0]]) if len(better) else (during, ratio)
    if not len(during):
        return None
    clear = effect.kind is not Kind.SLOW or bool(ratio.min() >= CLEAR)
    stays = chosen[_decisions(record, during)] == hit
    count, away = 0, 0
    for stayed in stays.tolist():
        count, away = count + stayed, 0 if stayed else away + 1
        if away == AWAY:
            return clear, count
    return (clear, count) if count > WITHIN else None
