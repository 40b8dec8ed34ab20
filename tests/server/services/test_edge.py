"""Tests of `server.services.edge`: whatever becomes of a call, what it held comes back, and it ends once."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import pytest

from server.errors import InvalidRequest, RunFailed
from server.services.authorisation import REFUSAL
from server.services.edge import MOST_BYTES as MOST_IMMEDIATE
from server.services.transport import Rpc
from tests.server.services.edges import (
    CHECK,
    METADATA,
    MOST_BYTES,
    PREDICT,
    SECONDS,
    Held,
    Models,
    serving,
)
from tests.threads import no_threads

Code = grpc.StatusCode


def failing(error: Exception) -> Callable[..., NoReturn]:
    """A step that fails."""

    def fail(*_: object) -> NoReturn:
        raise error

    return fail


def test_a_quick_request_is_answered_in_the_polling_thread() -> None:
    """No worker has a part in it, and no byte is counted for it."""
    threads: list[str] = []

    def answer() -> bytes:
        threads.append(threading.current_thread().name)
        return b"quick"

    with serving(Models(answer_now=answer, answer=failing(AssertionError()))) as served:
        assert served.start().result(SECONDS) == b"quick"
        served.check_settled(["OK"])
    assert threads == ["grpc"]


def test_any_other_request_is_answered_by_a_worker() -> None:
    """Its bytes and those of its arrays are held until then."""
    held = Held()
    with serving(Models(answer=held)) as served:
        call = served.start(b"12345")
        held.wait()
        assert served.budget.held == 5 + 100
        held.let_go()
        assert call.result(SECONDS) == b"answer"
        served.check_settled(["OK"])
        assert served.told.ended[0][1:] == (5, len(b"answer"))
    assert served.models.threads == ["grpc"]


def test_a_large_request_is_looked_into_by_a_worker() -> None:
    """The polling thread does not parse it; its arrays count from when they are known."""
    held = Held()
    with serving(Models(plain=False, answer=held, answer_now=failing(AssertionError()))) as served:
        call = served.start(b"12345")
        held.wait()
        assert served.budget.held == 5 + 100
        held.let_go()
        assert call.result(SECONDS) == b"answer"
        served.check_settled(["OK"])
    assert served.models.threads == ["model-1"]


ERRORS: list[tuple[Exception, Code, str]] = [
    (InvalidRequest("why"), Code.INVALID_ARGUMENT, "why"),
    (RunFailed("how"), Code.INTERNAL, "how"),
    (MemoryError(), Code.RESOURCE_EXHAUSTED, "the server has not the memory for this request now"),
    (ZeroDivisionError("a secret"), Code.INTERNAL, "internal error, reference "),
]
STEPS: dict[str, Callable[[Exception], Models]] = {
    "prepare": lambda error: Models(check=failing(error)),
    "prepare, in a worker": lambda error: Models(plain=False, check=failing(error)),
    "answer_now": lambda error: Models(answer_now=failing(error)),
    "answer": lambda error: Models(answer=failing(error)),
    "answer, of a large request": lambda error: Models(plain=False, answer=failing(error)),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("error", "code", "text"), ERRORS)
def test_an_error_in_any_step_is_told_once(step: str, error: Exception, code: Code, text: str) -> None:
    """With its own status, or an id in place of what is nobody's business; and nothing is kept."""
    with serving(STEPS[step](error)) as served:
        found, details = served.failure()
        assert found is code
        assert details is not None
        assert details.startswith(text)
        assert "secret" not in details
        served.check_settled([code.name])


def test_a_queue_that_is_full_gives_back_what_it_refuses() -> None:
    """The client is told not to come again at once; those before it are answered."""
    held = Held()
    with serving(Models(answer=held), waiting=1) as served:
        running = served.start()
        held.wait()
        waiting = served.start()
        served.until_queued(2)
        refused: Any = served.start().exception(SECONDS)
        assert refused.code() is Code.UNAVAILABLE
        assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
        held.let_go()
        assert [call.result(SECONDS) for call in (running, waiting)] == [b"answer"] * 2
        served.check_settled(["OK", "OK", "UNAVAILABLE"])


@pytest.mark.parametrize("plain", [True, False])
def test_bytes_in_flight_are_bounded(plain: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What would hold more than is left is refused, and holds nothing afterwards."""
    held = Held()
    with serving(Models(answer=held)) as served:
        running = served.start()
        held.wait()
        served.models.memory = MOST_BYTES
        served.models.plain = plain
        refused = served.start()
        if plain:
            assert refused.exception(SECONDS) is not None  # while the other one runs
        else:
            third = served.start(b"x" * 10)  # holds its bytes while the second's arrays are asked for
            assert served.budget.wait_for((7 + 100) + 7 + 10)
        held.let_go()
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert running.result(SECONDS) == b"answer"
        if not plain:
            assert third.result(SECONDS) == b"answer"
        served.check_settled(["OK", "RESOURCE_EXHAUSTED"] + ["OK"] * (not plain))


def test_a_client_that_goes_while_it_waits_costs_no_run() -> None:
    """What it held comes back when its turn comes, and its end is told as CANCELLED."""
    held, gone = Held(), threading.Event()
    with serving(Models(answer=held)) as served:
        running = served.start()
        held.wait()
        served.models.check = lambda rpc: rpc.when_over(gone.set)
        waiting = served.start()
        served.until_queued(2)
        waiting.cancel()
        assert gone.wait(SECONDS)
        served.models.answer = failing(AssertionError())
        held.let_go()
        assert running.result(SECONDS) == b"answer"
        served.check_settled(["OK", "CANCELLED"])


def test_a_request_whose_time_is_over_in_the_queue_is_not_run() -> None:
    """Its turn comes after its deadline: it is refused with TensorFlow Serving's text."""
    held = Held()
    with serving(Models(answer=held)) as served:
        running = served.start(timeout=3600)
        held.wait()
        waiting = served.start()
        served.until_queued(2)
        served.clock.ahead = 2 * SECONDS
        held.let_go()
        assert waiting.exception(SECONDS) is not None
        assert waiting.details() == "Run() timeout exceeded while waiting in batching queue"
        assert running.result(SECONDS) == b"answer"
        served.check_settled(["OK", waiting.code().name])


def test_a_large_reply_counts_until_it_is_taken() -> None:
    """A client that reads nothing holds the server's memory, and the server knows."""
    size = 16 << 20
    with serving(Models(answer=lambda: bytes(size))) as served:
        stub: grpc.UnaryStreamMultiCallable[bytes, bytes] = served.channel.unary_stream(PREDICT)
        reply = stub(b"request", timeout=SECONDS)
        assert served.budget.wait_for(size)
        assert len(next(reply)) == size
        served.check_settled(["OK"])


def test_a_large_reply_of_a_client_that_goes_is_let_go() -> None:
    """Also if nobody ever takes it."""
    size = 16 << 20
    with serving(Models(answer=lambda: bytes(size))) as served:
        stub: grpc.UnaryStreamMultiCallable[bytes, bytes] = served.channel.unary_stream(PREDICT)
        reply = stub(b"request", timeout=SECONDS)
        assert served.budget.wait_for(size)
        reply.cancel()
        served.check_settled(["OK"])


def test_something_slow_in_the_polling_thread_stops_nobody_else() -> None:
    """A deputy takes over: health is answered, and other requests go to workers, as it must not run them."""
    held = Held(b"slow")
    with serving(Models(answer_now=held)) as served:
        slow = served.start()
        held.wait()
        assert served.start(b"Check", method=CHECK).result(SECONDS) == b"CHECK"
        assert served.start().result(SECONDS) == b"answer"
        held.let_go()
        assert slow.result(SECONDS) == b"slow"
        served.check_settled(["OK", "OK"])
    assert served.models.threads == ["grpc", "grpc-deputy"]


def test_methods_in_workers_hold_their_weight() -> None:
    """A method of a service is run by workers, with so many bytes for each of its request's."""
    held = Held()
    with serving(Models(), methods={"GetModelMetadata": lambda data, _rpc: data + held()}) as served:
        call = served.start(b"12345", method=METADATA)
        held.wait()
        assert served.budget.held == 3 * 5
        held.let_go()
        assert call.result(SECONDS) == b"12345answer"
        served.check_settled(["OK"])


@pytest.mark.parametrize("method", [PREDICT, METADATA])
def test_a_call_without_a_message_is_told(method: str) -> None:
    """It ends at once, with nothing held."""
    with serving(Models(), methods={"GetModelMetadata": lambda data, _rpc: data}) as served:
        stub: grpc.StreamUnaryMultiCallable[bytes, bytes] = served.channel.stream_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            stub(iter(()), timeout=SECONDS)
        assert caught.value.code() is Code.UNIMPLEMENTED
        served.check_settled(["UNIMPLEMENTED"])


def test_immediate_methods_are_small_and_tell_nobody() -> None:
    """Health is asked too often to be watched, and its request has no reason to be large."""
    with serving(Models()) as served:
        assert served.start(b"abc", method=CHECK).result(SECONDS) == b"ABC"
        code, text = served.failure(b"x" * (MOST_IMMEDIATE + 1), method=CHECK)
        assert code is Code.INVALID_ARGUMENT
        assert f"at most {MOST_IMMEDIATE}" in str(text)
        assert not served.told.begun


def test_unknown_methods_are_told_apart_from_closed_gates() -> None:
    """Behind a gate that is closed nothing is begun, whatever was called."""
    with serving(Models(check=failing(AssertionError()))) as served:
        assert served.failure(method="/some.Service/None") == (Code.UNIMPLEMENTED, "Method not found!")
        served.gate.is_open = False
        for method in (PREDICT, CHECK, "/some.Service/None"):
            assert served.failure(method=method) == (Code.UNAUTHENTICATED, REFUSAL)
        served.check_settled([])


def test_many_calls_at_once_leave_nothing() -> None:
    """Answers, errors, refusals and clients that go, mixed as they come: every one ends once."""
    turns = itertools.count()

    def answer() -> bytes:
        if next(turns) % 3 == 0:
            raise InvalidRequest("no")
        return bytes(1 << 15)

    def check(_rpc: Rpc) -> None:
        if next(turns) % 7 == 0:
            raise InvalidRequest("never")

    with serving(Models(answer=answer, check=check), waiting=3) as served:
        calls = [served.start() for _ in range(300)]
        for call in calls[::5]:
            call.cancel()
        codes = {call.code() for call in calls}  # waits for each
        assert codes >= {Code.OK, Code.INVALID_ARGUMENT, Code.CANCELLED}
        served.check_ended()


def test_without_a_thread_a_call_is_refused_and_holds_nothing() -> None:
    """At the system's limit a client is told so at once; the server goes on when threads can be had again."""
    with serving(Models()) as served:
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(PREDICT)
        with no_threads(), pytest.raises(grpc.RpcError) as caught:
            stub(b"request", timeout=SECONDS)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert served.budget.wait_for(0)
        assert stub(b"request", timeout=SECONDS) == b"answer"
        served.check_settled(["OK", "RESOURCE_EXHAUSTED"])
