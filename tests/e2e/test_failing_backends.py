"""A backend that is slow, fails or answers NaN under load: no client notices, and operators are told why it is left."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from server.app import Server
from server.arrays import Array
from server.backends.interface import Backend, GraphSpec, LoadedGraph, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import RunFailed
from tests.servers import call, running_with

FIRST, OTHER = "onnxruntime-cpu", "other-cpu"
PATIENCE = 120.0


class Faulty:
    """ONNX Runtime under a name of its own, with what a test wants to go wrong."""

    precision = Precision.FP32

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.fault: Callable[[list[Array]], list[Array]] = list
        self._backend = OnnxRuntimeBackend("cpu", threads=1)

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """See Backend.prepare."""

    def load(self, graph: GraphSpec) -> LoadedGraph:
        """See Backend.load."""
        return FaultyGraph(self, self._backend.load(graph))


@dataclass
class FaultyGraph:
    """A graph of a faulty backend."""

    backend: Faulty
    graph: LoadedGraph

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See LoadedGraph.run."""
        time.sleep(self.backend.seconds)  # what is measured here is who takes how long
        return self.backend.fault(self.graph.run(inputs, outputs))

    def close(self) -> None:
        """See LoadedGraph.close."""
        self.graph.close()


def fails(_answers: list[Array]) -> list[Array]:
    """Break."""
    raise RunFailed("it was made to fail")


def not_finite(answers: list[Array]) -> list[Array]:
    """Lose the numbers."""
    return [np.full_like(answer, np.nan) for answer in answers]


def slow(answers: list[Array]) -> list[Array]:
    """Take fifty milliseconds more."""
    time.sleep(0.05)
    return answers


@dataclass
class Load:
    """Clients that ask all the time, and what went wrong for them."""

    address: str
    errors: list[str] = field(default_factory=list)
    answered: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Ask until told to end."""
        with grpc.insecure_channel(self.address) as channel:
            while not self.over.wait(0.005):
                try:
                    call(channel)
                    self.answered += 1
                except grpc.RpcError as error:
                    self.errors.append(str(error))


@contextmanager
def under_load(address: str) -> Iterator[Load]:
    """Two clients for the length of the block."""
    load = Load(address)
    threads = [threading.Thread(target=load.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join(30)


def overview(server: Server) -> dict[str, Any]:
    """What the status page says of the model."""
    with urlopen(f"http://127.0.0.1:{server.metrics_port}/status.json?model=affine", timeout=20) as reply:
        told: dict[str, Any] = json.load(reply)
    return told


def selected(server: Server) -> str:
    """Who answers single rows."""
    buckets = [bucket for signature in overview(server)["signatures"] for bucket in signature["buckets"]]
    return next((bucket["selected"] for bucket in buckets if bucket["rows"] == 1), "")


def wait_for(server: Server, backend: str) -> None:
    """Wait until a backend answers single rows."""
    end = time.monotonic() + PATIENCE
    while selected(server) != backend:
        assert time.monotonic() < end, json.dumps(overview(server), indent=1)
        threading.Event().wait(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (fails, "failed runs"),
        pytest.param(not_finite, "not finite", marks=pytest.mark.prove),
        pytest.param(slow, "against", marks=pytest.mark.prove),
    ],
)
def test_no_client_notices_a_backend_that_goes_wrong(
    tmp_path: Path, fault: Callable[[list[Array]], list[Array]], word: str
) -> None:
    """It is left with a reason in words, every request is answered, and it is taken back when it has healed."""
    other = Faulty(OTHER)
    backends: list[Backend] = [Faulty(FIRST, seconds=0.01), other]
    with (
        running_with(backends, tmp_path, metrics_port=0) as server,
        under_load(f"127.0.0.1:{server.port}") as load,
    ):
        wait_for(server, OTHER)
        other.fault = fault
        wait_for(server, FIRST)
        newest = overview(server)["decisions"][0]
        assert (newest["before"], newest["after"]) == (OTHER, FIRST)
        assert word in newest["reason"]
        with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=20) as reply:
            text = reply.read().decode()
        assert any(f'from="{OTHER}"' in line for line in text.splitlines() if "segue_backend_switches_total{" in line)
        other.fault = list
        wait_for(server, OTHER)
    assert load.errors == []
    assert load.answered > 20
