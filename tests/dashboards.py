"""What the committed dashboards ask of Prometheus. Needs no Grafana."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.prometheus import DEPLOY

FOLDER = DEPLOY / "grafana" / "dashboards"

_METRIC = re.compile(r"\b((?:segue|process)_[a-z0-9_]+)")
_LABELS_OF = re.compile(r"\b((?:segue|process)_[a-z0-9_]+)(?:\{([^}]*)\})?")


def dashboards() -> dict[str, Any]:
    """Each, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(data: Any) -> list[Any]:
    """All panels, those inside rows too."""
    return [each for panel in data["panels"] for each in (panel, *panel.get("panels", ()))]


def expressions(data: Any) -> Iterator[str]:
    """Every query of a dashboard: of panels, and of marks."""
    for panel in panels(data):
        for target in panel.get("targets", ()):
            yield target["expr"]
    for mark in data.get("annotations", {}).get("list", ()):
        yield mark["expr"]


def legends(data: Any) -> Iterator[tuple[str, set[str]]]:
    """Every query with the labels that its legend, or the text of a mark, names."""
    for panel in panels(data):
        for target in panel.get("targets", ()):
            yield target["expr"], set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
    for mark in data.get("annotations", {}).get("list", ()):
        texts = mark["titleFormat"] + mark["textFormat"]
        yield mark["expr"], {*re.findall(r"{{(\w+)}}", texts), *mark["tagKeys"].split(",")}


def variables(data: Any) -> list[tuple[str, str]]:
    """The series and the label of each variable whose values Prometheus has."""
    found = [
        re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        for variable in data["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert all(found)
    return [(match[1], match[2]) for match in found if match]


def filled(expression: str, values: Mapping[str, str]) -> str:
    """An expression as Grafana sends it."""
    for name, value in {"__rate_interval": "1m", "__interval": "1m", "__range": "1h", **values}.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, expression
    return expression


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics in an expression."""
    return set(_METRIC.findall(expression))


def labels_of(expression: str) -> dict[str, set[str]]:
    """The labels that each metric in an expression is chosen by."""
    found: dict[str, set[str]] = {}
    for name, inner in _LABELS_OF.findall(expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", inner))
    return found


def alerts() -> dict[str, str]:
    """The expression of each alert, by its name; read without a YAML parser, from how the file is written."""
    text = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    found = re.findall(r"- alert: (\w+)\n\s+expr: (?:\|\n(.*?)\n        for|([^\n]*))", text, re.DOTALL)
    return {name: block or line for name, block, line in found}
