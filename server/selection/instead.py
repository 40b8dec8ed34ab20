"""Where batches go when the selected backend can't be had or an operator has a say, and why. Changes nothing."""

from collections.abc import Sequence

from server.selection.history import FAILING, GONE, LEFT, OTHER, PINNED, seconds
from server.selection.pairs import Bucket, Pair, Table
from server.selection.states import State

_KINDS = {State.QUARANTINED: FAILING, State.ABSTAINING: LEFT}


def of_failed(table: Table, bucket: Bucket, failed: Sequence[str]) -> Pair:
    """Where a batch goes on that failed.

    Raises:
        ValueError: It failed on every backend that is there.
    """
    left = [bucket.pairs[name] for name in table.present if name not in failed]
    if not left:
        raise ValueError("no backend is left for this batch")
    return min(left, key=lambda pair: (pair.health.reason is not None, table.cost(pair)))


def of_selected(table: Table, bucket: Bucket, pinned: Sequence[str]) -> Pair:
    """The first pinned pair that can be had; else the selected one; else the best, or the least bad.

    Raises:
        ValueError: No backend is there.
    """
    usable, selected = table.usable(bucket), bucket.selected
    for name in pinned:
        if bucket.pairs.get(name) in usable:
            return bucket.pairs[name]
    if selected is None or selected.health.reason is not None:
        return _best(table, bucket, usable)
    if not bucket.released:
        return selected
    # An operator's preference has ended: what is known to be better needs no new proof.
    return min((pair for pair in usable if pair.estimate.runs), key=table.cost, default=selected)


def _best(table: Table, bucket: Bucket, usable: Sequence[Pair]) -> Pair:
    if not table.present:
        raise ValueError("no backend is available")
    if not usable:  # all are quarantined: one that fails often is more than none
        here = [bucket.pairs[name] for name in table.present]
        return bucket.selected or min(here, key=lambda pair: pair.health.evidence)
    if bucket.selected is None and bucket.last is not None and bucket.last in usable:
        return bucket.last
    if all(pair.estimate.runs for pair in usable):
        return min(usable, key=table.cost)
    votes = [other.selected.backend for other in table.buckets.values() if other.selected is not None]
    favourite = table.favourite()
    return max(usable, key=lambda pair: (votes.count(pair.backend), pair.backend == favourite))


def why(table: Table, bucket: Bucket, left: Pair, chosen: Pair, pinned: Sequence[str]) -> tuple[str, str]:
    """Why a pair is chosen that wasn't better in a comparison: in words, and in one of history.KINDS."""
    if chosen.backend in pinned:
        place = pinned.index(chosen.backend)
        passed = "".join(f", {name} is {_trouble(table, bucket, name)}" for name in pinned[:place])
        return f"pinned to {' then '.join(pinned)}{passed}", PINNED
    about = f", {chosen.backend} {seconds(table.cost(chosen))}" if chosen.estimate.runs else ""
    if bucket.released:
        return f"no longer pinned{about}", PINNED
    kind = GONE if left.backend not in table.present else _KINDS.get(left.health.state, OTHER)
    return f"{left.backend} is {_trouble(table, bucket, left.backend)}{about}", kind


def _trouble(table: Table, bucket: Bucket, name: str) -> str:
    if name not in table.present:
        return "not available"
    health = bucket.pairs[name].health
    return f"{health.state.value}: {health.reason}" if health.reason else "available"
