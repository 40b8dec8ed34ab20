"""Tests of `server.services.authorisation`: the one gate before every method."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from server.app import Server, ServerStartError
from server.config import ServerConfig
from server.services.authorisation import OPEN, REFUSAL, Tokens, TokensRefused
from tests.servers import SECONDS, code_of, running, writing_end

GOOD, SECOND, WRONG = "correct-horse-battery", "staple-staple-staple", "Tr0ub4dor-and-three-more"
Metadata = Sequence[tuple[str, str]]
Code = grpc.StatusCode


def bearer(token: str) -> Metadata:
    """What a client sends with a token."""
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tokens, as while one is being replaced by the other."""
    return write(tmp_path_factory.mktemp("tokens") / "tokens", f"# old\n{GOOD}\n\n# new\n{SECOND}\n")


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    """A file that only its owner reads."""
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, token_file: Path) -> Iterator[Server]:
    """A server that wants a token, with every method that there is."""
    with running(tmp_path_factory.mktemp("models"), token_file=token_file, admin=True, metrics_port=0) as made:
        yield made


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """To the server."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made


class _WithToken(grpc.StreamStreamClientInterceptor):
    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc.StreamStreamClientInterceptor."""
        return continuation(client_call_details._replace(metadata=bearer(GOOD)), request_iterator)


def every_method(channel: grpc.Channel) -> list[str]:
    """Full names of all methods of all services that the server tells of by reflection."""
    database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, _WithToken()))
    methods = []
    for service in database.get_services():
        for file in [database.FindFileContainingSymbol(service)]:
            for each in file.service:
                if f"{file.package}.{each.name}" == service:
                    methods += [f"/{service}/{method.name}" for method in each.method]
    return methods


def outcome(channel: grpc.Channel, method: str, metadata: Metadata) -> tuple[Code, str | None]:
    """How a call of any method ends, or how a stream begins."""
    if method.endswith(("/Watch", "/ServerReflectionInfo")):
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        stream = stub(iter([b""]), timeout=SECONDS, metadata=tuple(metadata))
        try:
            next(stream)
        except grpc.RpcError as error:
            return error.code(), error.details()
        finally:
            stream.cancel()
        return Code.OK, ""
    return code_of(channel, method=method, request=b"", metadata=metadata)


def test_every_method_of_every_service_is_behind_the_gate(channel: grpc.Channel) -> None:
    """Each refuses no token and a wrong one in the same words, and with a right one gives its own answer."""
    methods = every_method(channel)
    assert len(methods) >= 5 + 2 + 2 + 1
    assert {method.encode() for method in methods} >= OPEN
    for method in methods:
        own = outcome(channel, method, bearer(GOOD))
        assert own[0] is not Code.UNAUTHENTICATED, method
        for metadata in ((), bearer(WRONG)):
            expected = own if method.encode() in OPEN else (Code.UNAUTHENTICATED, REFUSAL)
            assert outcome(channel, method, metadata) == expected, method


def test_a_method_that_does_not_exist_is_behind_the_gate(channel: grpc.Channel) -> None:
    """Without a token nobody learns what there is."""
    assert outcome(channel, "/no.such.Service/Method", ()) == (Code.UNAUTHENTICATED, REFUSAL)
    assert outcome(channel, "/no.such.Service/Method", bearer(GOOD))[0] is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", GOOD),),
        (("authorization", f"Basic {GOOD}"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {GOOD[:-1]}"),),
        (("authorization", f"Bearer {GOOD}x"),),
        (("authorization", f"Bearer {GOOD} {SECOND}"),),
        (("authorization", "Bearer # old"),),
        (("authorization", f"Bearer {WRONG}"), ("authorization", f"Bearer {GOOD}")),
        (("x-authorization", f"Bearer {GOOD}"),),
    ],
)
def test_what_is_not_exactly_a_token_is_refused(channel: grpc.Channel, metadata: Metadata) -> None:
    """Neither parts, nor other schemes, nor a choice of several open the gate; the words are always the same."""
    assert code_of(channel, metadata=metadata) == (Code.UNAUTHENTICATED, REFUSAL)


@pytest.mark.parametrize("value", [f"Bearer {GOOD}", f"bearer {SECOND}", f"BEARER  {GOOD} "])
def test_each_token_of_the_file_opens(channel: grpc.Channel, value: str) -> None:
    """The scheme's name is of any case, as HTTP has it."""
    assert code_of(channel, metadata=(("authorization", value),))[0] is Code.OK


def test_a_refused_call_waits_for_no_request(channel: grpc.Channel) -> None:
    """Who has no token cannot hold a thread by sending nothing."""
    stub: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
        "/tensorflow.serving.PredictionService/Predict"
    )

    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(SECONDS)
        yield b""

    ended = stub.future(silence(), timeout=SECONDS)
    try:
        assert ended.exception(timeout=SECONDS / 2) is not None
        assert ended.code() is Code.UNAUTHENTICATED
    finally:
        over.set()


def test_refusals_are_counted(server: Server, channel: grpc.Channel) -> None:
    """An operator sees knocking, without labels that the caller chooses."""
    code_of(channel, metadata=bearer(WRONG))
    with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=SECONDS) as page:
        text = page.read().decode()
    assert 'segue_requests_total{code="UNAUTHENTICATED",method="",model=""}' in text


def test_refusals_are_logged_when_asked(tmp_path: Path, token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the address that knocks, and nothing of what it showed."""
    with (
        running(tmp_path, token_file=token_file, log_requests="errors") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        code_of(channel, metadata=bearer(WRONG))
    (record,) = [each for each in caplog.records if "without a valid token" in each.getMessage()]
    assert vars(record)["peer"].startswith("ipv4:127.0.0.1:")
    assert WRONG not in caplog.text


def test_health_is_open_in_full(channel: grpc.Channel) -> None:
    """A load balancer, which has no token, sees the service's state."""
    request = health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService")
    assert code_of(channel, method="/grpc.health.v1.Health/Check", request=request)[0] is Code.OK


def test_tokens_are_rotated_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the file has changed its new tokens count, and those that are gone from it do not."""
    file = write(tmp_path / "tokens", GOOD)
    tokens = Tokens(file)
    write(file, f"{SECOND}\n{SECOND}x\n")
    assert (tokens.accept(GOOD), tokens.accept(SECOND)) == (True, False)
    tokens.renewal.look()
    assert (tokens.accept(GOOD), tokens.accept(SECOND)) == (False, True)
    write(file, "")
    tokens.renewal.look()
    assert (tokens.accept(GOOD), tokens.accept(SECOND)) == (False, True)
    assert "the tokens of before remain valid" in caplog.text
    assert SECOND not in caplog.text


def until_accepted(channel: grpc.Channel, token: str) -> float:
    """Seconds until a token opens the gate."""
    begin = time.monotonic()
    while code_of(channel, metadata=bearer(token))[0] is not Code.OK:
        assert time.monotonic() - begin < SECONDS
    return time.monotonic() - begin


def test_a_server_honours_a_new_token_within_two_seconds(tmp_path: Path) -> None:
    """And the old one no longer: nobody need call for the file to be looked at."""
    file = write(tmp_path / "tokens", GOOD)
    with running(tmp_path, token_file=file) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        assert code_of(channel, metadata=bearer(GOOD))[0] is Code.OK
        write(file, SECOND)
        assert until_accepted(channel, SECOND) < 2
        assert code_of(channel, metadata=bearer(GOOD))[0] is Code.UNAUTHENTICATED


def test_a_file_that_does_not_answer_stalls_no_call(tmp_path: Path) -> None:
    """A pipe in place of the file keeps only the thread that watches; its tokens count when somebody writes them."""
    file = write(tmp_path / "tokens", GOOD)
    with running(tmp_path, token_file=file) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        os.mkfifo(tmp_path / "pipe", 0o600)
        (tmp_path / "pipe").rename(file)
        while (writer := writing_end(file)) is None:  # until the watch is held up in opening the pipe
            assert code_of(channel, metadata=bearer(GOOD))[0] is Code.OK
        for _ in range(20):  # now it waits for what is written
            assert code_of(channel, metadata=bearer(GOOD))[0] is Code.OK
        os.write(writer, SECOND.encode())
        os.close(writer)
        until_accepted(channel, SECOND)


def test_a_file_that_may_be_used_at_last_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens that were refused for the file's mode alone count when that is right: nothing is written once more."""
    file = write(tmp_path / "tokens", GOOD)
    tokens = Tokens(file)
    write(file, SECOND, 0o644)
    for _ in range(3):
        tokens.renewal.look()
    assert tokens.accept(GOOD)
    assert caplog.text.count("the tokens of before remain valid") == 1
    file.chmod(0o600)
    tokens.renewal.look()
    assert (tokens.accept(GOOD), tokens.accept(SECOND)) == (False, True)


def test_a_server_that_is_gone_leaves_no_watch(tmp_path: Path) -> None:
    """Neither one that was stopped nor one that was never started has a thread that looks at its file."""
    before = set(threading.enumerate())
    file = write(tmp_path / "tokens", GOOD)
    Server(ServerConfig(repository=tmp_path, port=0, metrics_port=-1, token_file=file)).stop()
    assert not [each for each in set(threading.enumerate()) - before if each.name == "tokens"]
    with running(tmp_path, token_file=file):
        (watch,) = [each for each in set(threading.enumerate()) - before if each.name == "tokens"]
    assert not watch.is_alive()


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (GOOD, 0o644, "every user can read"),
        ("", 0o600, "0 tokens"),
        ("# only words\n", 0o600, "0 tokens"),
        ("short", 0o600, "at least 16"),
        ("with a space in the middle", 0o600, "no space"),
        ("pässwörter-pässwörter", 0o600, "ASCII"),
        ("\n".join(f"{GOOD}{number}" for number in range(65)), 0o600, "65 tokens"),
    ],
)
def test_a_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, mode: int, reason: str) -> None:
    """The text names the file and never a token."""
    file = write(tmp_path / "tokens", text, mode)
    with pytest.raises(TokensRefused, match=reason) as caught:
        Tokens(file)
    assert str(file) in str(caught.value)
    assert not text or text not in str(caught.value)
    with pytest.raises(ServerStartError, match=reason):
        Server(ServerConfig(port=0, metrics_port=-1, token_file=file))


def test_without_tokens_nothing_stands_in_the_way(tmp_path: Path) -> None:
    """A server without --token-file has no gate that a request would pay for."""
    with running(tmp_path) as server:
        assert server._security.gate is None
