"""Tests of deploy/grafana: the committed dashboards are those that the code makes, and Grafana can read them."""

import json
from typing import Any

import pytest

from tests.dashboards import FOLDER, dashboards, expressions, panels
from tests.prometheus import DEPLOY


def test_the_committed_dashboards_are_those_of_the_code() -> None:
    """Nobody edits the JSON: make dashboards writes it."""
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's foundation SDK is not installed")
    from deploy.grafana.__main__ import texts  # noqa: PLC0415 - not without the SDK

    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == texts()


@pytest.mark.parametrize("name", ["backends", "model", "server"])
def test_grafanas_own_types_take_a_dashboard(name: str) -> None:
    """What the SDK reads from the JSON, it writes the same: no field is unknown to Grafana's schema.

    What only the datasource's plugin knows is left aside: the texts of marks.
    """
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's foundation SDK is not installed")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415 - not without the SDK
    from grafana_foundation_sdk.cog.plugins import register_default_plugins  # noqa: PLC0415 - likewise
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415 - likewise

    register_default_plugins()
    data = dashboards()[name]
    for mark in data.get("annotations", {}).get("list", ()):
        for key in ("titleFormat", "textFormat", "tagKeys", "step"):
            del mark[key]
    again: Any = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(data)))))
    assert again == data


@pytest.mark.parametrize("name", ["backends", "model", "server"])
def test_panels_can_be_told_apart_and_lie_side_by_side(name: str) -> None:
    """Ids are unique, so are the letters of a panel's queries; no panel covers another or leaves the dashboard."""
    found = panels(dashboards()[name])
    assert len({panel["id"] for panel in found}) == len(found)
    cells: set[tuple[int, int]] = set()
    for panel in found:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters)
        assert panel["type"] == "row" or (letters and panel["description"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine


def test_variables_are_there_before_they_are_used() -> None:
    """Every $name of a query is a variable of its dashboard, or Grafana's own."""
    for name, data in dashboards().items():
        known = {variable["name"] for variable in data["templating"]["list"]}
        for expression in expressions(data):
            used = {word.strip('"[],{}()') for word in expression.replace('"', " ").split() if word.startswith("$")}
            assert {word.lstrip("$") for word in used if not word.startswith("$__")} <= known, (name, expression)


def test_compose_mounts_what_is_there() -> None:
    """Every file and folder that the composition mounts is in the repository."""
    text = (DEPLOY / "compose.yaml").read_text()
    mounted = [line.split("- ", 1)[1].split(":")[0] for line in text.splitlines() if line.strip().startswith("- ./")]
    assert len(mounted) == 4
    assert all((DEPLOY / path).exists() for path in mounted)
    assert "/etc/grafana/dashboards" in (DEPLOY / "grafana/provisioning/dashboards/segue.yml").read_text()
