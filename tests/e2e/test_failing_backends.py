"""A backend that is slow, fails or answers NaN under load: no client notices, and operators are told why it is left."""

import json
import logging
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
from prometheus_client.parser import text_string_to_metric_families as parse

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
        self.gone_wrong = 0
        """Batches of requests that it failed, or answered with NaN."""
        self.counting = threading.Lock()
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
        answers, fault = self.graph.run(inputs, outputs), self.backend.fault
        if fault in {fails, not_finite} and threading.current_thread().name != "calibrate":  # no request's batch
            with self.backend.counting:
                self.backend.gone_wrong += 1
        return fault(answers)

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
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        """So many of them begin."""
        self.threads += [threading.Thread(target=self.ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Wait until the last one has its answer."""
        self.over.set()
        for thread in self.threads:
            thread.join(30)

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
    load.start(2)
    try:
        yield load
    finally:
        load.end()


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


def switches(server: Server) -> dict[tuple[str, str], set[str]]:
    """From the metrics: the reasons' classes of switches of single rows, by who answered before and after."""
    found: dict[tuple[str, str], set[str]] = {}
    for labels, _ in samples(server, "segue_backend_switches_total"):
        if labels["bucket"] == "1":
            found.setdefault((labels["from"], labels["to"]), set()).add(labels["reason"])
    return found


def samples(server: Server, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of a metric."""
    with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=20) as reply:
        families = list(parse(reply.read().decode()))
    return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]


def reason_left(server: Server) -> str:
    """From the page: why single rows went from the one to the other last."""
    left = (OTHER, FIRST, 1)
    told = [one for one in overview(server)["decisions"] if (one["before"], one["after"], one["rows"]) == left]
    return str(told[0]["reason"])


@dataclass(frozen=True)
class Case:
    """What goes wrong, and how operators are told why the backend is left.

    Attributes:
        fault: What goes wrong.
        word: In the reason, on the page and in the log.
        kind: The reason's class, in the metric of switches.
        failure: The kind, in the metric of failures; None for no failure.
        line: What the log has of a batch that another answered.
    """

    fault: Callable[[list[Array]], list[Array]]
    word: str
    kind: str
    failure: str | None
    line: str


CASES = [
    Case(fails, "failed runs", "failing", "error", f"{FIRST} stepped in for {OTHER}: it was made to fail"),
    Case(not_finite, "not finite", "failing", "not_finite", f"{FIRST} stepped in for {OTHER}: not finite"),
    Case(slow, "against", "faster", None, ""),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [CASES[0], *(pytest.param(case, marks=pytest.mark.prove) for case in CASES[1:])],
    ids=[case.fault.__name__ for case in CASES],
)
def test_no_client_notices_a_backend_that_goes_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    """It is left for a reason, every request is answered, and it is taken back when it has healed.

    The page and the log have the same words for the reason, the metric has their class; every batch that it failed is
    counted, and what it said when it failed is in the log.
    """
    caplog.set_level(logging.INFO, "server")
    other = Faulty(OTHER)
    backends: list[Backend] = [Faulty(FIRST, seconds=0.01), other]
    with (
        running_with(backends, tmp_path, metrics_port=0) as server,
        under_load(f"127.0.0.1:{server.port}") as load,
    ):
        wait_for(server, OTHER)
        other.fault = case.fault
        wait_for(server, FIRST)
        reason = reason_left(server)
        assert case.word in reason
        other.fault = list
        wait_for(server, OTHER)
        load.end()  # what is under way is counted when it has ended
        switched = switches(server)
        failed = samples(server, "segue_backend_failures_total")
    assert load.errors == []
    assert load.answered > 20
    assert case.kind in switched[OTHER, FIRST]
    counted = {labels["kind"]: value for labels, value in failed if labels["backend"] == OTHER}
    assert counted == ({case.failure: other.gone_wrong} if case.failure else {})
    said = [record.getMessage() for record in caplog.records]
    assert any(line.endswith(f"batches of up to 1: {FIRST} answers instead of {OTHER}: {reason}") for line in said)
    assert any(case.line in line for line in said)
