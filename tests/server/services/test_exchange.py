"""Tests of `server.services.exchange`: one end for each request, at moments that no real call hits on demand."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from server import calls
from server.admission import Budget
from server.errors import ExpiredInQueue, InvalidRequest, QueueFull, SegueError, TooLate
from server.metrics import Metrics
from server.services.exchange import Errand, Exchange
from server.services.statuses import Code
from server.services.transport import Metadata
from tests.server.services.edges import Told

LARGE = 1 << 14


class FakeRpc:
    """What an Rpc is to an exchange; the client takes a reply when it is told to."""

    cancelled = False
    deadline = 7.0

    def __init__(self) -> None:
        self.ends: list[tuple[grpc.StatusCode, str, bytes, Metadata | None]] = []
        self.taken: list[Callable[[], None]] = []

    def invocation_metadata(self) -> Metadata:
        """See Rpc."""
        return (("x-request-id", "mine"),)

    def peer(self) -> str:
        """See Rpc."""
        return "ipv4:127.0.0.1:1"

    def reply(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """See Rpc."""
        self.ends.append((Code.OK, "", message, None))
        if sent is not None:
            self.taken.append(sent)

    def end(
        self, code: grpc.StatusCode, text: str = "", message: bytes = b"", trailing: Metadata | None = None
    ) -> None:
        """See Rpc."""
        self.ends.append((code, text, message, trailing))


class Parts:
    """An exchange, and what it works with."""

    def __init__(self, **options: Any) -> None:
        self.rpc = FakeRpc()
        self.budget = Budget(100)
        self.told = Told()
        self.metrics = Metrics()
        rpc: Any = self.rpc
        self.exchange = Exchange(
            "Predict", "s/Predict", rpc, 5, metrics=self.metrics, budget=self.budget, watchers=[self.told], **options
        )
        self.freed = 0

    def errand(self, answer: Callable[[], bytes]) -> Errand:
        """The exchange as work."""

        def let_go() -> None:
            assert calls.current() is self.exchange.call  # so that what is logged then is known to be of it
            self.freed += 1

        return Errand(self.exchange, answer, let_go)


@pytest.fixture(autouse=True)
def _no_call() -> Iterator[None]:
    """Tests work on no call before and after."""
    calls.leave()
    yield
    calls.leave()


def failing() -> bytes:
    """An answer that there is not."""
    raise InvalidRequest("why")


def test_a_large_reply_is_held_until_it_is_taken() -> None:
    """A small one is not counted: streams bound those."""
    parts = Parts()
    parts.exchange.reply(bytes(LARGE))
    assert parts.budget.held == LARGE
    (sent,) = parts.rpc.taken
    sent()
    assert parts.budget.held == 0
    small = Parts()
    small.exchange.reply(bytes(LARGE - 1))
    assert (small.budget.held, small.rpc.taken) == (0, [])


@pytest.mark.parametrize(("answer", "code"), [(lambda: b"answer", Code.OK), (failing, Code.INVALID_ARGUMENT)])
def test_an_errand_ends_its_exchange_and_lets_go(answer: Callable[[], bytes], code: grpc.StatusCode) -> None:
    """Once, well or not; the thread that ran it works on nothing afterwards, and knew what it worked on."""
    parts = Parts()
    seen: list[object] = []

    def watched() -> bytes:
        seen.append(calls.current())
        return answer()

    errand = parts.errand(watched)
    calls.leave()
    errand.run()
    assert [end[0] for end in parts.rpc.ends] == [code]
    assert [call.code for call, _, _ in parts.told.ended] == [code.name]
    assert parts.freed == 1
    assert seen == [parts.exchange.call]
    assert calls.current() is None
    assert 0 < parts.exchange.call.queued <= parts.exchange.call.taken


@pytest.mark.parametrize(
    ("error", "code", "trailing"),
    [
        (QueueFull("full"), Code.UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),)),
        (ExpiredInQueue("late"), Code.RESOURCE_EXHAUSTED, None),
    ],
)
def test_an_errand_that_is_refused_is_not_run(error: SegueError, code: Code, trailing: Metadata | None) -> None:
    """It lets go all the same; only a full queue asks not to be tried again at once."""
    parts = Parts()
    parts.errand(lambda: pytest.fail("it was run")).refuse(error)
    assert parts.rpc.ends == [(code, error.message, b"", trailing)]
    assert parts.freed == 1
    assert calls.current() is None
    assert parts.metrics.requests() == {("Predict", "", code.name): 1}


def test_a_reply_that_was_sent_is_followed_by_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that fails after the answer went out does not make it count as an error, and nothing stays held."""

    def fail(*_: object) -> None:
        raise RuntimeError("a watcher's fault")

    parts = Parts()
    monkeypatch.setattr(parts.told, "end", fail)
    with pytest.raises(RuntimeError, match="a watcher's fault"):
        parts.errand(lambda: b"answer").run()
    assert [end[0] for end in parts.rpc.ends] == [Code.OK]
    assert parts.metrics.requests() == {}
    assert parts.freed == 1


def test_an_error_may_have_a_message_of_its_own() -> None:
    """Methods whose message tells the status too send it before the status; its size is told."""
    parts = Parts(error_reply=lambda code, text: f"{code.name} {text}".encode())
    parts.exchange.fail(InvalidRequest("why"))
    message = b"INVALID_ARGUMENT why"
    assert parts.rpc.ends == [(Code.INVALID_ARGUMENT, "why", message, None)]
    assert [end[1:] for end in parts.told.ended] == [(5, len(message))]


def test_what_is_unexpected_is_logged_with_its_reference(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets the id by which the trace is found, and nothing of the trace."""
    parts = Parts()
    parts.exchange.fail(ZeroDivisionError("a secret"))
    ((code, text, _, _),) = parts.rpc.ends
    assert code is Code.INTERNAL
    assert text == "internal error, reference mine: see the server's log"
    assert "reference mine" in caplog.text
    assert "a secret" in caplog.text


def too_late() -> bytes:
    """What was refused before its run."""
    raise TooLate("m", 0, 2.0, 1.0)


@pytest.mark.parametrize(("answer", "counts"), [(lambda: b"answer", True), (failing, True), (too_late, False)])
def test_an_errand_tells_whether_its_time_counts(answer: Callable[[], bytes], *, counts: bool) -> None:
    """What was refused for its deadline took none: it says nothing of how long the model takes."""
    assert Parts().errand(answer).run() is counts


def test_an_errand_knows_whether_somebody_waits() -> None:
    """The queue asks for the deadline once it is there, and whether the client has gone when its turn comes."""
    parts = Parts()
    errand = parts.errand(lambda: b"")
    assert errand.deadline == parts.rpc.deadline
    assert not errand.cancelled
    parts.rpc.cancelled = True
    assert errand.cancelled
