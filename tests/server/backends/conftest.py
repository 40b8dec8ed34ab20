"""One cache for all tests of compiled models: each graph is compiled once per session."""

import threading
from pathlib import Path

import pytest

from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import GraphSpec
from tests.server.backends.compiled import affine, spec, workbench


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not made yet."""
    return tmp_path_factory.mktemp("compiled") / "cache"


@pytest.fixture(scope="session")
def bench(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> GraphSpec:
    """The workbench, compiled."""
    graph = spec(workbench(), tmp_path_factory.mktemp("bench") / "model.onnx")
    AotInductorBackend(cache).prepare(graph, threading.Event())
    return graph


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> GraphSpec:
    """A graph that nobody compiled yet, of one input and one output."""
    return spec(affine(), tmp_path_factory.mktemp("small") / "model.onnx")
