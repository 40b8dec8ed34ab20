"""What an idle server should measure on golden inputs. Nothing is measured or changed here.

Quarantined backends first, for there no client waits for a failure. Then, in the smallest bucket, where runs cost
least, each backend until it is seen how it warms up; then one run of each other backend that isn't hopeless in each
bucket.
"""

import math

from server.selection.budget import Budget
from server.selection.interface import Calibration
from server.selection.pairs import Bucket, Pair, Table
from server.selection.states import State

OVERDRAFT = 0.2  # of a full purse may be owing for asking a quarantined backend
LEFT_TO_LEARN, LEFT_TO_COMPARE, LEFT_TO_MAKE_SURE = 0.1, 0.3, 0.35  # of the purse, for what is measured at the start
FEWEST, MOST = 4, 10  # runs in the smallest bucket: of a backend that doesn't warm up, and of one that may yet
HOPELESS = 1.6  # five times slower than the best: not warming up will make up for that
BEHIND = 0.1  # slower than the best by this: it may still be cold
WARMED, STILL_WARMING = 0.25, 0.15  # the drop that was warming up, and the one that shows it goes on


def affordable(table: Table, budget: Budget, pair: Pair) -> bool:
    """Whether a quarantined backend may be asked again."""
    return budget.left(math.exp(table.cost(pair))) > -OVERDRAFT


def ask_again(table: Table, budget: Budget, now: float) -> Calibration | None:
    """A quarantined backend whose time has come; of one that abstains only requests tell whether it would answer."""
    for bucket in table.buckets.values():
        if bucket.has_inputs and bucket.retry_at <= now:
            for name in table.present:
                pair = bucket.pairs[name]
                if pair.health.state is State.ABSTAINING:
                    continue
                if pair.health.retry_at <= now and affordable(table, budget, pair):
                    return Calibration(bucket.size, name)
    return None


def missing(table: Table, budget: Budget) -> Calibration | None:
    """What hasn't been measured yet."""
    left = budget.left()
    favourite = table.favourite()
    for place, bucket in enumerate(bucket for bucket in table.buckets.values() if bucket.has_inputs):
        for pair in table.usable(bucket):
            if place == 0:
                wanted = left > LEFT_TO_LEARN and _is_unsettled(pair, left)
            else:
                wanted = left > LEFT_TO_COMPARE and pair.backend != favourite and _is_new(table, bucket, pair)
            if wanted:
                return Calibration(bucket.size, pair.backend)
    return None


def _is_new(table: Table, bucket: Bucket, pair: Pair) -> bool:
    if pair.estimate.runs:
        return False
    return table.cost(pair) < min(table.cost(other) for other in table.usable(bucket)) + HOPELESS / 2


def _is_unsettled(pair: Pair, left: float) -> bool:
    estimate, recent = pair.estimate, pair.estimate.recent
    if not estimate.runs:
        return True
    if estimate.runs >= MOST or estimate.row != estimate.runs:
        return False
    best = min(other.estimate.level for other in pair.bucket.pairs.values() if other.estimate.runs)
    if recent[-1] - best > HOPELESS:
        return False
    if recent[0] - recent[-1] > WARMED:
        return recent[-1] < recent[-2] - STILL_WARMING
    return estimate.runs < FEWEST or (recent[-1] > best + BEHIND and left > LEFT_TO_MAKE_SURE)
