"""What one pair's run says about other pairs. Levels are moved and doubted here; nothing is chosen.

Most of what befalls a backend befalls it in every bucket, and much of what befalls the machine befalls every backend.
So a change in one place puts others in doubt, and the first look that settles the doubt in one bucket settles it in
all.
"""

import math

from server.selection.estimates import ALARM, SMALLEST_DOUBT
from server.selection.illness import MATERIAL
from server.selection.pairs import Bucket, Pair, Table

HEARSAY = 0.5  # of a change is feared for the same backend in other buckets
FASTER = 0.5  # of a change for the better is feared for the bucket's other backends
SAME_TIME = 300.0  # seconds between the jumps of what fell together and most likely recovers together
UNMOVED, MOVED = 0.4, 0.6  # of a feared jump: less is none of it, more is all of it
SURPRISE, TAKEN = 3.0, 0.7  # standard deviations below what was expected, and how much of it is feared elsewhere
CONFIRMED = 0.2  # a backend worth switching to in one bucket may have moved by so much in the others
FOLLOWED, NOT_FOLLOWED = 0.85, 0.3  # of what other buckets show a level to have moved, and what of it stays in doubt
SHOWN = 2.5  # standard deviations by which other buckets must have moved
FIRST_RUNS = 12  # in which a backend is seen warming up, if they come within
FIRST_SECONDS = 300.0  # of loading
NOT_CLOSELY = 0.2  # the watch kept for recovery where a cheaper bucket tells


def remember(table: Table, pair: Pair) -> None:
    """Note where the backend stands in other buckets, at a moment when it is known in this one."""
    pair.then = {
        sibling.bucket.size: (sibling.estimate.level, sibling.estimate.variance)
        for sibling in table.siblings(pair)
        if sibling.estimate.runs
    }


def follow(table: Table, pair: Pair) -> None:
    """Move a level by what the backend's other buckets have shown since it was last seen in this one.

    A server sees a backend daily in the bucket where it serves, and hardly ever where it doesn't.
    """
    estimate, weight, moved = pair.estimate, 0.0, 0.0
    for size, (level, variance) in pair.then.items():
        other = table.buckets[size].pairs[pair.backend].estimate
        if other.seen > estimate.seen:
            certainty = 1 / (variance + other.variance)
            weight += certainty
            moved += certainty * (other.level - level)
    if not weight or abs(moved) < MATERIAL * weight or moved * moved < SHOWN * SHOWN * weight:
        return
    moved *= FOLLOWED / weight
    estimate.level += moved
    estimate.variance = min(estimate.variance, 0.1) + (NOT_FOLLOWED * moved) ** 2
    if estimate.jump:
        estimate.jump = max(0.0, estimate.jump + moved)
    remember(table, pair)


def jumped(table: Table, pair: Pair, jump: float) -> None:
    """A level jumped."""
    fallen = [p for p in (pair, *table.siblings(pair)) if p.estimate.jump > 0]
    for place, one in enumerate(sorted(fallen, key=lambda p: p.estimate.level)):
        one.estimate.watch = NOT_CLOSELY if place else 1.0
    if abs(jump) < MATERIAL:
        return
    for sibling in table.siblings(pair):
        estimate = sibling.estimate
        if sibling is not sibling.bucket.selected:
            estimate.unsettle(HEARSAY * jump)
        elif jump > 0:  # half-way to an alarm of its own
            estimate.up = max(estimate.up, ALARM / 2)
        else:
            estimate.down = max(estimate.down, ALARM / 2)
    bucket = pair.bucket
    if pair is bucket.selected:
        for other in bucket.pairs.values():
            if other is not pair:
                other.estimate.fear(jump if jump > 0 else FASTER * jump)
        if jump > 0:
            bucket.alarmed_at = bucket.count
        bucket.due = 0


def recovered(table: Table, pair: Pair, now: float) -> None:
    """A jump was undone: those of the same backend that fell with it are taken for well, too."""
    pair.estimate.undone = False
    for sibling in table.siblings(pair):
        estimate, bucket = sibling.estimate, sibling.bucket
        together = abs(estimate.jumped_at - pair.estimate.jumped_at) < SAME_TIME
        if estimate.jump > MATERIAL and together and sibling is not bucket.selected:
            estimate.revert(now, bucket.count)
            remember(table, sibling)
            bucket.due = 0


def examined(table: Table, pair: Pair, now: float, *, hoped: bool) -> None:
    """A backend that became slower has run: what that shows holds for its other buckets, too.

    Args:
        table: All pairs.
        pair: What has run.
        now: Seconds.
        hoped: Whether it was tried as one that is well again.
    """
    illness = pair.estimate.illness
    well_again = hoped and not illness.hopes and illness.denied_at < now
    for sibling in table.siblings(pair):
        estimate, bucket = sibling.estimate, sibling.bucket
        well = estimate.illness.well
        if illness.denied_at == now:
            estimate.illness.denied_at = now
        elif well_again and well is not None and sibling is not bucket.selected and estimate.level > well:
            estimate.level, estimate.variance, estimate.jump = well, 10 * SMALLEST_DOUBT, 0.0
            estimate.seen, estimate.at = now, bucket.count
            remember(table, sibling)
            bucket.due = 0


def looked(table: Table, pair: Pair, moved: float, feared: float, deviation: float) -> None:
    """A backend that doesn't serve was looked at.

    Args:
        table: All pairs.
        pair: What was looked at.
        moved: How far the run was from the level.
        feared: The variance that the level had because the serving backend jumped.
        deviation: The standard deviation that was expected.
    """
    share = moved / math.sqrt(feared) if feared else 0.0
    for sibling in table.siblings(pair) if feared else ():
        estimate = sibling.estimate
        if estimate.alarm and sibling is not sibling.bucket.selected and not UNMOVED <= abs(share) <= MOVED:
            if share > MOVED:  # the machine became slower, not the backend that serves
                estimate.level += math.sqrt(estimate.alarm)
            estimate.reassure()
            estimate.variance += SMALLEST_DOUBT
            remember(table, sibling)
            sibling.bucket.due = 0
    if pair.estimate.runs > 1 and moved < -SURPRISE * deviation:
        pair.estimate.unsettle(TAKEN * moved)
        for sibling in table.siblings(pair):
            if sibling is not sibling.bucket.selected:
                sibling.estimate.unsettle(TAKEN * moved)
                sibling.bucket.due = 0
    pair.bucket.due = 0


def warming(table: Table, pair: Pair, now: float) -> bool:
    """Learn from a backend's first runs how it warms up; whether that put the pair's level right."""
    estimate, character = pair.estimate, pair.character
    if not 3 <= estimate.runs <= FIRST_RUNS or now - pair.loaded > FIRST_SECONDS:
        return False
    first, known = list(estimate.recent), character.cold
    place = character.warm_up(first)
    if character.cold > known:  # other buckets' first runs may have been cold, and weren't taken for that
        for sibling in table.siblings(pair):
            if 0 < sibling.estimate.runs <= 3:
                sibling.estimate.unsettle(character.cold)
    if place:
        estimate.settle(first[place:], character.spread)
    return place > 0


def confirmed(table: Table, bucket: Bucket) -> float:
    """A switch has lasted: where the left backend still serves, the new one is worth a look. Returns the gain."""
    left, new = bucket.previous, bucket.selected
    bucket.previous = None
    if left is None or new is None:
        return 0.0
    gain = table.cost(left) - table.cost(new)
    for sibling in table.siblings(new):
        serving = sibling.bucket.selected
        if serving is not None and serving.backend == left.backend:
            sibling.estimate.unsettle(max(gain, CONFIRMED))
            sibling.bucket.due = 0
    return gain
