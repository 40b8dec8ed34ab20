"""What the dashboards' pictures show: a real server with two models on every backend, its clients, and what befalls it.

One backend fails for a while, an operator pins another and takes that back, some clients ask for what is not there.
Nothing of how it is drawn.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np

from benchmarks.soak.models import WIDTH, write_heavy_package
from examples.published_models import fetch
from server.app import Server
from server.arrays import Array
from server.backends.catalogue import AUTO, offered
from server.backends.interface import Backend, GraphSpec, LoadedGraph, Precision
from server.config import ServerConfig
from server.errors import RunFailed
from server.wire.responses import encode_predict_request

MUSIC, DENSE = "basic-pitch", "dense"
_METHOD = "/tensorflow.serving.PredictionService/Predict"
_SAMPLES = 43844  # two seconds of music
_ROWS: Mapping[str, Sequence[int]] = {MUSIC: (1, 4, 1, 1), DENSE: (1, 16, 1, 4)}
_PAUSE: Mapping[str, float] = {MUSIC: 0.25, DENSE: 0.1}  # seconds, of each client
_CLIENTS = 2  # of each model
_MISTAKE_EVERY = 25
_PATIENCE = 1200.0  # torch compiles what it runs
_BEFORE, _FAULT, _BETWEEN, _PIN, _AFTER = 60.0, 40.0, 60.0, 40.0, 40.0


class Breakable:
    """A backend whose runs fail while it is told so."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.broken = threading.Event()

    @property
    def name(self) -> str:
        """See Backend.name."""
        return self._backend.name

    @property
    def precision(self) -> Precision:
        """See Backend.precision."""
        return self._backend.precision

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """See Backend.prepare."""
        self._backend.prepare(graph, stop)

    def load(self, graph: GraphSpec) -> LoadedGraph:
        """See Backend.load."""
        return _BreakableGraph(self._backend.load(graph), self.broken)


@dataclass
class _BreakableGraph:
    graph: LoadedGraph
    broken: threading.Event

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See LoadedGraph.run."""
        if self.broken.is_set():
            raise RunFailed("the device is lost")
        return self.graph.run(inputs, outputs)

    def close(self) -> None:
        """See LoadedGraph.close."""
        self.graph.close()


@dataclass
class Scene:
    """A server, what it runs on, and its clients."""

    server: Server
    backends: Mapping[str, Breakable]
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def page(self) -> str:
        """Its status page."""
        return f"http://127.0.0.1:{self.server.metrics_port}/"

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.server.port}"

    def wait_until_prepared(self) -> None:
        """Wait until every backend is there, or is known not to be possible."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            stages = {each["stage"] for model in _ROWS for each in self._status(model)["backends"]}
            if not stages & {"waiting", "preparing", "proving"}:
                return
            self.over.wait(1.0)

    def play(self) -> None:
        """Everything that happens; takes about four minutes."""
        self.over.wait(_BEFORE)
        broken = self.backends[self._selected(MUSIC)]
        broken.broken.set()
        self.over.wait(_FAULT)
        broken.broken.clear()
        self.over.wait(_BETWEEN)
        self._command("pin", MUSIC, next(iter(self.backends)))
        self.over.wait(_PIN)
        self._command("unpin", MUSIC)
        self.over.wait(_AFTER)

    def _command(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "converter", *arguments, "--server", self.address], check=True)

    def _status(self, model: str) -> dict[str, Any]:
        with urlopen(f"{self.page}status.json?model={model}", timeout=60) as reply:  # noqa: S310 - our own server
            told: dict[str, Any] = json.load(reply)
        return told

    def _selected(self, model: str) -> str:
        buckets = [bucket for signature in self._status(model)["signatures"] for bucket in signature["buckets"]]
        return next(str(bucket["selected"]) for bucket in buckets if bucket["rows"] == 1)


@contextmanager
def scene(folder: Path, cache: Path) -> Iterator[Scene]:
    """A server with both models and clients who ask all the time.

    Args:
        folder: For its models and its decisions.
        cache: For what backends compile, so that it need not be compiled the next time.
    """
    repository = folder / "models"
    write_heavy_package(repository / DENSE / "1", layers=4)
    convert = [sys.executable, "-m", "converter", str(fetch(MUSIC) / "nmp"), "--name", MUSIC]
    subprocess.run([*convert, "--repository", str(repository)], check=True, stdout=subprocess.DEVNULL)
    offer = offered(AUTO, "fp32", device="cpu", threads=0, cache=cache)
    backends = {backend.name: Breakable(backend) for backend in offer.backends}
    config = ServerConfig(
        repository=repository, port=0, metrics_port=0, lame_duck_seconds=0, admin=True, cache_folder=cache
    )
    server = Server(config, list(backends.values()))
    made = Scene(server, backends)
    clients = [threading.Thread(target=_ask, args=(made, model)) for model in _ROWS for _ in range(_CLIENTS)]
    try:
        server.start()
        for client in clients:
            client.start()
        yield made
    finally:
        made.over.set()
        for client in clients:
            client.join()
        server.stop()


def _ask(made: Scene, model: str) -> None:
    """Ask until it is over, now and then for what there is not."""
    generator = np.random.default_rng(0)
    shape, alias = ((_SAMPLES, 1), "input_2") if model == MUSIC else ((WIDTH,), "x")
    channels = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(made.address, channels) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
        number = 0
        while not made.over.wait(_PAUSE[model] * generator.exponential()):
            number += 1
            rows = _ROWS[model][number % len(_ROWS[model])]
            named = "no-such-input" if number % _MISTAKE_EVERY == 0 else alias
            values = generator.standard_normal((rows, *shape)).astype(np.float32)
            request = encode_predict_request({named: values}, name=model)
            try:
                predict(request, timeout=60)
            except grpc.RpcError as error:
                if named == alias:
                    print(error, file=sys.stderr)
