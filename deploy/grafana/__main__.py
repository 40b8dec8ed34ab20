"""Writes the dashboards' JSON; `make dashboards` calls it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import backends, model, server

FOLDER = Path(__file__).parent / "dashboards"


def texts() -> Mapping[str, str]:
    """Each dashboard as JSON, by the name of its file."""
    made = {"backends": backends.dashboard(), "model": model.dashboard(), "server": server.dashboard()}
    return {f"{name}.json": _text(builder.build()) for name, builder in made.items()}


def _text(dashboard: object) -> str:
    data: dict[str, Any] = json.loads(JSONEncoder().encode(dashboard))
    for number, panel in enumerate(_panels(data), start=1):
        panel["id"] = number
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _panels(data: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for panel in data["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
