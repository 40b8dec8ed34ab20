"""Tests of `server.batching.metrics`."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from server.arrays import Array
from server.batching.metrics import BatchCollector
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher


def run(feeds: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
    """Answers with the input."""
    return [feeds["x"]]


def test_queues_are_told_of_while_they_are_there() -> None:
    """Runs by their rows, rows filled up, rows that wait; nothing is left of a version that is gone."""
    collector, registry = BatchCollector(), CollectorRegistry()
    registry.register(collector)
    batcher = Batcher(run, BatchingParameters(allowed_batch_sizes=(4, 16)))
    collector.add("m", 3, {"s": batcher})
    collector.add("m", 4, {"s": Batcher(run, BatchingParameters())})
    for rows in (1, 3, 20):
        batcher.submit({"x": np.zeros((rows, 1))}, ["y"])
    labels = {"model": "m", "version": "3", "signature": "s"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(name, labels | more)

    assert value("segue_batch_rows_count") == 3
    assert value("segue_batch_rows_sum") == 24
    assert [value("segue_batch_rows_bucket", le=bound) for bound in ("1", "2", "4", "32", "+Inf")] == [1, 1, 2, 3, 3]
    assert value("segue_batch_padding_rows_total") == 4
    assert value("segue_batch_wait_seconds_count") == 1  # the one that is larger than a batch
    assert value("segue_batch_wait_seconds_bucket", le="+Inf") == 1
    assert value("segue_queue_rows") == 0
    collector.remove("m", 3)
    assert value("segue_batch_rows_count") is None
    assert registry.get_sample_value("segue_batch_rows_count", labels | {"version": "4"}) == 0


def test_waiting_is_measured() -> None:
    """A request that waits for company counts with the time that it waited, in one class."""
    collector, registry = BatchCollector(), CollectorRegistry()
    registry.register(collector)
    now = [5.0]

    def clock() -> float:
        now[0] += 0.02
        return now[0]

    batcher = Batcher(run, BatchingParameters(batch_timeout_micros=1), clock=clock)
    collector.add("m", 1, {"s": batcher})
    batcher.submit({"x": np.zeros((1, 1))}, ["y"])
    labels = {"model": "m", "version": "1", "signature": "s"}
    assert registry.get_sample_value("segue_batch_wait_seconds_count", labels) == 1
    assert registry.get_sample_value("segue_batch_wait_seconds_bucket", labels | {"le": "0.01"}) == 0
    assert registry.get_sample_value("segue_batch_wait_seconds_sum", labels) == pytest.approx(0.04)


def test_sizes_that_clients_choose_take_no_memory() -> None:
    """Runs are counted in the histogram's classes, however many sizes there are."""
    batcher = Batcher(run, BatchingParameters(max_batch_size=2))
    for rows in range(1, 1100):
        batcher.submit({"x": np.zeros((rows, 1))}, ["y"])
    found = batcher.snapshot()
    assert found.runs == (1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 75)
    assert found.rows == sum(range(1, 1100))


def test_tensorflow_servings_counts_never_go_back() -> None:
    """By the name of the pool: every request counts, also one that waits for nothing, and versions that are gone do."""
    collector = BatchCollector()
    first, second = Batcher(run, BatchingParameters()), Batcher(run, BatchingParameters(thread_pool_name="mine"))
    collector.add("m", 1, {"s": first})
    collector.add("m", 2, {"s": second})
    for batcher, times in ((first, 3), (second, 2)):
        for _ in range(times):
            batcher.submit({"x": np.zeros((2, 1))}, ["y"])
    ticks = itertools.count(start=5.0, step=0.02)
    third = Batcher(run, BatchingParameters(batch_timeout_micros=1), clock=lambda: next(ticks))
    collector.add("m", 1, {"s": third})  # another package under the same number
    third.submit({"x": np.zeros((1, 1))}, ["y"])
    collector.remove("m", 2)
    waits = collector.waits()
    assert {name: (found.at_once, found.count, found.runs) for name, found in waits.items()} == {
        "batch_threads": (3, 1, 4),
        "mine": (2, 0, 2),
    }
    theirs = waits["batch_threads"].by_microseconds()
    assert [round(bound, 1) for bound, _ in theirs[:3]] == [100.0, 120.0, 144.0]
    assert len(theirs) == 52
    assert [count for _, count in theirs] == [3 if bound < 40_000 else 4 for bound, _ in theirs]
    assert waits["batch_threads"].seconds == pytest.approx(0.04)
