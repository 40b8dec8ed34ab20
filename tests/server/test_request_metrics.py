"""Tests of `server.request_metrics`; what a server exposes of requests is in test_metrics.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server import errors
from server.app import Server
from server.calls import Call
from server.errors import Overloaded
from server.lifecycle.states import State, VersionStatus
from server.metrics import Metrics
from server.request_metrics import REASONS, RequestTimer
from tests.servers import PREDICT, running


def leaves(kind: type[Overloaded]) -> set[type[Overloaded]]:
    """The errors that are raised."""
    below = kind.__subclasses__()
    return {leaf for each in below for leaf in leaves(each)} if below else {kind}


def test_every_refusal_has_a_reason() -> None:
    """A kind of overload that is new has a label of its own, and no other error has one."""
    assert leaves(errors.Overloaded) == REASONS.keys()
    assert len(set(REASONS.values())) == len(REASONS)


def test_a_request_that_outlives_its_version_begins_no_series() -> None:
    """What ends after its version was taken away is answered, and forgotten."""
    metrics = Metrics()
    metrics.status_changed("m", VersionStatus(1))
    early = metrics.timer("m", 1, "s", "b")
    assert metrics.timer("m", 1, "s", "b") is early
    metrics.status_changed("m", VersionStatus(1, State.END))
    late = metrics.timer("m", 1, "s", "b")
    late.answered(None, 0.0, 0.5, 1.0)
    assert late is not early
    assert b'model="m"' not in metrics.page()


class Nobody:
    """A call's source."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Nothing."""
        return ()

    def peer(self) -> str:
        """Nobody."""
        return ""


def test_a_request_is_in_the_stages_that_it_went_through() -> None:
    """One that waited for nothing is in no queue; one that waited for both is in both, with the right times."""
    timer, call = RequestTimer(), Call("s/Predict", Nobody())
    call.run_on("b", 4, (1.25, 2.0))
    timer.ran(call, 1.25, 2.0)
    assert [timer.queue.snapshot().count, timer.batch.snapshot().count, timer.run.snapshot().sum] == [0, 0, 0.75]
    call.queued, call.taken, call.started = 0.5, 0.75, 1.5
    call.run_on("b", 4, (1.5, 2.5))
    timer.ran(call, 1.25, 2.5)
    timer.answered(call, 0.0, 2.5, 3.0)
    sums = [
        getattr(timer, stage).snapshot().sum for stage in ("queue", "batch", "run", "encode", "together", "latency")
    ]
    assert sums == [0.25, 0.25, 1.75, 0.5, 2.0, 3.0]
    assert not timer.exemplars, "the request was not traced"


@dataclass
class Asking:
    """A call that is answered in the thread that begins it; see services.transport.Rpc."""

    data: bytes
    method: bytes = b"/tensorflow.serving.PredictionService/Predict"
    deadline: float = float("inf")
    cancelled: bool = False
    code: Any = None

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """The message is there already."""
        then(self.data)

    def end(self, code: Any, *_: Any) -> None:
        """Note how it ends."""
        self.code = code

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Nothing."""
        return ()

    def peer(self) -> str:
        """Nobody."""
        return ""


@pytest.mark.parametrize("names", [50_000, pytest.param(1_000_000, marks=pytest.mark.prove)])
def test_names_that_clients_make_up_take_no_series(tmp_path: Path, names: int) -> None:
    """Models are asked for that are not there: the page stays as long as it was after the first."""

    def ask(server: Server, number: int) -> None:
        rpc = Asking(PREDICT.replace(b"affine", b"%06d" % number))
        server._rpc._begin(rpc)  # type: ignore[arg-type]  # it has what is used of one
        assert rpc.code.name == "NOT_FOUND"

    with running(tmp_path) as server:
        ask(server, 0)
        before = _series(server)
        for number in range(1, names):
            ask(server, number)
        assert _series(server) == before
        (count,) = [s for s in server._metrics.page().decode().splitlines() if s.startswith("segue_requests_total{")]
    assert count == f'segue_requests_total{{code="NOT_FOUND",method="Predict",model=""}} {names}.0'


def _series(server: Server) -> list[str]:
    """Each line of the page without its value."""
    return [line.rpartition(" ")[0] for line in server._metrics.page().decode().splitlines()]
