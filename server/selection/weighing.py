"""Whether a bucket's choice should change, and what would be worth a look: a proposal, which changes nothing.

Costs are logarithms, so gains are: 0.05 is 5 %. A backend *is better* if its gain is larger than the doubt about it.
It *may be better* by its expected improvement: how much it gains on average if it is taken only where it gains. That
is what looking at it is worth.
"""

import math
from typing import NamedTuple

from server.selection.pairs import Bucket, Pair, Table

MARGIN = 0.04  # a gain below this isn't worth a change
CERTAIN = 1.0  # standard deviations by which a gain must be larger than nothing; being wrong costs some batches
# After a change for the worse of the serving backend even a likely gain is taken, once so many batches gave the chance
# to look first, and until so many have passed.
HASTE, PATIENCE, ALARMED = 0.3, 4, 40
TRIAL = 0.08  # the expected improvement that is worth a trial
LOATH = 2.0  # each recent switch makes the next trial so much dearer
TRIAL_COST = 0.02  # of a gain's worth that a trial loses, per run's length that it takes longer
CHECK, CHECK_COST = 0.07, 0.01  # the same of a trial that shows at once whether a backend is well again
HOPE = 0.9  # a backend that seems slower than this isn't tried, unless it may have recovered
FAR = 4.0  # standard deviations: what is farther from being better is not even weighed


class Proposal(NamedTuple):
    """What would be good for a bucket.

    Attributes:
        better: A backend that is better than the selected one, or None.
        gain: By how much.
        deviation: The standard deviation of that.
        look: The backend most worth a look, or None.
        worth: The expected improvement by looking, over what it costs.
        trial: The backend most worth a trial, or None.
        is_check: Whether that is to find out if it is as quick again as it was.
    """

    better: Pair | None
    gain: float
    deviation: float
    look: Pair | None
    worth: float
    trial: Pair | None
    is_check: bool


def weigh(table: Table, bucket: Bucket, selected: Pair, now: float) -> Proposal:
    """Compare the selected pair with all others that can be had."""
    cost, doubt = table.cost(selected), selected.estimate.doubt(now, bucket.count)
    better, best_gain, deviation = None, 0.0, 0.0
    look, worth, trial, most, is_check = None, 0.0, None, 0.0, False
    hasty = PATIENCE <= bucket.count - bucket.alarmed_at < ALARMED
    certain, price = HASTE if hasty else CERTAIN, TRIAL * (1 + LOATH * bucket.recent_switches(now))
    for pair in table.usable(bucket):
        if pair is selected:
            continue
        estimate = pair.estimate
        variance, gain = estimate.doubt(now, bucket.count, pair.character), cost - table.cost(pair)
        both = math.sqrt(variance + doubt)
        if gain > best_gain and gain > certain * both and (estimate.runs or hasty):
            better, best_gain, deviation = pair, gain, both
        if pair.exploring:
            continue
        value = _improvement(pair, bucket, gain, math.sqrt(variance), now)
        ratio = math.exp(gain)
        left = value - price - TRIAL_COST * max(0.0, 1 / ratio - 1)
        if left > most and (gain > -HOPE or estimate.jump):
            trial, most, is_check = pair, left, False
        if (left := _worth_checking(pair, gain, now)) > most:
            trial, most, is_check = pair, left, True
        if value * ratio > worth:
            look, worth = pair, value * ratio
    return Proposal(better, best_gain, deviation, look, worth, trial, is_check)


def _worth_checking(pair: Pair, gain: float, now: float) -> float:
    """What a trial of a backend that became slower promises beyond its price; 0 of one that didn't."""
    illness = pair.estimate.illness
    if illness.well is None:
        return 0.0
    chance = illness.is_over(now)
    slower = max(0.0, math.exp(-gain) - 1)
    return chance * (gain + pair.estimate.level - illness.well - MARGIN) - CHECK - (1 - chance) * CHECK_COST * slower


def _improvement(pair: Pair, bucket: Bucket, gain: float, deviation: float, now: float) -> float:
    """The expected improvement: of a normal distribution, or by the chance that a jump is undone, whichever is more."""
    away = (MARGIN - gain) / deviation
    value = 0.0
    if away < FAR:
        value = deviation * (0.39894 * math.exp(-away * away / 2) - away * 0.5 * math.erfc(away * 0.70711))
    jump = pair.estimate.jump
    if jump:
        value = max(value, pair.estimate.recovery(now, bucket.count) * (gain + jump - MARGIN))
    return value
