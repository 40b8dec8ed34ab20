"""Fixtures of the end-to-end tests: what is slow to make is made once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.published_models import fetch
from tests.e2e.processes import RunningServer, convert, serving


@dataclass(frozen=True)
class Deployed:
    """basic-pitch, converted by the command line while a server was watching."""

    server: RunningServer
    repository: Path
    saved_model: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def basic_pitch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The main job, done once: a server without models, then one command."""
    saved_model = fetch("basic-pitch") / "nmp"
    repository = tmp_path_factory.mktemp("basic-pitch") / "models"
    with serving(repository) as server:
        arguments = ("--name", "basic-pitch", "--repository", repository, "--server", server.address, "--json")
        done = convert(saved_model, *arguments)
        assert done.returncode == 0, done.stderr
        yield Deployed(server, repository, saved_model, json.loads(done.stdout))
