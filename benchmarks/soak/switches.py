"""Version after version is put into service while clients ask for the latest, for one by number, and by label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.soak.asking import Asking, asking, configured
from benchmarks.soak.load import load
from benchmarks.soak.models import LARGE_ROWS, MODEL, publish
from benchmarks.soak.servers import ServerProcess, running
from server.lifecycle.states import State
from tests.packages import WIDTH

_SERVED = 3  # versions at once, so that a version asked for by number stays for the next switch


def switching(folder: Path, *, switches: int, callers: int = 2) -> dict[str, Any]:
    """Switch versions that often.

    A switch is over when the server says that the new version is AVAILABLE, the oldest is at its END, and the label has
    moved. Every request that begins after that must be answered by the new version, or by the one that it names.
    """
    repository = folder / "models"
    for version in range(1, _SERVED + 1):
        publish(repository, version)
    first = folder / "models.config"
    first.write_text(f"model_config_list {{ {_entry(repository, _SERVED)} }}")
    server = ServerProcess(repository, "--model-config-file", str(first), "--admin", log=folder / "log")
    refused = 0
    with (
        running(server),
        asking(server.address) as ask,
        load([server.address], _calls(_SERVED), processes=callers) as made,
    ):
        for version in range(_SERVED + 1, _SERVED + 1 + switches):
            publish(repository, version)
            ask.wait_for(MODEL, version, State.AVAILABLE)
            ask.wait_for(MODEL, version - _SERVED, State.END)
            ask.configure(_entry(repository, version))
            made.order(_calls(version))
            refused += _is_refused(ask, version - _SERVED)
        seen = made.end()
    return {"switches": switches, "ended_versions_refused": refused, **seen.figures()}


def _entry(repository: Path, labelled: int) -> str:
    policy = f"model_version_policy {{ latest {{ num_versions: {_SERVED} }} }}"
    return configured(MODEL, repository / MODEL, f"{policy} version_labels {{ key: 'stable' value: {labelled} }}")


def _calls(version: int) -> Sequence[dict[str, Any]]:
    latest: dict[str, Any] = {"spec": {"name": MODEL}, "least": version}
    label: dict[str, Any] = {"spec": {"name": MODEL, "label": "stable"}, "least": version}
    number: dict[str, Any] = {"spec": {"name": MODEL, "version": version - 1}}
    return [latest, label, number] * 33 + [latest | {"rows": LARGE_ROWS}]


def _is_refused(ask: Asking, version: int) -> bool:
    ones = np.ones((1, WIDTH), np.float32)
    try:
        ask.predict(MODEL, {"x": ones, "bias": ones}, version)
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.NOT_FOUND)
    return False
