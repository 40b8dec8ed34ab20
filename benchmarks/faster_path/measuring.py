"""Times as a client sees them, of one server process: what it chose by itself, and each backend pinned in turn.

One client sends the same request again as soon as it is answered, so a batch is what one request holds.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc

from benchmarks.faster_path.judge import Measured
from benchmarks.load import METHOD
from benchmarks.soak.servers import ServerProcess, running
from protos.segue import admin_pb2
from server.engines.proof import golden_of
from server.repository.package import open_package
from server.signatures import DEFAULT_SIGNATURE
from server.wire.responses import encode_predict_request

ROWS: Final = (1, 4, 16)
"""Batch sizes; the server joins and proves these and no others."""
_BATCHING: Final = "max_batch_size { value: 16 } allowed_batch_sizes: 1 allowed_batch_sizes: 4 allowed_batch_sizes: 16"

_CALL_SECONDS = 300.0
_POLL_SECONDS = 0.25
_UNDECIDED = frozenset({"waiting", "preparing", "proving"})
_QUIET_SECONDS = 3.5  # the calibrator looks each second
_LEAST = 8  # batches of a settled choice


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take.

    Attributes:
        rounds: Of turns.
        seconds: Of a turn; a turn has two requests at the least.
        settling: The most seconds that a batch size is given to settle in.
    """

    rounds: int = 15
    seconds: float = 0.15
    settling: float = 40.0


class Client:
    """Asks one server for one model, and steers it."""

    def __init__(self, channel: grpc.Channel, model: str) -> None:
        self.model = model
        self._predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        self._overview: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/segue.Admin/GetOverview")
        self._set: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/segue.Admin/SetBackends")

    def turn(self, request: bytes, seconds: float, least: int = 2) -> list[float]:
        """Send a request again and again for so long, and so often at the least; returns seconds of each."""
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < least or time.perf_counter() < end:
            begin = time.perf_counter()
            self._predict(request, timeout=_CALL_SECONDS)
            taken.append(time.perf_counter() - begin)
        return taken

    def pin(self, backends: Sequence[str]) -> None:
        """Prefer backends; none lets the server choose."""
        request = admin_pb2.SetBackendsRequest(model=self.model, backends=backends)
        self._set(request.SerializeToString(), timeout=_CALL_SECONDS)

    def overview(self) -> dict[str, Any]:
        """What the server says of the model; see docs/status-page.md."""
        request = admin_pb2.GetOverviewRequest(model=self.model)
        reply = admin_pb2.GetOverviewReply.FromString(self._overview(request.SerializeToString(), timeout=60))
        told: dict[str, Any] = json.loads(reply.json)
        return told

    def selected(self, rows: int) -> str:
        """The backend that is selected for batches of so many rows; empty before the first."""
        buckets = self.overview()["signatures"][0]["buckets"]
        return next((bucket["selected"] for bucket in buckets if bucket["rows"] == rows), "")


@contextmanager
def serving(repository: Path, folder: Path, *options: str) -> Iterator[grpc.Channel]:
    """A channel to a server process that has all of this machine's backends, and knows nothing of them yet.

    Args:
        repository: What it serves.
        folder: For its log, its batching parameters and what backends compile.
        options: More of its command line.
    """
    batching = folder / "batching.pbtxt"
    batching.write_text(_BATCHING)
    settings = {
        "--backends": "auto",
        "--objective": "p50",  # what is judged
        "--state-folder": "",
        "--cache-folder": str(folder / "cache"),
        "--batching-parameters-file": str(batching),
    }
    given = [part for setting in settings.items() for part in setting]
    server = ServerProcess(repository, "--admin", *given, *options, log=folder / "server.log")
    with (
        running(server),
        grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel,
    ):
        yield channel


def wait_for_backends(client: Client, seconds: float) -> dict[str, str]:
    """Wait until every backend is proved or rejected; returns why some are not there, by name.

    Raises:
        TimeoutError: It takes too long.
    """
    end = time.monotonic() + seconds
    while True:
        backends = client.overview()["backends"]
        if not _UNDECIDED & {backend["stage"] for backend in backends}:
            return {one["name"]: one["reason"] for one in backends if one["stage"] == "rejected"}
        if time.monotonic() > end:
            raise TimeoutError(f"{client.model}: {[(one['name'], one['stage']) for one in backends]} after {seconds} s")
        time.sleep(_POLL_SECONDS)


def wait_for_calibration(client: Client, seconds: float) -> None:
    """Leave the server alone until it has tried on golden inputs what it wants to try, or for so long."""
    before, since, end = -1, time.monotonic(), time.monotonic() + seconds
    while (now := time.monotonic()) < end and now - since < _QUIET_SECONDS:
        (signature,) = client.overview()["signatures"]
        runs = sum(one["samples"] for bucket in signature["buckets"] for one in bucket["backends"])
        if runs != before:
            before, since = runs, now
        time.sleep(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that answers, before the client has pinned any; and whether it had stayed the same for a while."""

    backend: str
    settled: bool = True


def settle(client: Client, rows: int, request: bytes, pace: Pace) -> Choice:
    """Send requests until the choice has stayed for a while, or time is up; nothing may have been pinned before."""
    end, kept, last = time.monotonic() + pace.settling, 0, ""
    begin = time.monotonic()
    while time.monotonic() < end:
        sent = len(client.turn(request, pace.seconds / 2, least=1))
        now = client.selected(rows)
        kept, last = (kept + sent, now) if now == last else (0, now)
        if kept >= _LEAST and time.monotonic() - begin >= 4 * pace.seconds:
            return Choice(now)
    return Choice(last, settled=False)


def measure(client: Client, request: bytes, pace: Pace, choice: Choice, pinned: Sequence[str] = ()) -> Measured:
    """Take the times of one batch size: in each round a turn of every backend alone and one of what is judged.

    Pinned runs teach the server which backend is quick, for free. So its choice is settled before, in every batch size.

    Args:
        client: Of the server and the model.
        request: The same for all.
        pace: How long.
        choice: What is judged: what the server had chosen before anything was pinned.
        pinned: Prefer these backends while it serves, to judge a server that always does.
    """
    (signature,) = client.overview()["signatures"]
    backends = [one["backend"] for one in signature["buckets"][0]["backends"]]
    alone: dict[str, list[float]] = {name: [] for name in backends}
    chosen: list[float] = []
    for number in range(pace.rounds):
        for name in _turned([*backends, ""], number):
            client.pin([name] if name else pinned)
            taken = client.turn(request, pace.seconds)
            # The first third warms up what another backend has pushed out of the caches.
            typical = median(taken[len(taken) // 3 :])
            (alone[name] if name else chosen).append(typical)
    client.pin(())
    return Measured(alone, chosen, choice.backend, choice.settled)


def request_of(repository: Path, model: str, rows: int) -> bytes:
    """A request of so many golden rows."""
    package = open_package(model, 1, repository / model / "1")
    signature = next(each for each in package.manifest.signatures if each.name == DEFAULT_SIGNATURE)
    case = golden_of(signature, package.golden_arrays(), rows)
    if case is None:
        raise ValueError(f"{model}: its rows may not be joined to batches of {rows}")
    inputs: Mapping[str, Any] = case[0]
    return encode_predict_request(inputs, name=model)


def _turned(names: Sequence[str], number: int) -> list[str]:
    """Another one begins each round, and another one comes before each."""
    start = number % len(names)
    turned = [*names[start:], *names[:start]]
    return turned if number % 2 == 0 else turned[::-1]
