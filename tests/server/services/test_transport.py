"""Tests of `server.services.transport` through grpcio's own client."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.services.transport import Rpc, RpcServer

Code = grpc.StatusCode
SECONDS = 20


@contextmanager
def serving(begin: Callable[[Rpc], None]) -> Iterator[tuple[RpcServer, grpc.Channel]]:
    """A server that gives its calls to a function, and a client of it."""
    server = RpcServer([("grpc.so_reuseport", 0)])
    server.begin_calls_with(begin)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, channel
    server.stop(None)


def unary(channel: grpc.Channel, method: str = "/s/m") -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    """A method that takes and returns bytes."""
    return channel.unary_unary(method)


def echo(call: Rpc) -> None:
    """Answers with the request."""
    call.receive(lambda data: call.reply(data or b""))


def test_a_call_is_answered() -> None:
    """Bytes go in and out; method, deadline, headers and address are known."""
    seen: list[Rpc] = []

    def begin(call: Rpc) -> None:
        seen.append(call)
        echo(call)

    with serving(begin) as (_, channel):
        assert unary(channel)(b"abc", timeout=SECONDS, metadata=(("x-request-id", "7"),)) == b"abc"
        assert unary(channel)(b"", timeout=None) == b""
    assert seen[0].method == b"/s/m"
    assert ("x-request-id", "7") in [(key, value) for key, value in seen[0].metadata]
    assert seen[0].peer().startswith("ipv4:127.0.0.1:")
    assert seen[0].deadline < float("inf")
    assert seen[1].deadline == float("inf")


def test_a_call_ends_with_a_status() -> None:
    """Code, text and trailing metadata arrive; a second end changes nothing."""

    def begin(call: Rpc) -> None:
        call.end(Code.UNAVAILABLE, "why\u00e4", trailing=(("grpc-retry-pushback-ms", "-1"),))
        call.end(Code.INTERNAL, "never")
        call.reply(b"never")

    with serving(begin) as (_, channel), pytest.raises(grpc.RpcError) as caught:
        unary(channel)(b"", timeout=SECONDS)
    assert (caught.value.code(), caught.value.details()) == (Code.UNAVAILABLE, "why\u00e4")
    trailing: Any = caught.value.trailing_metadata()
    assert dict(trailing)["grpc-retry-pushback-ms"] == "-1"


def test_any_thread_may_answer() -> None:
    """The polling thread goes on while others work on calls."""
    both = threading.Barrier(2)

    def begin(call: Rpc) -> None:
        def then(data: bytes | None) -> None:
            threading.Thread(target=answer, args=(data or b"",)).start()

        def answer(data: bytes) -> None:
            both.wait(SECONDS)  # passes only when two calls are in work at once
            call.reply(data)

        call.receive(then)

    with serving(begin) as (_, channel):
        futures = [unary(channel).future(bytes([n]), timeout=SECONDS) for n in range(2)]
        assert [future.result() for future in futures] == [b"\0", b"\1"]


def until_the_deputy_rests() -> None:
    """Wait until the newest server's deputy has slept for as long as ten of its looks would take.

    While it looks it gives up its processor for each look, which the system counts (proc_pid_status(5)).
    """
    deputy = [each for each in threading.enumerate() if each.name == "grpc-deputy"][-1]
    status = Path(f"/proc/self/task/{deputy.native_id}/status")

    def looks() -> list[str]:
        return re.findall(r"^voluntary_ctxt_switches.*", status.read_text(), re.MULTILINE)

    end = time.monotonic() + SECONDS
    before: list[str] = []
    while (now := looks()) != before:
        assert time.monotonic() < end
        before = now
        time.sleep(0.2)


@pytest.mark.parametrize("rested", [False, True])
def test_a_polling_thread_that_is_away_is_stood_in_for(*, rested: bool) -> None:
    """Something slow that was taken for quick costs no other call its answer; the deputy is told not to do the same.

    A server that has nothing to do lets its deputy sleep, and wakes it in time.
    """
    away, back = threading.Event(), threading.Event()
    here: list[bool] = []

    def begin(call: Rpc) -> None:
        def then(data: bytes | None) -> None:
            if data == b"slow":
                away.set()
                assert back.wait(SECONDS)
            else:
                here.append(server.may_answer_here())
            call.reply(data or b"")

        call.receive(then)

    with serving(begin) as (server, channel):
        if rested:
            until_the_deputy_rests()
        slow = unary(channel).future(b"slow", timeout=SECONDS)
        assert away.wait(SECONDS)
        assert unary(channel)(b"other", timeout=SECONDS) == b"other"
        back.set()
        assert slow.result() == b"slow"
        while not here[-1]:  # until the deputy has noticed, which takes it a moment
            unary(channel)(b"other", timeout=SECONDS)
    assert here[0] is False


def test_a_client_that_goes_is_noticed() -> None:
    """A cancelled call says so, its end is told once, and an answer to it is no error."""
    begun, over = threading.Event(), threading.Event()
    calls: list[Rpc] = []

    def begin(call: Rpc) -> None:
        def then(_data: bytes | None) -> None:
            calls.append(call)
            call.when_over(over.set)
            begun.set()

        call.receive(then)

    with serving(begin) as (_, channel):
        future = unary(channel).future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        before = calls[0].cancelled
        future.cancel()
        assert over.wait(SECONDS)
        assert (before, calls[0].cancelled) == (False, True)
        calls[0].reply(b"late")
        calls[0].end(Code.OK)


def test_a_client_without_a_message_is_noticed() -> None:
    """A stream that a client closes at once gives None."""
    got: list[bytes | None] = []

    def begin(call: Rpc) -> None:
        def then(data: bytes | None) -> None:
            got.append(data)
            call.end(Code.UNIMPLEMENTED, "one message, please")

        call.receive(then)

    with serving(begin) as (_, channel):
        stream: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/s/m")
        with pytest.raises(grpc.RpcError) as caught:
            stream(iter(()), timeout=SECONDS)
    assert caught.value.code() is Code.UNIMPLEMENTED
    assert got == [None]


def test_a_stream_sends_message_after_message() -> None:
    """Each goes out when the one before has; then the status."""

    def begin(call: Rpc) -> None:
        def go_on(number: int) -> None:
            if number < 5:
                call.send(bytes([number]), lambda: go_on(number + 1))
            else:
                call.end(Code.OK)

        call.receive(lambda _data: go_on(0))

    with serving(begin) as (_, channel):
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/s/m")
        assert list(stream(b"", timeout=SECONDS)) == [bytes([n]) for n in range(5)]


def stopped(server: RpcServer) -> bool:
    """Whether the server takes no more calls."""
    with server._lock:
        return server._stopping


def test_stop_waits_for_calls_and_takes_no_new_ones() -> None:
    """What is in work at the end is answered."""
    begun = threading.Event()
    calls: list[Rpc] = []

    def begin(call: Rpc) -> None:
        def then(_data: bytes | None) -> None:
            calls.append(call)
            begun.set()

        call.receive(then)

    with serving(begin) as (server, channel):
        future = unary(channel).future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        stopping = threading.Thread(target=server.stop, args=(SECONDS,))
        stopping.start()
        while not stopped(server):
            pass
        refused = unary(channel).future(b"", timeout=SECONDS)
        assert refused.code() is Code.UNAVAILABLE
        calls[0].reply(b"done")
        assert future.result() == b"done"
        stopping.join(SECONDS)
        assert not stopping.is_alive()


def test_stop_ends_what_does_not_end() -> None:
    """After the grace calls are cancelled; a second stop is no error."""
    begun = threading.Event()
    with serving(lambda call: call.receive(lambda _data: begun.set())) as (server, channel):
        future = unary(channel).future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        server.stop(0.05)
        assert future.code() in {Code.UNAVAILABLE, Code.CANCELLED, Code.UNKNOWN}
        server.stop(None)


def test_a_handler_that_fails_does_not_stop_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """The polling thread survives whatever it calls."""

    def begin(call: Rpc) -> None:
        if call.method == b"/s/broken":
            raise RuntimeError("planted")
        if call.method == b"/s/broken-later":
            call.receive(fail)
        else:
            echo(call)

    def fail(_data: bytes | None) -> None:
        raise RuntimeError("planted")

    with serving(begin) as (_, channel):
        for method in ("/s/broken", "/s/broken-later"):
            with pytest.raises(grpc.RpcError) as caught:
                unary(channel, method)(b"", timeout=SECONDS)
            assert caught.value.code() is Code.INTERNAL
        assert unary(channel)(b"a", timeout=SECONDS) == b"a"
    assert "a call could not be handled" in caplog.text


def test_an_address_that_is_taken_is_refused() -> None:
    """Two servers never share a port in silence."""
    with serving(echo):
        server = RpcServer([("grpc.so_reuseport", 0)])
        with pytest.raises(RuntimeError):
            server.add_insecure_port("203.0.113.1:1")
        server.stop(None)


def test_the_answer_is_held_until_the_client_has_it() -> None:
    """Whoever accounts for memory learns when an answer takes none any more: sent, or given up."""
    sent = threading.Event()
    begun, gone = threading.Event(), threading.Event()
    calls: list[Rpc] = []

    def begin(call: Rpc) -> None:
        if call.method == b"/s/late":
            call.receive(lambda _data: wait(call))
        else:
            call.receive(lambda data: call.reply(data or b"", sent.set))

    def wait(call: Rpc) -> None:
        calls.append(call)
        call.when_over(gone.set)
        begun.set()

    with serving(begin) as (_, channel):
        assert unary(channel)(b"x" * 100_000, timeout=SECONDS) == b"x" * 100_000
        assert sent.wait(SECONDS)
        future = unary(channel, "/s/late").future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        future.cancel()
        assert gone.wait(SECONDS)
        given_up = threading.Event()
        calls[0].reply(b"late", given_up.set)
        assert given_up.is_set()
        called = threading.Event()
        calls[0].when_over(called.set)
        assert called.is_set()


def test_a_hurry_ends_the_grace() -> None:
    """Whoever asks a second time is not kept waiting."""
    begun, hurry = threading.Event(), threading.Event()
    with serving(lambda call: call.receive(lambda _data: begun.set())) as (server, channel):
        future = unary(channel).future(b"", timeout=SECONDS)
        assert begun.wait(SECONDS)
        threading.Timer(0.1, hurry.set).start()
        server.stop(600.0, hurry)
        assert future.code() is not Code.OK
