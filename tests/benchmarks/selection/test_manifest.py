"""The world in which policies are judged is frozen."""

import json
import math

import pytest

from benchmarks.selection import manifest
from benchmarks.selection.__main__ import POLICIES, RESULT, measure, report, table
from benchmarks.selection.scenarios import FAMILIES, SEEDS, frozen


def test_specifications_are_frozen() -> None:
    """Every fact of all 3,040 scenarios is the one written down."""
    assert len(FAMILIES) * len(SEEDS) == 3040
    assert manifest.specifications(frozen()) == manifest.SPECIFICATIONS


def test_conditions_are_frozen() -> None:
    """Arrivals, truth and noise made from the specifications are those written down."""
    assert manifest.conditions(frozen(range(1))) == manifest.CONDITIONS


def test_play_and_score_are_frozen() -> None:
    """The world plays and judges as it did."""
    assert manifest.scores(frozen(range(1))) == manifest.SCORES


def test_a_change_is_noticed() -> None:
    """Other seeds have other digests."""
    assert manifest.specifications(frozen(range(1, 161))) != manifest.SPECIFICATIONS
    assert manifest.conditions(frozen(range(1, 2))) != manifest.CONDITIONS


def test_only_the_oracle_meets_every_bar() -> None:
    """In the committed results, of this very world, no baseline is good enough; the peeking oracle is."""
    results = json.loads(RESULT.read_text())
    assert results["world"] == {
        "specifications": manifest.SPECIFICATIONS,
        "conditions": manifest.CONDITIONS,
        "scores": manifest.SCORES,
    }
    baselines = ("always A", "always B", "always worst", "calibrated once", "ε-greedy", "UCB")
    assert {*baselines, "oracle"} <= set(results["policies"]) <= set(POLICIES)
    assert not any(all(results["policies"][name]["bars"].values()) for name in baselines)
    assert all(results["policies"]["oracle"]["bars"].values())
    assert {found["all"]["scenarios"] for found in results["policies"].values()} == {3040}


@pytest.mark.slow
def test_measuring() -> None:
    """What the command measures on some seeds is like what is committed, and becomes a table."""
    names = ["ε-greedy", "oracle"]
    measured = {name: report(scores) for name, scores in measure(names, SEEDS[::80]).items()}
    assert [len(found["families"]) for found in measured.values()] == [len(FAMILIES)] * 2
    assert not all(measured["ε-greedy"]["bars"].values())
    assert math.isclose(measured["oracle"]["all"]["lost_median"], 0, abs_tol=0.005)
    lines = table("all", {name: found["all"] for name, found in measured.items()}).splitlines()
    assert len({line.count("|") for line in lines[2:] if line}) == 1
