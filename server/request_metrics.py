"""What is counted of requests: how they end, how long they take, and on what they spend their time.

A request pays for counting in plain integers; Prometheus' form is made when somebody asks. Label values are what is
loaded, method names and the few reasons below.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from server.calls import Call
from server.errors import (
    CancelledInQueue,
    ExpiredInQueue,
    NoThread,
    Overloaded,
    QueueFull,
    TooLate,
    TooManyBytes,
    TooManyWatchers,
)
from server.exposition import add_snapshot
from server.histograms import SECONDS, Durations, total

STAGES: Final = ("queue", "batch", "run", "encode")
"""Waiting for a thread; waiting to be joined with others; the batch's run; making the answer's bytes."""

REASONS: Final[Mapping[type[Overloaded], str]] = {
    QueueFull: "queue_full",
    TooLate: "too_late",
    ExpiredInQueue: "expired",
    CancelledInQueue: "cancelled",
    TooManyBytes: "too_many_bytes",
    NoThread: "no_thread",
    TooManyWatchers: "too_many_watchers",
}

_LABELS = ("model", "version", "signature", "backend", "bucket")


@dataclass(frozen=True, slots=True)
class Series:
    """Whose requests are counted together: one method's, to one signature of one version, by who answered.

    Attributes:
        model: The model's name.
        version: Its number.
        signature: Its name.
        backend: The backend that answered.
        method: Such as "Predict".
        bucket: The bucket of the batch in which the request was answered; 0 if that is not known.
    """

    model: str
    version: int
    signature: str
    backend: str
    method: str
    bucket: int = 0


class RequestTimer:
    """The durations of one series, looked up once so that a request pays only for the observation."""

    __slots__ = ("batch", "encode", "exemplars", "latency", "queue", "run", "together")

    def __init__(self) -> None:
        self.latency = Durations()
        """From the request to its answer."""
        self.together = Durations()
        """From the checked inputs to the outputs: waiting for a batch, and the run."""
        self.queue, self.batch, self.run, self.encode = Durations(), Durations(), Durations(), Durations()
        """See STAGES."""
        self.exemplars: dict[int, Exemplar] = {}
        """The last traced request in each class of latencies, by its index."""

    def ran(self, call: Call | None, begin: float, end: float) -> None:
        """Count a run that is over.

        Args:
            call: The request's, if it has one.
            begin: When its inputs were checked, in seconds of the call's clock.
            end: When its outputs were there.
        """
        self.together.observe(end - begin)
        if call is None:
            return
        if call.taken:
            self.queue.observe(call.taken - call.queued)
        if call.started > begin:
            self.batch.observe(call.started - begin)
        run_begin, run_end = call.run
        self.run.observe(run_end - run_begin)

    def answered(self, call: Call | None, begin: float, encoding: float, end: float) -> None:
        """Count an answer.

        Args:
            call: The request's, if it has one.
            begin: When the request came.
            encoding: When all outputs were there.
            end: When the answer was.
        """
        seconds = end - begin
        self.latency.observe(seconds)
        self.encode.observe(end - encoding)
        if call is not None and call.is_traced:
            self.exemplars[bisect_left(SECONDS, seconds)] = Exemplar({"trace_id": call.trace_id}, seconds, time.time())


_Key = tuple[str, int, str, str, str, int]


class RequestMetrics(Collector):
    """The requests of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: set[tuple[str, int]] = set()
        self._timers: dict[_Key, RequestTimer] = {}
        self._ended: Tally[tuple[str, str, str]] = Tally()
        self._refused: Tally[tuple[str, str, str]] = Tally()

    def begin(self, model: str, version: int) -> None:
        """Count requests to a version from now on."""
        with self._lock:
            self._versions.add((model, version))

    def forget(self, model: str, version: int) -> list[tuple[Series, RequestTimer]]:
        """Drop the series of a version that is gone, so that versions do not add up over months; returns them."""
        with self._lock:
            self._versions.discard((model, version))
            gone = [key for key in self._timers if key[:2] == (model, version)]
            return [(Series(*key), self._timers.pop(key)) for key in gone]

    def timer(  # noqa: PLR0917 - the fields of a series, in their order
        self, model: str, version: int, signature: str, backend: str, method: str = "Predict", bucket: int = 0
    ) -> RequestTimer:
        """The timer of a series. A request that outlives its version is counted in one that nobody reads."""
        key = (model, version, signature, backend, method, bucket)
        timer = self._timers.get(key)
        if timer is None:
            with self._lock:
                if (model, version) not in self._versions:
                    return RequestTimer()
                timer = self._timers.setdefault(key, RequestTimer())
        return timer

    def ended(self, method: str, model: str, code: str) -> None:
        """Count a request. `model` must be the name of a loaded model, or empty."""
        with self._lock:
            self._ended[method, model, code] += 1

    def failed(self, method: str, model: str, code: str, error: Exception) -> None:
        """Count a request that ended with an error; arguments otherwise as for `ended`."""
        self.ended(method, model, code)
        if isinstance(error, Overloaded):
            with self._lock:
                self._refused[method, model, REASONS[type(error)]] += 1

    def timers(self) -> list[tuple[Series, RequestTimer]]:
        """Those of all series."""
        with self._lock:
            timers = list(self._timers.items())
        return [(Series(*key), timer) for key, timer in timers]

    def requests(self) -> dict[tuple[str, str, str], int]:
        """Requests ended so far by method, model and code."""
        with self._lock:
            return dict(self._ended)

    def describe(self) -> list[Metric]:
        """Nothing to compare with other collectors' names before there are requests."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        by_labels: dict[tuple[str, ...], list[RequestTimer]] = {}
        for series, timer in self.timers():
            key = (series.model, str(series.version), series.signature, series.backend, str(series.bucket))
            by_labels.setdefault(key, []).append(timer)
        yield _latencies(by_labels)
        yield _stages(by_labels)
        ended = CounterMetricFamily(
            "segue_requests",
            "Requests ended, by gRPC status code; model is empty unless one was found.",
            labels=("method", "model", "code"),
        )
        refused = CounterMetricFamily(
            "segue_refused_requests",
            "Requests for which there was no room or no time, by reason.",
            labels=("method", "model", "reason"),
        )
        with self._lock:
            refusals = dict(self._refused)
        for family, counts in ((ended, self.requests()), (refused, refusals)):
            for labels, count in counts.items():
                family.add_metric(labels, count)
        yield from (ended, refused)


def _latencies(by_labels: Mapping[tuple[str, ...], Sequence[RequestTimer]]) -> Metric:
    family = HistogramMetricFamily(
        "segue_request_latency_seconds",
        "Inference requests answered: from the request's bytes to the answer's bytes.",
        labels=_LABELS,
    )
    for labels, timers in by_labels.items():
        found = total(timer.latency.snapshot() for timer in timers)
        exemplars = {index: exemplar for timer in timers for index, exemplar in tuple(timer.exemplars.items())}
        add_snapshot(family, labels, found, found.by_seconds(), exemplars)
    return family


def _stages(by_labels: Mapping[tuple[str, ...], Sequence[RequestTimer]]) -> Metric:
    family = HistogramMetricFamily(
        "segue_request_stage_seconds",
        "What answered requests spent their time on; only those that went through a stage are in it.",
        labels=(*_LABELS, "stage"),
    )
    for labels, timers in by_labels.items():
        for stage in STAGES:
            found = total(getattr(timer, stage).snapshot() for timer in timers)
            if found.count:
                add_snapshot(family, (*labels, stage), found, found.by_stage_seconds())
    return family
