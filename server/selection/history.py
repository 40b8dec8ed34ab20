"""The switches that were made and why, as plain data. Bounded."""

import math
from collections import deque
from typing import NamedTuple

from server.selection.pairs import Bucket, Pair, Table

KEPT = 100
FASTER, FAILING, PINNED, TRIAL, GONE, OTHER = "faster", "failing", "pinned", "trial", "gone", "other"
LEFT = "left"
FORCED = frozenset({FAILING, PINNED, GONE, LEFT})  # which no restraint can prevent
KINDS = frozenset({FASTER, FAILING, PINNED, TRIAL, GONE, LEFT, OTHER})
"""Another backend is faster; the one before fails; an operator prefers another, or no longer does; what is hardly known
is tried as the one that answers; the one before was taken away; it leaves most batches to others; none of these.
"""


class Switch(NamedTuple):
    """A bucket's batches went to another backend from then on.

    Attributes:
        time: Seconds of the policy's clock.
        bucket: The batch size.
        source: The backend before.
        target: The backend after.
        reason: In words, with the figures.
        kind: The reason in one word, one of KINDS.
    """

    time: float
    bucket: int
    source: str
    target: str
    reason: str
    kind: str


class History(deque[Switch]):
    """The last KEPT switches, oldest first."""

    def __init__(self) -> None:
        super().__init__(maxlen=KEPT)


def against(table: Table, bucket: Bucket, new: Pair, old: Pair) -> str:
    """The figures of two backends: "b 12.1 ms against 14.0 ms over 40 batches"."""
    batches = bucket.count - max(bucket.switched_at, 0)
    return f"{new.backend} {seconds(table.cost(new))} against {seconds(table.cost(old))} over {batches} batches"


def seconds(cost: float) -> str:
    """A cost in milliseconds, with three digits."""
    milliseconds = math.exp(cost) * 1e3
    return f"{milliseconds:.{max(0, 2 - math.floor(math.log10(milliseconds)))}f} ms"
