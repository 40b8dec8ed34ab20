"""Tests of deploy/grafana/picture without node: what draws the pictures knows all that the dashboards ask of it."""

import json
import re
import struct

import pytest

from examples.dashboard_pictures import IMAGES, PICTURES
from tests.dashboards import dashboards, panels
from tests.prometheus import DEPLOY

RENDERER = DEPLOY / "grafana" / "picture"
LARGEST = 300_000


def block(name: str, file: str) -> str:
    """The text of a constant of the renderer."""
    found = re.search(rf"^const {name} = (.*?);$", (RENDERER / file).read_text(), re.DOTALL | re.MULTILINE)
    assert found, name
    return found[1]


def test_every_type_of_panel_can_be_drawn() -> None:
    """Each has a component and defaults, so that no picture lacks a panel."""
    drawn = set(re.findall(r"'?([\w-]+)'?: [A-Z]\w+", block("BODIES", "panels.jsx")))
    known = set(re.findall(r"^  '?([\w-]+)'?: \{", block("TYPES", "fields.js"), re.MULTILINE))
    used = {panel["type"] for data in dashboards().values() for panel in panels(data)} - {"row"}
    assert used <= drawn == known


def test_every_field_that_is_set_is_heeded() -> None:
    """What a dashboard sets of a field, for all or for some series, reaches Grafana's code."""
    standard = set(re.findall(r"'(\w+)'", block("STANDARD", "fields.js"))) | {"custom"}
    types = block("TYPES", "fields.js")
    for data in dashboards().values():
        for panel in panels(data):
            config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
            overridden = {each["id"] for rule in config["overrides"] for each in rule["properties"]}
            set_for_all = set(config["defaults"])
            assert set_for_all <= standard, panel["title"]
            assert {rule["matcher"]["id"] for rule in config["overrides"]} <= {"byRegexp"}
            for name in overridden:
                known = name in standard or f"{name.removeprefix('custom.')}:" in types
                assert known, (panel["title"], name)


def test_every_transformation_and_variable_is_one_that_is_carried_out() -> None:
    """Others would be left out without a word."""
    for data in dashboards().values():
        used = {each["id"] for panel in panels(data) for each in panel.get("transformations", ())}
        assert used <= {"organize"}
        kinds = {variable["type"] for variable in data["templating"]["list"]}
        assert kinds <= {"datasource", "query"}


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_there_is_a_picture_of_each_dashboard(name: str) -> None:
    """It is small, wide enough to be read, and shown in the documentation."""
    assert name in PICTURES
    picture = IMAGES / f"dashboard-{name}.png"
    data = picture.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert width >= 1200
    assert height >= 1000
    assert len(data) < LARGEST
    assert f"images/{picture.name}" in (IMAGES.parent / "metrics.md").read_text()


def test_the_packages_are_locked_and_name_no_registry() -> None:
    """What is installed is what was chosen, by digest, from whichever registry npm is set up for."""
    wanted = json.loads((RENDERER / "package.json").read_text())["dependencies"]
    locked = json.loads((RENDERER / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    others = {name: package for name, package in locked.items() if name}
    assert len(others) > len(wanted)
    for name, package in others.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
