"""The forms in which Prometheus reads metrics: its text format, and OpenMetrics, which also takes exemplars."""

import re
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar

from server.histograms import Snapshot

OPEN_METRICS = "application/openmetrics-text"
OPEN_CONTENT_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"

_END = b"# EOF\n"
# OpenMetrics has no counters whose names don't end so.
_PLAIN_COUNTER = re.compile(r"^# TYPE (\S+?)(?<!_total) counter$", re.MULTILINE)
_TOTAL_COUNTER = re.compile(r"^# TYPE (\S+)_total counter$", re.MULTILINE)


def accepts_open_metrics(accept: str) -> bool:
    """Whether a client's Accept header asks for OpenMetrics at least as much as for the text format.

    Prometheus names what it prefers first; where weights are given they decide.
    """
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((_number(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        weights[kind.lower()] = max(weight, weights.get(kind.lower(), 0.0))
    wanted = weights.get(OPEN_METRICS, 0.0)
    return wanted > 0 and wanted >= weights.get("text/plain", 0.0)


def text(registry: CollectorRegistry, theirs: str) -> bytes:
    """All in Prometheus' text format 0.0.4.

    Args:
        registry: Our metrics.
        theirs: TensorFlow Serving's, in that format.
    """
    return generate_latest(registry) + theirs.encode()


def open_text(registry: CollectorRegistry, theirs: str) -> bytes:
    """The same as OpenMetrics 1.0: with exemplars, and no sample under another name than in the text format."""
    ours: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # it ships without types
    theirs = _TOTAL_COUNTER.sub(r"# TYPE \1 counter", _PLAIN_COUNTER.sub(r"# TYPE \1 unknown", theirs))
    return ours.removesuffix(_END) + theirs.encode() + _END


def add_snapshot(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    snapshot: Snapshot,
    buckets: Iterable[tuple[float, int]],
    exemplars: Mapping[int, Exemplar] | None = None,
) -> None:
    """Add a snapshot to a family.

    Args:
        family: Where to.
        labels: Values.
        snapshot: Gives count and sum.
        buckets: The snapshot's, without the infinite one.
        exemplars: By index of the buckets, the infinite one included.
    """
    cells = [*((repr(float(bound)), count) for bound, count in buckets), ("+Inf", snapshot.count)]
    shown = exemplars or {}
    family.add_metric(
        labels,
        [(*cell, shown[index]) if index in shown else cell for index, cell in enumerate(cells)],
        snapshot.sum,
    )


def _number(weight: str) -> float:
    try:
        return float(weight)
    except ValueError:
        return 0.0
