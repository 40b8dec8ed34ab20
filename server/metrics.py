"""What Prometheus can ask this server. Label values come from what is loaded, never from a request's bytes."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from server.lifecycle.servable import Loaded
from server.lifecycle.states import State, VersionStatus

# From 100 microseconds, below which no request over gRPC ends, to 30 seconds.
_SECONDS_BUCKETS = (
    *(
        1e-4,
        2e-4,
        3e-4,
        5e-4,
        7e-4,
        1e-3,
        1.5e-3,
        2e-3,
        3e-3,
        5e-3,
        7e-3,
        1e-2,
        1.5e-2,
        2e-2,
        3e-2,
        5e-2,
        7e-2,
    ),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 30.0),
)


class RequestTimer:
    """The series of one (model, signature, backend), looked up once so that a request pays only for the observation."""

    def __init__(self, latency: Histogram, run: Histogram) -> None:
        self.latency = latency
        self.run = run


class Metrics:
    """One registry per server, so that several servers can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        labels = ("model", "version", "signature", "backend")
        self._latency = Histogram(
            "segue_request_latency_seconds",
            "Predict requests answered: from the request's bytes to the answer's bytes.",
            labels,
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._run = Histogram(
            "segue_backend_run_seconds",
            "The part of a request from its checked inputs to the outputs: waiting for a batch, and the run.",
            labels,
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._requests = Counter(
            "segue_requests",
            "Requests ended, by gRPC status code; model is empty unless one was found.",
            ("method", "model", "code"),
            registry=registry,
        )
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
        self._timers: dict[tuple[str, int, str, str], RequestTimer] = {}

    def timer(self, model: str, version: int, signature: str, backend: str) -> RequestTimer:
        """The series for requests to a loaded signature."""
        key = (model, version, signature, backend)
        timer = self._timers.get(key)
        if timer is None:
            labels = (model, str(version), signature, backend)
            timer = RequestTimer(self._latency.labels(*labels), self._run.labels(*labels))
            self._timers[key] = timer
        return timer

    def ended(self, method: str, model: str, code: str) -> None:
        """Count a request. `model` must be the name of a loaded model, or empty."""
        self._requests.labels(method, model, code).inc()

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """See lifecycle.manager.Observer."""
        self._state.labels(model, str(status.version)).set(status.state)
        if status.error is not None:
            self.load_failed(model)
        elif status.state is State.END:
            self._forget(model, status.version)

    def load_failed(self, model: str) -> None:
        """Count a package that did not load."""
        self._failures.labels(model).inc()

    def loaded(self, loaded: Loaded) -> None:
        """See lifecycle.manager.Observer."""
        servable = loaded.servable
        version = str(servable.version)
        self._load_seconds.labels(servable.name, version, servable.backend_name).set(loaded.seconds)
        for proof in servable.proofs:
            labels = (servable.name, version, proof.signature, proof.output, servable.backend_name)
            self._proof.labels(*labels).set(proof.difference.max_absolute)

    def serve(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Answer GET /metrics in a thread; returns the port and a function that stops it."""
        http, thread = start_http_server(port, addr=host, registry=self.registry)

        def stop() -> None:
            http.shutdown()
            http.server_close()
            thread.join()

        return http.server_port, stop

    def _forget(self, model: str, version: int) -> None:
        """Drop the series of a version that is gone, so that versions do not add up over months."""
        for metric in (self._latency, self._run, self._load_seconds, self._proof, self._state):
            metric.remove_by_labels({"model": model, "version": str(version)})
        for key in [k for k in self._timers if k[:2] == (model, version)]:
            self._timers.pop(key, None)
