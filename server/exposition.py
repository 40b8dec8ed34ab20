"""The forms in which Prometheus reads metrics: its text format, and OpenMetrics, which also takes exemplars."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite, isnan

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar

from server.histograms import Snapshot

OPEN_METRICS = "application/openmetrics-text"
OPEN_CONTENT_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"

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
        registry: Our metrics: gauges, counters and histograms.
        theirs: TensorFlow Serving's, in that format.
    """
    return "".join([*_lines(registry, is_open=False), theirs]).encode()


def open_text(registry: CollectorRegistry, theirs: str) -> bytes:
    """The same as OpenMetrics 1.0: with exemplars, and no sample under another name than in the text format."""
    theirs = _TOTAL_COUNTER.sub(r"# TYPE \1 counter", _PLAIN_COUNTER.sub(r"# TYPE \1 unknown", theirs))
    return "".join([*_lines(registry, is_open=True), theirs, "# EOF\n"]).encode()


def _lines(registry: CollectorRegistry, *, is_open: bool) -> Iterator[str]:
    """What prometheus_client would write, in a fraction of its time: requests wait while a page is made."""
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" and not is_open else metric.name
        help_text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {name} {help_text}\n# TYPE {name} {metric.type}\n"
        for sample in metric.samples:
            labels = sample.labels
            inner = ",".join([f'{key}="{_escaped(labels[key])}"' for key in sorted(labels)])
            braced = f"{{{inner}}}" if inner else ""
            exemplar = _exemplar(sample.exemplar) if is_open and sample.exemplar else ""
            yield f"{sample.name}{braced} {_figure(sample.value)}{exemplar}\n"


@lru_cache(maxsize=4096)
def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _figure(value: float) -> str:
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def _exemplar(exemplar: Exemplar) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in exemplar.labels.items())
    return f" # {{{labels}}} {_figure(exemplar.value)} {exemplar.timestamp}"


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
