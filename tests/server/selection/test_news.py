"""What is seen of a backend in one bucket moves what is believed of it in the others."""

import math

import pytest

from server.selection import news
from server.selection.character import Objective
from server.selection.pairs import Pair, Table


def known(table: Table, size: int, seconds: float) -> Pair:
    """The pair of `a` in a bucket, well known at so many seconds a run."""
    pair = table.buckets[size].pairs["a"]
    pair.estimate.level, pair.estimate.variance = math.log(seconds), 0.001
    pair.estimate.runs, pair.estimate.seen = 20, 0.0
    return pair


def two() -> tuple[Table, Pair, Pair]:
    """Two buckets in which a backend is known, the second of them not served from it."""
    table = Table((1, 8), Objective.MEAN)
    table.add("a", 0.0)
    serving, other = known(table, 1, 0.01), known(table, 8, 0.05)
    news.remember(table, other)
    return table, serving, other


def seen_at(pair: Pair, seconds: float, now: float) -> None:
    """The pair was seen again, at this time a run."""
    pair.estimate.level, pair.estimate.seen = math.log(seconds), now


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_a_level_follows_its_other_buckets(factor: float) -> None:
    """By most of what they moved, faster or slower, once and not again, and less sure than before."""
    table, serving, other = two()
    seen_at(serving, 0.01 * factor, 10.0)
    for _ in range(2):
        news.follow(table, other)
    assert math.exp(other.estimate.level) == pytest.approx(0.05 * factor**news.FOLLOWED)
    assert other.estimate.variance > 0.01


def test_noise_moves_nothing() -> None:
    """What another bucket moved by little isn't followed."""
    table, serving, other = two()
    seen_at(serving, 0.0108, 10.0)
    news.follow(table, other)
    assert math.exp(other.estimate.level) == pytest.approx(0.05)


def test_what_was_seen_since_is_believed() -> None:
    """A bucket that was looked at after the others doesn't follow what they showed before."""
    table, serving, other = two()
    seen_at(serving, 0.03, 10.0)
    other.estimate.seen = 20.0
    news.follow(table, other)
    assert math.exp(other.estimate.level) == pytest.approx(0.05)
