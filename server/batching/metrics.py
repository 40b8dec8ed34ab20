"""What Prometheus is told of the queues: it asks them, so that a request pays for no metric of theirs."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.batching.queue import Batcher
from server.batching.statistics import RUN_ROWS, Waits

_LABELS = ("model", "version", "signature")


class BatchCollector(Collector):
    """The queues of all loaded versions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, int, str], Batcher] = {}
        # Of versions that are gone: what TensorFlow Serving sums over versions must never go back.
        self._retired: dict[str, Waits] = {}

    def add(self, model: str, version: int, queues: Mapping[str, Batcher]) -> None:
        """Tell of a version's queues, by signature, from now on."""
        with self._lock:
            added = {(model, version, signature): queue for signature, queue in queues.items()}
            replaced = [queue for key, queue in self._queues.items() if key in added]
            self._queues |= added
            self._retired = _added_up(replaced, self._retired)

    def remove(self, model: str, version: int) -> None:
        """Forget a version."""
        with self._lock:
            gone = [queue for key, queue in self._queues.items() if key[:2] == (model, version)]
            self._queues = {key: queue for key, queue in self._queues.items() if key[:2] != (model, version)}
            self._retired = _added_up(gone, self._retired)

    def waits(self) -> Mapping[str, Waits]:
        """Of all queues there were, by the name of TensorFlow's thread pool."""
        with self._lock:
            return _added_up(self._queues.values(), self._retired)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        with self._lock:
            queues = dict(self._queues)
        rows = HistogramMetricFamily("segue_batch_rows", "Rows of requests in each run.", labels=_LABELS)
        padding = CounterMetricFamily("segue_batch_padding_rows", "Rows run to fill batches up.", labels=_LABELS)
        waits = HistogramMetricFamily("segue_batch_wait_seconds", "Time of requests in the queue.", labels=_LABELS)
        waiting = GaugeMetricFamily("segue_queue_rows", "Rows that wait now.", labels=_LABELS)
        joined = GaugeMetricFamily(
            "segue_batch_joined_rows", "Rows joined at most now: more would make a row no cheaper.", labels=_LABELS
        )
        for (model, version, signature), queue in queues.items():
            labels = (model, str(version), signature)
            found = queue.snapshot()
            rows.add_metric(labels, _buckets(RUN_ROWS, found.runs), found.rows)
            padding.add_metric(labels, found.padding)
            waits.add_metric(labels, _wait_buckets(found.waits), found.waits.seconds)
            waiting.add_metric(labels, found.queued_rows)
            joined.add_metric(labels, found.joined_rows)
        yield from (rows, padding, waits, waiting, joined)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bounds, from those of each class."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))


def _wait_buckets(waits: Waits) -> list[tuple[str, float]]:
    return [*((str(bound), count) for bound, count in waits.by_seconds()), ("+Inf", waits.count)]


def _added_up(queues: Iterable[Batcher], more: Mapping[str, Waits]) -> dict[str, Waits]:
    total = dict(more)
    for queue in queues:
        total[queue.pool] = total.get(queue.pool, Waits()) + queue.snapshot().waits
    return total
