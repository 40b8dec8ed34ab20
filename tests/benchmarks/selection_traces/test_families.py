"""Tests of `benchmarks.selection_traces.families` and of what its families make."""

import hashlib
import time

import numpy as np
import pytest

from benchmarks.selection_traces.families import FAMILIES, Family, catalogue_fingerprint, family
from benchmarks.selection_traces.hindsight import per_batch, served
from benchmarks.selection_traces.traces import fingerprint

#: The whole catalogue, and the first trace of each family. Policies are judged by them: never to be renewed.
ALL = "9c4f06779afabde165d8aa23edb0714cb4db84310cbeb817e3b6eb2968793197"
FIRST = "0e24613dafd656155ea0b58d8fe9c4f1bcafd49b38fe6bced8475810092a63af"

each_family = pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.name)


def test_the_catalogue_is_of_1200_traces() -> None:
    """Names differ, and seeds are those stated."""
    assert len({kind.name for kind in FAMILIES}) == len(FAMILIES) == 25
    assert sum(len(kind.seeds) for kind in FAMILIES) == 1200


def test_first_traces_are_frozen() -> None:
    """The first trace of each family is what it was when it was frozen."""
    digest = hashlib.sha256(b"".join(fingerprint(kind.trace(0)) for kind in FAMILIES))
    assert digest.hexdigest() == FIRST


@pytest.mark.slow
def test_all_traces_are_frozen() -> None:
    """The whole catalogue is what it was when it was frozen."""
    assert catalogue_fingerprint() == ALL


@each_family
def test_a_trace_depends_on_its_seed_alone(kind: Family) -> None:
    """The same seed gives the same trace, in any order of asking; another seed another."""
    first = fingerprint(kind.trace(1))
    other = fingerprint(kind.trace(2))
    assert first == fingerprint(kind.trace(1))
    assert first != other


def test_a_foreign_seed_is_refused() -> None:
    """Only the frozen seeds are given out."""
    with pytest.raises(ValueError, match="has the seeds"):
        family("dense").trace(48)


@each_family
@pytest.mark.parametrize("seed", [0, 17])
def test_a_trace_is_sane(kind: Family, seed: int) -> None:
    """Ordered arrivals, positive seconds, someone who answers each good input, load that one worker bears."""
    trace = kind.trace(seed)
    rows, backends = trace.durations.shape
    assert 2 <= backends <= 4
    assert 500 <= trace.times[-1] <= 7200  # ten minutes and more, the last silence left out
    assert (np.diff(trace.times) >= 0).all()
    assert trace.times[0] >= 0
    assert set(np.unique(trace.buckets)) <= set(range(len(trace.sizes)))
    assert trace.elapsed.shape == trace.level.shape == trace.golden.shape == (rows, backends)
    assert trace.calibration.shape[1:] == (len(trace.sizes), backends)
    assert (trace.calibration > 0).all()
    assert (trace.level > 0).all()
    assert (trace.ready == 0).any()
    absent = trace.times[:, None] < trace.ready
    assert (trace.elapsed[~absent] > 0).all()
    assert np.isposinf(trace.durations[absent]).all()
    assert (trace.durations[trace.usable] == trace.elapsed[trace.usable]).all()
    assert trace.usable[~trace.poisoned].any(axis=1).all()
    assert not trace.usable[trace.poisoned].any()
    assert np.isfinite(served(trace)).all()
    assert per_batch(trace).sum() < 0.6 * trace.times[-1]


@each_family
def test_levels_are_what_runs_take_on_average(kind: Family) -> None:
    """Over a trace, the runs of each backend sum up to its levels, within what noise allows."""
    trace = kind.trace(3)
    for usable, level, seconds in zip(trace.usable.T, trace.level.T, trace.durations.T, strict=True):
        assert seconds[usable].sum() == pytest.approx(level[usable].sum(), rel=0.08 if kind.name != "sparse" else 0.2)


def test_no_position_is_the_good_one() -> None:
    """The best single backend of a trace is the first by position in some of the traces, and not in most."""
    first = [int(served(kind.trace(seed)).sum(axis=0).argmin()) == 0 for kind in FAMILIES for seed in (5, 6)]
    assert 0.2 < np.mean(first) < 0.65


def test_every_kind_of_failure_occurs() -> None:
    """Among the failing traces some raise, some give NaN; poisoned inputs do both."""
    for name in ("failing_runs", "poisoned"):
        found = [family(name).trace(seed).durations for seed in range(12)]
        assert any(np.isinf(durations).any() for durations in found)
        assert any(np.isnan(durations).any() for durations in found)


def test_the_liar_lies_in_calibration_and_probes_only() -> None:
    """By golden inputs another backend is the fastest than by served batches."""
    for seed in range(6):
        trace = family("calibration_liar").trace(seed)
        honest = int(trace.durations.sum(axis=0).argmin())
        assert int(trace.golden.sum(axis=0).argmin()) != honest
        assert int(np.median(trace.calibration, axis=0).sum(axis=0).argmin()) != honest


def test_traces_are_quick_to_make() -> None:
    """Each family's first traces take less than 50 ms of processor time, the middle one of three."""
    for kind in FAMILIES:
        spent = []
        for seed in range(3):
            begin = time.process_time()
            kind.trace(seed)
            spent.append(time.process_time() - begin)
        assert sorted(spent)[1] < 0.05, kind.name
