"""What Prometheus can ask this server. Label values come from what is loaded, never from a request's bytes.

What every request touches is counted in plain integers and told in Prometheus' form only when somebody asks: under our
names here, under TensorFlow Serving's in tensorflow_metrics.py, both from the same observations.
"""

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server import metrics_page, tensorflow_metrics
from server.batching.metrics import BatchCollector
from server.histograms import Durations, Snapshot, total
from server.lifecycle.servable import Loaded
from server.lifecycle.states import State, VersionStatus

_LABELS = ("model", "version", "signature", "backend")

PATH = "/metrics"


@dataclass(frozen=True, slots=True)
class Series:
    """Whose requests are counted together: one method's, to one signature of one version on one backend."""

    model: str
    version: int
    signature: str
    backend: str
    method: str


@dataclass(frozen=True, slots=True)
class RequestTimer:
    """The durations of one series, looked up once so that a request pays only for the observation."""

    latency: Durations = field(default_factory=Durations)
    run: Durations = field(default_factory=Durations)


class Metrics:
    """One registry per server, so that several servers can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._lock = threading.Lock()
        self._timers: dict[tuple[str, int, str, str, str], RequestTimer] = {}
        self._requests: Tally[tuple[str, str, str]] = Tally()
        self.tensorflow = tensorflow_metrics.TensorFlowMetrics()
        self._state = Gauge(
            "segue_model_version_state",
            "State of each version as in GetModelStatus: 10 start, 20 loading, 30 available, 40 unloading, 50 end.",
            ("model", "version"),
            registry=registry,
        )
        self._load_seconds = Gauge(
            "segue_model_load_seconds",
            "What verifying, loading and proving a version took.",
            ("model", "version", "backend"),
            registry=registry,
        )
        self._failures = Counter(
            "segue_model_load_failures",
            "Packages that did not load.",
            ("model",),
            registry=registry,
        )
        self._proof = Gauge(
            "segue_proof_max_absolute_difference",
            "Largest difference between the backend's and TensorFlow's golden answers, measured at loading.",
            ("model", "version", "signature", "output", "backend"),
            registry=registry,
        )
        self._batches = BatchCollector()
        registry.register(self._batches)
        registry.register(_Requests(self))

    def watch_load(self, waiting: Callable[[], int], held: Callable[[], int]) -> None:
        """Tell how many requests wait for a thread, and how many bytes those in flight hold."""
        gauge = Gauge("segue_waiting_requests", "Requests that wait for a thread.", registry=self.registry)
        gauge.set_function(waiting)
        gauge = Gauge("segue_bytes_in_flight", "Memory that requests in flight hold.", registry=self.registry)
        gauge.set_function(held)

    def counted(self, name: str) -> int:
        """The sum of a counter of TensorFlow Serving's, by its own name; 0 for other names."""
        return self.tensorflow.counted(name, self.requests())

    def timer(self, model: str, version: int, signature: str, backend: str, method: str = "Predict") -> RequestTimer:
        """The series for requests to a loaded signature."""
        key = (model, version, signature, backend, method)
        timer = self._timers.get(key)
        if timer is None:
            with self._lock:
                timer = self._timers.setdefault(key, RequestTimer())
        return timer

    def ended(self, method: str, model: str, code: str) -> None:
        """Count a request. `model` must be the name of a loaded model, or empty."""
        with self._lock:
            self._requests[method, model, code] += 1

    def examples(self, model: str, count: int) -> None:
        """Count the Examples of a request to a loaded model."""
        self.tensorflow.examples(model, count)

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """See lifecycle.manager.Observer."""
        self._state.labels(model, str(status.version)).set(status.state)
        if status.error is not None:
            self.load_failed(model)
        elif status.state is State.END:
            self._forget(model, status.version)

    def forgotten(self, model: str, version: int) -> None:
        """See lifecycle.manager.Observer."""
        self._state.remove_by_labels({"model": model, "version": str(version)})

    def load_failed(self, model: str) -> None:
        """Count a package that did not load."""
        self._failures.labels(model).inc()

    def loaded(self, loaded: Loaded) -> None:
        """See lifecycle.manager.Observer."""
        servable = loaded.servable
        version = str(servable.version)
        self._load_seconds.labels(servable.name, version, servable.backend_name).set(loaded.seconds)
        self.tensorflow.warmed(servable.name, servable.version, loaded.seconds)
        self._batches.add(servable.name, servable.version, servable.batchers)
        for proof in servable.proofs:
            labels = (servable.name, version, proof.signature, proof.output, servable.backend_name)
            self._proof.labels(*labels).set(proof.difference.max_absolute)

    def page(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4: under our names, then under TensorFlow Serving's."""
        theirs = self.tensorflow.text(self.timers(), self.requests())
        return generate_latest(self.registry) + theirs.encode()

    def serve(
        self,
        host: str,
        port: int,
        paths: Iterable[str] = (),
        others: Mapping[str, metrics_page.Route] | None = None,
    ) -> tuple[int, Callable[[], None]]:
        """Answer GET in a thread; returns the port and a function that stops it.

        Args:
            host: Where to listen.
            port: 0 takes a free one.
            paths: Where the page is found besides /metrics and TensorFlow Serving's default path.
            others: What else is served there, for people, by path.

        Raises:
            OSError: The port is taken.
        """
        return metrics_page.serve(host, port, {PATH, tensorflow_metrics.PATH, *paths}, self.page, others)

    def timers(self) -> list[tuple[Series, Snapshot, Snapshot]]:
        """Latencies and runs of each series, now."""
        with self._lock:
            timers = list(self._timers.items())
        return [(Series(*key), timer.latency.snapshot(), timer.run.snapshot()) for key, timer in timers]

    def requests(self) -> dict[tuple[str, str, str], int]:
        """Requests ended so far by method, model and code."""
        with self._lock:
            return dict(self._requests)

    def _forget(self, model: str, version: int) -> None:
        """Drop the series of a version that is gone, so that versions do not add up over months."""
        self._batches.remove(model, version)
        for metric in (self._load_seconds, self._proof, self._state):
            metric.remove_by_labels({"model": model, "version": str(version)})
        with self._lock:
            gone = {key: self._timers.pop(key) for key in list(self._timers) if key[:2] == (model, version)}
        for key, timer in gone.items():
            self.tensorflow.retire(Series(*key), timer.latency.snapshot(), timer.run.snapshot())
        self.tensorflow.forget(model, version)


class _Requests(Collector):
    """Tells in Prometheus' form what requests have touched."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Nothing to compare with other collectors' names before there are requests."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        by_labels: dict[tuple[str, ...], list[tuple[Snapshot, Snapshot]]] = {}
        for series, latency, run in self._metrics.timers():
            key = (series.model, str(series.version), series.signature, series.backend)
            by_labels.setdefault(key, []).append((latency, run))
        latencies = HistogramMetricFamily(
            "segue_request_latency_seconds",
            "Inference requests answered: from the request's bytes to the answer's bytes.",
            labels=_LABELS,
        )
        runs = HistogramMetricFamily(
            "segue_backend_run_seconds",
            "The part of a request from its checked inputs to the outputs: waiting for a batch, and the run.",
            labels=_LABELS,
        )
        for labels, found in by_labels.items():
            _add(latencies, labels, total(latency for latency, _ in found))
            _add(runs, labels, total(run for _, run in found))
        yield latencies
        yield runs
        counts = CounterMetricFamily(
            "segue_requests",
            "Requests ended, by gRPC status code; model is empty unless one was found.",
            labels=("method", "model", "code"),
        )
        for ended, count in self._metrics.requests().items():
            counts.add_metric(ended, count)
        yield counts


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], snapshot: Snapshot) -> None:
    buckets = [(_number(bound), count) for bound, count in snapshot.by_seconds()]
    family.add_metric(labels, [*buckets, ("+Inf", snapshot.count)], snapshot.sum)


def _number(bound: float) -> str:
    return repr(float(bound))
