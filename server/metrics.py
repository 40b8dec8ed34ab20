"""What Prometheus can ask this server. Label values come from what is loaded, never from a request's bytes.

What is told of requests is in request_metrics.py, of engines in engines/metrics.py, of queues in batching/metrics.py
and of GPUs in gpu.py; the same observations are told under TensorFlow Serving's names by tensorflow_metrics.py. All of
it is made when somebody asks: a request pays for nothing but counting in plain integers.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server import exposition, metrics_page, tensorflow_metrics
from server.batching.metrics import BatchCollector
from server.engines.metrics import EngineCollector
from server.gpu import GpuCollector, Gpus
from server.histograms import Snapshot
from server.lifecycle.servable import Loaded
from server.lifecycle.states import State, VersionStatus
from server.request_metrics import RequestMetrics, Series

PATH = "/metrics"


class Metrics:
    """One registry per server, so that several servers can live in one process."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        """Make one.

        Args:
            gpus: Those to tell of; by default those that the driver's library knows.
        """
        self.registry = registry = CollectorRegistry()
        self._of_requests = RequestMetrics()
        self._of_versions = _Versions()
        self._engines = EngineCollector()
        self._batches = BatchCollector()
        self.tensorflow = tensorflow_metrics.TensorFlowMetrics()
        # What requests call, without a step between.
        self.timer = self._of_requests.timer
        self.ended = self._of_requests.ended
        self.failed = self._of_requests.failed
        ProcessCollector(registry=registry)
        for collector in (self._of_requests, self._of_versions, self._engines, self._batches):
            registry.register(collector)
        registry.register(GpuCollector(gpus or Gpus()))

    def watch_load(self, waiting: Callable[[], int], held: Callable[[], int]) -> None:
        """Tell how many requests wait for a thread, and how many bytes those in flight hold."""
        gauge = Gauge("segue_waiting_requests", "Requests that wait for a thread.", registry=self.registry)
        gauge.set_function(waiting)
        gauge = Gauge("segue_bytes_in_flight", "Memory that requests in flight hold.", registry=self.registry)
        gauge.set_function(held)

    def counted(self, name: str) -> int:
        """The sum of a counter of TensorFlow Serving's, by its own name; 0 for other names."""
        return self.tensorflow.counted(name, self.requests(), self._batches.waits())

    def examples(self, model: str, count: int) -> None:
        """Count the Examples of a request to a loaded model."""
        self.tensorflow.examples(model, count)

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """See lifecycle.manager.Observer."""
        self._of_versions.status_changed(model, status)
        if status.state is not State.END:
            self._of_requests.begin(model, status.version)
        elif status.error is None:
            self._forget(model, status.version)

    def forgotten(self, model: str, version: int) -> None:
        """See lifecycle.manager.Observer."""
        self._of_versions.forget(model, version)

    def load_failed(self, model: str) -> None:
        """Count a package that did not load."""
        self._of_versions.load_failed(model)

    def loaded(self, loaded: Loaded) -> None:
        """See lifecycle.manager.Observer."""
        servable = loaded.servable
        self.tensorflow.warmed(servable.name, servable.version, loaded.seconds)
        self._engines.add(servable.name, servable.version, servable.ensemble)
        self._batches.add(servable.name, servable.version, servable.batchers)

    def page(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4: under our names, then under TensorFlow Serving's."""
        return exposition.text(self.registry, self._theirs())

    def open_page(self) -> bytes:
        """The same as OpenMetrics, with exemplars."""
        return exposition.open_text(self.registry, self._theirs())

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
        return metrics_page.serve(
            host, port, {PATH, tensorflow_metrics.PATH, *paths}, self.page, others, open_page=self.open_page
        )

    def timers(self) -> list[tuple[Series, Snapshot, Snapshot]]:
        """Of each series the latencies, and the times from checked inputs to outputs, now."""
        return [
            (series, timer.latency.snapshot(), timer.together.snapshot())
            for series, timer in self._of_requests.timers()
        ]

    def requests(self) -> dict[tuple[str, str, str], int]:
        """Requests ended so far by method, model and code."""
        return self._of_requests.requests()

    def _theirs(self) -> str:
        return self.tensorflow.text(self.timers(), self.requests(), self._batches.waits())

    def _forget(self, model: str, version: int) -> None:
        """Drop the series of a version that is gone, so that versions do not add up over months."""
        self._batches.remove(model, version)
        self._engines.remove(model, version)
        for series, timer in self._of_requests.forget(model, version):
            self.tensorflow.retire(series, timer.latency.snapshot(), timer.together.snapshot())
        self.tensorflow.forget(model, version)


class _Versions(Collector):
    """The states of versions, and packages that did not load."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._states: dict[tuple[str, int], State] = {}
        self._failures: Tally[str] = Tally()
        self._release = metadata.version("segue-serving")

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """A version has a new state; one that has ended well has none any more."""
        with self._lock:
            if status.state is State.END and status.error is None:
                self._states.pop((model, status.version), None)
                return
            self._states[model, status.version] = status.state
        if status.error is not None:
            self.load_failed(model)

    def forget(self, model: str, version: int) -> None:
        """A version that failed is no longer there."""
        with self._lock:
            self._states.pop((model, version), None)

    def load_failed(self, model: str) -> None:
        """Count a package that did not load."""
        with self._lock:
            self._failures[model] += 1

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        with self._lock:
            found, failed = dict(self._states), dict(self._failures)
        states = GaugeMetricFamily(
            "segue_model_version_state",
            "State of each version as in GetModelStatus: 10 start, 20 loading, 30 available, 40 unloading, 50 failed.",
            labels=("model", "version"),
        )
        for (model, version), state in found.items():
            states.add_metric((model, str(version)), state)
        failures = CounterMetricFamily("segue_model_load_failures", "Packages that did not load.", labels=("model",))
        for model, count in failed.items():
            failures.add_metric((model,), count)
        build = GaugeMetricFamily("segue_build_info", "1, for the release that runs.", labels=("release",))
        build.add_metric((self._release,), 1)
        yield from (states, failures, build)
