"""Our observations under TensorFlow Serving's metric names, so that existing dashboards and alerts keep working.

Names, labels, units and buckets are those of its servables/tensorflow/util.cc, saved_model_warmup_util.cc and
batching/batching_session.cc, the text that of its util/prometheus_exporter.cc: names begin with a colon, counters have
no "_total", latencies are in microseconds.
Only label values differ where it says so here: they come from what is loaded, so requests for what is not have an empty
model_name; `runtime` is our backend's name; `model_path` is NAME/VERSION.
"""

import threading
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from server.batching.statistics import Waits
from server.histograms import Durations, Snapshot, total

PATH = "/monitoring/prometheus/metrics"
"""TensorFlow Serving's default."""

PREFIX = ":tensorflow:serving:"

_EXAMPLES = tuple(2**k for k in range(15))
_COUNTED = frozenset({"Predict", "Classify", "Regress", "MultiInference"})


Labels = tuple[tuple[str, str], ...]
"""Names and values, in TensorFlow Serving's order."""


class SeriesLike(Protocol):
    """What is read of metrics.Series."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def backend(self) -> str:
        """The backend's name."""

    @property
    def method(self) -> str:
        """The method's name."""


class TensorFlowMetrics:
    """What has no place among our own metrics, and the text of all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Of versions that are gone: what is summed over versions must never go back.
        self._retired: dict[tuple[str, str, str], tuple[Durations, Durations]] = {}
        self._warmups: dict[tuple[str, int], Durations] = {}
        self._examples: dict[str, Tally[int]] = {}
        self._example_sums: Tally[str] = Tally()

    def examples(self, model: str, count: int) -> None:
        """Count the Examples of one request."""
        with self._lock:
            self._examples.setdefault(model, Tally())[bisect_left(_EXAMPLES, count)] += 1
            self._example_sums[model] += count

    def warmed(self, model: str, version: int, seconds: float) -> None:
        """Count a version's loading."""
        with self._lock:
            self._warmups.setdefault((model, version), Durations()).observe(seconds)

    def forget(self, model: str, version: int) -> None:
        """A version is gone."""
        with self._lock:
            self._warmups.pop((model, version), None)

    def retire(self, series: SeriesLike, latency: Snapshot, run: Snapshot) -> None:
        """Keep what a series of a version that is gone has counted."""
        with self._lock:
            kept = self._retired.setdefault(_key(series), (Durations(), Durations()))
            kept[0].add(latency)
            kept[1].add(run)

    def counted(self, name: str, requests: Mapping[tuple[str, str, str], int], waits: Mapping[str, Waits]) -> int:
        """The sum of a counter over its labels, by TensorFlow Serving's name with slashes; 0 for other names."""
        if name == "/tensorflow/serving/batching_session/wrapped_run_count":
            return _runs(waits)
        if name == "/tensorflow/serving/request_count":
            return sum(count for (method, _, _), count in requests.items() if method in _COUNTED)
        if name == "/tensorflow/serving/request_example_count_total":
            with self._lock:
                return self._example_sums.total()
        return 0

    def text(
        self,
        timers: Iterable[tuple[SeriesLike, Snapshot, Snapshot]],
        requests: Mapping[tuple[str, str, str], int],
        waits: Mapping[str, Waits],
    ) -> str:
        """Everything in Prometheus' text format.

        Args:
            timers: Latencies and runs of the versions that are there.
            requests: Counts by method, model and status code.
            waits: Of the batching queues, by the name of TensorFlow's thread pool.
        """
        lines = self._counts(requests)
        lines += self._latencies(timers)
        lines += self._example_lines()
        lines += _batching_lines(waits)
        with self._lock:
            warmups = {key: durations.snapshot() for key, durations in self._warmups.items()}
        lines += _histograms(
            "model_warmup_latency",
            {(("model_path", f"{model}/{version}"), ("status", "OK")): s for (model, version), s in warmups.items()},
        )
        return "\n".join(lines) + "\n"

    def _counts(self, requests: Mapping[tuple[str, str, str], int]) -> list[str]:
        by_model: Tally[tuple[str, str]] = Tally()
        for (method, model, code), count in requests.items():
            if method in _COUNTED:
                by_model[model, code] += count
        return _scalars("request_count", {(("model_name", m), ("status", s)): n for (m, s), n in by_model.items()})

    def _latencies(self, timers: Iterable[tuple[SeriesLike, Snapshot, Snapshot]]) -> list[str]:
        found: dict[tuple[str, str, str], list[tuple[Snapshot, Snapshot]]] = {}
        with self._lock:
            for key, (latency, run) in self._retired.items():
                found[key] = [(latency.snapshot(), run.snapshot())]
        for series, latency_now, run_now in timers:
            found.setdefault(_key(series), []).append((latency_now, run_now))
        latencies: dict[tuple[str, str], list[Snapshot]] = {}
        runs: dict[Labels, Snapshot] = {}
        for (model, method, backend), snapshots in found.items():
            latencies.setdefault((model, method), []).extend(latency for latency, _ in snapshots)
            runs[("model_name", model), ("API", method), ("runtime", backend)] = total(run for _, run in snapshots)
        requests: dict[Labels, Snapshot] = {
            (("model_name", model), ("API", method), ("entrypoint", "GRPC")): total(snapshots)
            for (model, method), snapshots in latencies.items()
        }
        return _histograms("request_latency", requests) + _histograms("runtime_latency", runs)

    def _example_lines(self) -> list[str]:
        with self._lock:
            cells = {model: [tally[i] for i in range(len(_EXAMPLES) + 1)] for model, tally in self._examples.items()}
            sums = dict(self._example_sums)
        lines = [_type("request_example_counts", "histogram")]
        for model, counts in cells.items():
            cumulated = list(accumulate(counts))
            buckets = list(zip(_EXAMPLES, cumulated[:-1], strict=True))
            lines += _histogram("request_example_counts", (("model", model),), buckets, cumulated[-1], sums[model])
        return lines + _scalars("request_example_count_total", {(("model", m),): n for m, n in sums.items()})


def _key(series: SeriesLike) -> tuple[str, str, str]:
    return (series.model, series.method, series.backend)


def _batching_lines(waits: Mapping[str, Waits]) -> list[str]:
    name = "batching_session:queuing_latency"
    lines = [_type(name, "histogram")]
    for pool, found in waits.items():
        count = found.at_once + found.count
        lines += _histogram(name, (("thread_pool_name", pool),), found.by_microseconds(), count, 1e6 * found.seconds)
    return lines + _scalars("batching_session:wrapped_run_count", {(): _runs(waits)})


def _runs(waits: Mapping[str, Waits]) -> int:
    return sum(found.runs for found in waits.values())


def _type(name: str, kind: str) -> str:
    return f"# TYPE {PREFIX}{name} {kind}"


def _scalars(name: str, values: Mapping[Labels, int]) -> list[str]:
    return [_type(name, "counter"), *(f"{PREFIX}{name}{{{_labels(labels)}}} {n}" for labels, n in values.items())]


def _histograms(name: str, snapshots: Mapping[Labels, Snapshot]) -> list[str]:
    lines = [_type(name, "histogram")]
    for labels, snapshot in snapshots.items():
        lines += _histogram(name, labels, snapshot.by_microseconds(), snapshot.count, 1e6 * snapshot.sum)
    return lines


def _histogram(name: str, labels: Labels, buckets: Sequence[tuple[float, int]], count: int, of_all: float) -> list[str]:
    text = _labels(labels)
    lines = [f'{PREFIX}{name}_bucket{{{text},le="{bound:g}"}} {n}' for bound, n in buckets]
    return [
        *lines,
        f'{PREFIX}{name}_bucket{{{text},le="+Inf"}} {count}',
        f"{PREFIX}{name}_sum{{{text}}} {of_all:.17g}",
        f"{PREFIX}{name}_count{{{text}}} {count}",
    ]


def _labels(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
