"""`convert-and-deploy pin`, `unpin` and `status`, as typed, of a real server with two backends and the real policy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from converter.exits import ExitCode
from examples.demo import free_port
from server.app import Server
from server.backends.catalogue import Offer
from server.backends.fake import Compute, FakeBackend
from server.backends.interface import Backend, Precision
from server.engines.ensemble import Stage
from tests.converter.commands.test_versions import typed
from tests.pages import right, wrong
from tests.servers import call, running, running_with

FIRST, OTHER = "first-cpu", "other-cpu"
PATIENCE = 3000


@contextmanager
def steered(folder: Path, **settings: Any) -> Iterator[Server]:
    """A server whose model "affine" is proved in two backends."""
    with judged(right, folder, **settings) as (server, stage):
        assert stage is Stage.ELIGIBLE
        yield server


@contextmanager
def judged(other: Compute, folder: Path, **settings: Any) -> Iterator[tuple[Server, Stage]]:
    """A server of "affine", and what became of its second backend there."""
    backends: list[Backend] = [FakeBackend(right, FIRST), FakeBackend(other, OTHER)]
    with running_with(backends, folder, **{"admin": True, **settings}) as server:
        with server.models.acquire("affine").leased() as servable:
            for _ in range(PATIENCE):
                stages = {candidate.backend: candidate.stage for candidate in servable.ensemble.candidates()}
                if stages.get(OTHER) in {Stage.ELIGIBLE, Stage.REJECTED}:
                    break
                servable.ensemble.ended.wait(0.01)
            else:
                raise AssertionError(f"nothing became of {OTHER}: {servable.ensemble.candidates()}")
        yield server, stages[OTHER]


def address(server: Server) -> str:
    """As it is typed."""
    return f"localhost:{server.port}"


def ask(server: Server) -> None:
    """One request of one row."""
    with grpc.insecure_channel(address(server)) as channel:
        call(channel)


def serves(server: Server) -> list[str]:
    """The row of the backend that answers single rows, as `status` prints it."""
    code, printed = typed("status", "affine", "--server", address(server))
    assert code == ExitCode.DONE
    (row,) = [cells for line in printed.splitlines() if (cells := line.split())[:1] == ["1"] and cells[-1] == "serves"]
    return row


def test_what_is_pinned_answers_until_it_is_unpinned(tmp_path: Path) -> None:
    """From the next request on; `status` tells who serves, what is pinned, and each switch with its reason."""
    with steered(tmp_path) as server:
        for backend in (FIRST, OTHER):
            said = typed("pin", "affine", backend, "--server", address(server))
            assert said == (ExitCode.DONE, f"affine: pinned to {backend}.\n")
            ask(server)
            assert serves(server)[1] == backend
        _, printed = typed("status", "affine", "--server", address(server))
        assert f"\npinned to {OTHER}\n" in printed
        assert f" UTC, 1 rows: {FIRST} -> {OTHER}: pinned to {OTHER}\n" in printed
        said = typed("unpin", "affine", "--server", address(server))
        assert said == (ExitCode.DONE, f"affine: the server chooses (it was pinned to {OTHER}).\n")
        _, printed = typed("status", "affine", "--server", address(server))
        assert "\npinned to" not in printed
        said = typed("unpin", "affine", "--server", address(server))
        assert said == (ExitCode.DONE, "affine: the server chooses (it was not pinned).\n")


def test_a_pin_is_an_order_of_preference(tmp_path: Path) -> None:
    """The list of all models tells it, for people and, as JSON, for programs."""
    with steered(tmp_path) as server:
        code, printed = typed("pin", "affine", OTHER, FIRST, "--server", address(server))
        assert (code, printed) == (ExitCode.DONE, f"affine: pinned to {OTHER}, then {FIRST}.\n")
        code, printed = typed("status", "--server", address(server))
        assert code == ExitCode.DONE
        (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("affine")]
        assert row == ["affine", "1", "AVAILABLE", f"{OTHER},", FIRST]
        _, printed = typed("status", "--json", "--server", address(server))
        assert [model["pinned"] for model in json.loads(printed)["models"]] == [[OTHER, FIRST]]


def test_what_cannot_answer_is_pinned_with_a_word_about_it(tmp_path: Path) -> None:
    """It may be able to in another version; until then an operator should not believe that it answers."""
    with judged(wrong, tmp_path) as (server, stage):
        assert stage is Stage.REJECTED
        code, printed = typed("pin", "affine", OTHER, "--server", address(server))
        assert code == ExitCode.DONE
        first, second = printed.splitlines()
        assert first == f"affine: pinned to {OTHER}."
        assert second.startswith(f"{OTHER} does not answer for version 1 (rejected, ")
        assert second.endswith("; until it does, others do.")
        ask(server)
        assert serves(server)[1] == FIRST


def test_a_pin_holds_after_a_restart(tmp_path: Path) -> None:
    """Whoever has overruled the server need not do it again."""
    kept = {"port": free_port(), "state_folder": tmp_path / "state"}
    with steered(tmp_path / "models", **kept) as server:
        typed("pin", "affine", OTHER, "--server", address(server))
    with steered(tmp_path / "models", **kept) as server:
        ask(server)
        assert serves(server)[1] == OTHER


def test_status_counts_and_times_each_backend(tmp_path: Path) -> None:
    """A row for each backend and batch size: runs that answered, and their milliseconds; 0 for who was not asked."""
    with steered(tmp_path) as server:
        typed("pin", "affine", OTHER, "--server", address(server))
        for _ in range(25):
            ask(server)
        _, backend, runs, p50, p95, *_ = serves(server)
        assert (backend, runs) == (OTHER, "25")
        assert 0 < float(p50) <= float(p95)
        _, printed = typed("status", "affine", "--server", address(server))
    lines = [line.split() for line in printed.splitlines()]
    assert ["rows", "backend", "runs", "p50", "p95", "expected", "state"] in lines
    (row,) = [cells for cells in lines if cells[:2] == ["1", FIRST]]
    assert row[2] == "0"
    assert f"  {OTHER}  eligible, off by 0.0e+00\n" in printed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pin", "affine", "nobody-cpu"], "this server has no backend 'nobody-cpu'; it has first-cpu, other-cpu"),
        (["pin", "nobody", FIRST], "NOT_FOUND: Could not find any versions of model nobody"),
        (["unpin", "nobody"], "NOT_FOUND: Could not find any versions of model nobody"),
        (["status", "nobody"], "NOT_FOUND: Could not find any versions of model nobody"),
    ],
)
def test_what_there_is_not_is_refused(tmp_path: Path, arguments: list[str], text: str) -> None:
    """With what there is, and an exit code; nothing is pinned."""
    with steered(tmp_path) as server:
        code, printed = typed(*arguments, "--server", address(server))
        assert code == ExitCode.SERVER
        assert text in printed
        _, printed = typed("status", "--json", "--server", address(server))
        assert [model["pinned"] for model in json.loads(printed)["models"]] == [[]]


@pytest.mark.parametrize(("precision", "allowed"), [("fp32,other=bf16", "fp32"), ("bf16,affine=fp16", "fp32, fp16")])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_precision_that_is_not_allowed_for_a_model_cannot_be_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, allowed: str, *, loaded: bool
) -> None:
    """Whether or not another model has such a backend; it says what may be pinned, and what would allow it."""
    coarse = FakeBackend(right, f"{FIRST}-bf16")
    coarse.precision = Precision.BF16
    backends: list[Backend] = [FakeBackend(right, FIRST), coarse]
    monkeypatch.setattr("server.runtimes.offered", lambda *_, **__: Offer(backends[: 1 + loaded]))
    with running(tmp_path, admin=True, precision=precision, cache_folder=tmp_path / "cache") as server:
        code, printed = typed("pin", "affine", coarse.name, "--server", address(server))
        assert code == ExitCode.SERVER
        said = f"model affine may not be computed in bf16, as {coarse.name} does; it may in {allowed}. "
        assert said + "To allow it, set affine=bf16 in the server's --precision" in printed
        _, printed = typed("status", "--json", "--server", address(server))
        assert [model["pinned"] for model in json.loads(printed)["models"]] == [[]]


@pytest.mark.parametrize("arguments", [["pin", "affine", FIRST], ["unpin", "affine"]])
def test_a_server_without_admin_lets_nobody_pin(tmp_path: Path, arguments: list[str]) -> None:
    """It says how it would; `status` changes nothing, and is answered."""
    with running(tmp_path) as server:
        code, printed = typed(*arguments, "--server", address(server))
        assert code == ExitCode.SERVER
        assert "Start the server with --admin" in printed
        code, printed = typed("status", "--server", address(server))
        assert code == ExitCode.DONE
        assert "affine" in printed


@pytest.mark.parametrize("arguments", [["pin", "affine", FIRST], ["unpin", "affine"], ["status"]])
def test_no_server_is_said_with_what_to_do(arguments: list[str]) -> None:
    """Where was asked, and how to give another address."""
    nobody = f"localhost:{free_port()}"
    code, printed = typed(*arguments, "--server", nobody)
    assert code == ExitCode.SERVER
    assert f"No server answers at {nobody}" in printed
    assert "Start one with segue-server, or give its --server address." in printed
