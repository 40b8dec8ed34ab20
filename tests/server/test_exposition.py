"""Tests of `server.exposition`; that both forms of a whole page tell the same is in test_metrics_docs.py."""

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from server.exposition import accepts_open_metrics, add_snapshot, open_text, text
from server.histograms import SECONDS, Durations

ODD = 'a "quoted"\nname\\with é'
THEIRS = '# TYPE :x:count counter\n:x:count{a="b"} 3\n# TYPE :x:examples_total counter\n:x:examples_total{a="b"} 4\n'
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4, text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Everything(Collector):
    """One family of each kind, with what is awkward to write."""

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        gauge = GaugeMetricFamily("g", "A gauge\nin two lines, \\ too.", labels=("name", "n"))
        for number, value in enumerate((0, -1.5, 1e300, math.inf, -math.inf, math.nan)):
            gauge.add_metric((ODD, str(number)), value)
        counter = CounterMetricFamily("c", "A counter.", labels=())
        counter.add_metric((), 12345678901)
        histogram = HistogramMetricFamily("h", "A histogram.", labels=("b", "a"))
        durations = Durations()
        for seconds in (0.00005, 0.3, 100):
            durations.observe(seconds)
        found = durations.snapshot()
        exemplars = {0: Exemplar({"trace_id": "ab"}, 0.00005, 1.5), len(SECONDS): Exemplar({"trace_id": "cd"}, 100, 2)}
        add_snapshot(histogram, (ODD, "x"), found, found.by_seconds(), exemplars)
        yield from (gauge, counter, histogram)


@pytest.fixture
def registry() -> CollectorRegistry:
    """One with Everything."""
    made = CollectorRegistry()
    made.register(Everything())
    return made


def test_the_text_is_what_prometheus_client_would_write(registry: CollectorRegistry) -> None:
    """Read by its parser, it is the same as its own, to the last character of a label."""
    ours, theirs = (list(parse(page.decode())) for page in (text(registry, ""), generate_latest(registry)))
    assert len(ours) == 3
    assert repr(ours) == repr(theirs)
    assert {sample.labels["name"] for sample in ours[0].samples} == {ODD}


def test_open_metrics_have_exemplars_and_an_end(registry: CollectorRegistry) -> None:
    """The exemplars are on the buckets in which they are; counters without "_total" keep their names."""
    page = open_text(registry, THEIRS).decode()
    assert page.endswith("\n# EOF\n")
    assert " # {" not in text(registry, THEIRS).decode()
    families = {family.name: family for family in parse_open(page)}  # type: ignore[no-untyped-call]  # it has no types
    shown = {s.labels["le"]: s.exemplar for s in families["h"].samples if s.exemplar is not None}
    assert {le: (each.labels, each.value, float(each.timestamp or 0)) for le, each in shown.items()} == {
        "0.0001": ({"trace_id": "ab"}, 0.00005, 1.5),
        "+Inf": ({"trace_id": "cd"}, 100, 2),
    }
    assert [(s.name, s.value) for s in families[":x:count"].samples] == [(":x:count", 3)]
    assert families[":x:count"].type == "unknown"
    assert [(s.name, s.value) for s in families[":x:examples"].samples] == [(":x:examples_total", 4)]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0,text/plain;q=0", False),
        ("APPLICATION/OpenMetrics-Text ; q = 1", True),
        ("application/openmetrics-text;q=much", False),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(accept: str, wanted: bool) -> None:  # noqa: FBT001 - a case
    """Whoever prefers the text format, or does not say, gets it."""
    assert accepts_open_metrics(accept) is wanted
