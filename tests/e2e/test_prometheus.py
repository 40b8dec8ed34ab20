"""A real Prometheus looks at a loaded server with the real policy: all that dashboards and alerts ask for is there."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboards import alerts, dashboards, expressions, filled, labels_of, legends, metrics_of, variables
from tests.loaded import Loaded, loaded
from tests.pages import OTHER
from tests.prometheus import DEPLOY, Prometheus, scraping

pytestmark = pytest.mark.slow

VALUES = {
    "model": "affine",
    "version": ".*",
    "signature": ".*",
    "bucket": "4",
    "backend": OTHER,
    "instance": ".*",
}
MADE_BY_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Loaded]]:
    """A server to which everything has happened while a Prometheus watched."""
    folder = tmp_path_factory.mktemp("prometheus")
    with pytest.MonkeyPatch.context() as monkeypatch, loaded(folder / "models", monkeypatch) as made:
        target = f"127.0.0.1:{made.metrics_port}"
        with scraping(folder / "data", [target], DEPLOY / "prometheus" / "alerts.yml") as prometheus:
            prometheus.until("segue_build_info")
            for count in (1, 2):  # what happens for the first time shows in no rate
                made.make_everything_happen()
                prometheus.until(f'sum(segue_backend_failures_total{{kind="error"}}) >= {count}')
            prometheus.until("count_over_time(segue_refused_requests_total[1m]) > 2")
            made.quarantine()
            yield prometheus, made


@pytest.mark.parametrize("name", ["backends", "model", "server"])
def test_every_query_of_a_dashboard_returns_data(watched: tuple[Prometheus, Loaded], name: str) -> None:
    """No panel, mark or variable stays empty."""
    prometheus, _ = watched
    data = dashboards()[name]
    asked = [filled(expression, VALUES) for expression in expressions(data)]
    assert len(asked) >= 10
    for expression in asked:
        values = [float(series["value"][1]) for series in prometheus.query(expression)]
        assert any(not math.isnan(value) for value in values), expression
    for expression, legend in legends(data):
        (first, *_) = prometheus.query(filled(expression, VALUES))
        assert legend <= first["metric"].keys(), (expression, legend)
    for selector, label in variables(data):
        chosen = prometheus.query(f"group by ({label}) ({filled(selector, VALUES)})")
        assert all(series["metric"].get(label) for series in chosen), (selector, label)
        assert chosen, (selector, label)


def test_no_query_is_of_a_metric_or_label_that_does_not_exist(watched: tuple[Prometheus, Loaded]) -> None:
    """Of dashboards and alerts: each name is exposed, with each label that it is chosen by."""
    prometheus, _ = watched
    exposed = set(prometheus.ask("label/__name__/values"))
    asked = [expression for data in dashboards().values() for expression in expressions(data)]
    asked += alerts().values()
    names = {name for expression in asked for name in metrics_of(expression)}
    assert len(names) > 20
    assert not names - exposed
    for expression in asked:
        for name, labels in labels_of(expression).items():
            for label in labels:
                assert prometheus.query(f'count({name}{{{label}!=""}})'), (name, label)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_every_alert_has_data(watched: tuple[Prometheus, Loaded], name: str) -> None:
    """No alert is silent for want of series: asked for the truth of its comparisons, each answers yes or no.

    What it asks of hours ago, this Prometheus was not there for; it is asked of a moment ago.
    """
    prometheus, _ = watched
    told = re.sub(r"(==|>|<)", r"\1 bool", alerts()[name].replace("offset 6h", "offset 1s"))
    assert "bool" in told
    values = [float(series["value"][1]) for series in prometheus.query(told)]
    assert set(values) & {0.0, 1.0}, told


def test_prometheus_follows_every_alert(watched: tuple[Prometheus, Loaded]) -> None:
    """The rules are evaluated without an error, and what is wrong with this server is on its way to somebody."""
    prometheus, _ = watched
    prometheus.until('ALERTS{alertname="SegueBackendQuarantined", backend="torch-cpu"}')
    prometheus.until('ALERTS{alertname="SegueSingleBackend", model="affine"}')
    (group,) = prometheus.ask("rules")["groups"]
    states = {rule["name"]: rule["state"] for rule in group["rules"]}
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert states.keys() == alerts().keys()
    assert {name for name, state in states.items() if state != "inactive"} >= {
        "SegueBackendQuarantined",
        "SegueVersionFailed",
        "SegueSingleBackend",
    }


def test_the_switch_is_marked_with_who_and_why(watched: tuple[Prometheus, Loaded]) -> None:
    """A switch is one mark, with the backends and the policy's own class of its reason; words make no series."""
    prometheus, _ = watched
    found = prometheus.query('segue_backend_switches_total{bucket="4"}')
    kinds = {(series["metric"]["from"], series["metric"]["to"], series["metric"]["reason"]) for series in found}
    assert kinds == {
        ("onnxruntime-cpu", "torch-cpu", "pinned"),
        ("torch-cpu", "onnxruntime-cpu", "pinned"),
        ("torch-cpu", "onnxruntime-cpu", "failing"),
    }


def test_prometheus_reads_both_forms(watched: tuple[Prometheus, Loaded], tmp_path: Path) -> None:
    """It asks for OpenMetrics by itself; what it found under TensorFlow Serving's names is what the text form tells."""
    prometheus, made = watched
    (series,) = prometheus.query(':tensorflow:serving:request_count{model_name="affine", status="OK"}')
    text = made.server._metrics.page().decode()
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith(':tensorflow:serving:request_count{model_name="affine",status="OK"}')
    ]
    assert series["value"][1] == line.split()[-1]
    assert not list(tmp_path.iterdir())
