"""No request, however bad, harms the server: it is refused with a code that tells the client so, or answered.

`make prove` runs the long form. What was ever found is in tests/corpus, and is sent again by each run of the tests.
"""

import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from protos.serving import inference_pb2, metadata_pb2, model_service_pb2, predict_pb2
from server.wire.encoding import encode_varint
from tests.bad_requests import (
    HEALTH,
    MODELS,
    PREDICTION,
    RELOAD,
    STATUS,
    STREAMS,
    WATCH,
    Request,
    bad_configurations,
    bad_requests,
    good_configuration,
    good_requests,
)
from tests.contract_models import ECHOED, FOREST, write_contract_models
from tests.e2e.processes import RunningServer, serving

Code = grpc.StatusCode

ALLOWED = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
}
CORPUS = Path(__file__).parents[1] / "corpus"
WINDOW = 64  # requests on the way at once
MAX_GROWTH = 50 * 2**20
# A tenth of the requests is answered: two in three of those that watch health or ask for reflection, whose answers tell
# what was wrong, and of those for a status, which heeds the name alone; half of the batches and claimed sizes, since a
# model may take them; one in twenty of those in which something was broken. Of all others one in fifty is.
MOST_ANSWERED = 0.15
MOST_CONFIGURED = 0.02
# What no text for a client may hold: a Python class or module, a file's path.
PYTHON = re.compile(r"Error:|Exception|Traceback|<class|\w\.py\b|(?:^|[\s'\"])/\w+/\w+")

REPLIES: dict[str, type[Message]] = {
    PREDICTION + "Predict": predict_pb2.PredictResponse,
    PREDICTION + "Classify": inference_pb2.ClassificationResponse,
    PREDICTION + "Regress": inference_pb2.RegressionResponse,
    PREDICTION + "MultiInference": inference_pb2.MultiInferenceResponse,
    PREDICTION + "GetModelMetadata": metadata_pb2.GetModelMetadataResponse,
    STATUS: model_service_pb2.GetModelStatusResponse,
    HEALTH: health_pb2.HealthCheckResponse,
}

SERVED_BESIDE = ("batched", "dropping", "split")
"""Those of the contract's models that no request speaks of: what is loaded has series."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of all the models that the requests speak of; its log must be without a trace at the end."""
    root = tmp_path_factory.mktemp("models")
    write_contract_models(root)
    with serving(root) as running:
        yield running
        running.process.terminate()
        assert running.process.wait(timeout=60) == 0
        log = "\n".join(running.log.rest())
        assert "Traceback" not in log
        assert "unexpectedly" not in log


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """A channel that takes replies of any size."""
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as made:
        yield made


def send(channel: grpc.Channel, requests: Iterable[Request]) -> Iterator[tuple[Request, grpc.StatusCode, str]]:
    """Send requests, many at once, and yield each with its code and text, in the order of their sending."""
    free = threading.Semaphore(WINDOW)
    waiting: list[tuple[Request, grpc.Call]] = []
    for request in requests:
        free.acquire()
        if request.path in STREAMS:
            free.release()
            yield (request, *streamed(channel, request))
            continue
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(request.path)
        future = call.future(request.data, timeout=120)
        future.add_done_callback(lambda _: free.release())
        waiting.append((request, future))
        if len(waiting) == 4 * WINDOW:
            yield from map(ended, waiting)
            waiting.clear()
    yield from map(ended, waiting)


def streamed(channel: grpc.Channel, request: Request) -> tuple[grpc.StatusCode, str]:
    """Ask a method that streams, and leave after its first answer: OK, or its code and text."""
    call: Any
    if request.path == WATCH:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(request.path)
        call = watch(request.data, timeout=120)
    else:
        talk: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(request.path)
        call = talk(iter([request.data]), timeout=120)
    try:
        for _ in call:
            call.cancel()
            return Code.OK, ""
    except grpc.RpcError:
        pass
    return call.code(), str(call.details())


def ended(sent: tuple[Request, grpc.Call]) -> tuple[Request, grpc.StatusCode, str]:
    """Wait for a call's end."""
    request, future = sent
    return request, future.code(), str(future.details())


def good_answers(channel: grpc.Channel) -> list[Message]:
    """What the good requests get."""
    answers = []
    for request in good_requests():
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(request.path)
        answers.append(REPLIES[request.path].FromString(call(request.data, timeout=60)))
    return answers


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def series(server: RunningServer) -> set[str]:
    """Name and labels of each series on /metrics."""
    with urllib.request.urlopen(server.metrics, timeout=30) as page:  # noqa: S310 - our own address
        text = page.read().decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def label_values(found: set[str]) -> dict[str, set[str]]:
    """All values of each label of some series."""
    values: dict[str, set[str]] = {}
    for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', "\n".join(found)):
        values.setdefault(name, set()).add(value)
    return values


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(1, 4_000, marks=pytest.mark.slow),
        pytest.param(2, 20_000, marks=[pytest.mark.slow, pytest.mark.prove]),
    ],
)
def test_bad_requests_are_refused_and_leave_no_trace(
    server: RunningServer, channel: grpc.Channel, seed: int, count: int
) -> None:
    """Only codes that blame the request; good ones are answered as before; no memory, no series, no trace is left."""
    before = good_answers(channel)
    list(send(channel, bad_requests(0, 2_000)))  # until each thread has its buffers; what grows after that is a leak
    held = resident_bytes(server.process.pid)
    known = series(server)
    codes: Counter[str] = Counter()
    findings = []
    for request, code, text in send(channel, bad_requests(seed, count)):
        codes[code.name] += 1
        if code not in ALLOWED or PYTHON.search(text):
            findings.append((request.path, code.name, text[:300], request.data[:300].hex()))
    print(codes)
    assert not findings, f"{len(findings)} findings, the first: {findings[:5]}"
    assert codes.total() == count
    assert codes["OK"] < MOST_ANSWERED * count
    assert codes["INVALID_ARGUMENT"] > count / 2
    assert {"NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"} <= codes.keys()
    assert server.process.poll() is None
    assert good_answers(channel) == before
    assert resident_bytes(server.process.pid) - held < MAX_GROWTH
    after = series(server)
    # New ones are those of a signature that was answered for the first time, and counters of the codes that a method
    # and a model have ended with, each with its time of birth.
    counters = {name for name in after - known if "request" in name and 'signature="' not in name}
    assert all('signature="' in name for name in after - known - counters), after - known
    assert len(counters) <= 4 * len(ALLOWED) * len(REPLIES) * len(MODELS)
    labels = label_values(after)
    assert labels["model"] | labels.get("model_name", set()) <= {"", *SERVED_BESIDE, *MODELS}
    assert labels["signature"] <= {"serving_default", *ECHOED, *FOREST}
    assert labels["version"] <= {"1", "2"}
    assert labels["method"] <= {path.rpartition("/")[2] for path in (*REPLIES, *STREAMS)}
    assert labels["code"] <= {code.name for code in ALLOWED}


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(1, 300, marks=pytest.mark.slow),
        pytest.param(2, 2_000, marks=[pytest.mark.slow, pytest.mark.prove]),
    ],
)
def test_bad_configurations_are_refused_and_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    """A server that takes configurations refuses the bad ones, and goes on with what it serves.

    A few are good by chance, and put into force; one of them may add a model without versions, which is waited for.
    """
    root = tmp_path_factory.mktemp("models")
    write_contract_models(root)
    findings = []
    codes: Counter[str] = Counter()
    with serving(root, "--admin") as server, grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RELOAD)
        call(good_configuration(root).data, timeout=60)
        before = good_answers(channel)
        for request in bad_configurations(seed, count, root):
            future = call.future(request.data, timeout=2)
            code, text = future.code(), str(future.details())
            codes[code.name] += 1
            if code in {Code.OK, Code.DEADLINE_EXCEEDED}:
                call(good_configuration(root).data, timeout=60)
            elif code not in ALLOWED or PYTHON.search(text.replace(str(root), "")):
                findings.append((code.name, text[:300], request.data[:300].hex()))
        print(codes)
        assert not findings, f"{len(findings)} findings, the first: {findings[:5]}"
        assert codes["OK"] + codes["DEADLINE_EXCEEDED"] < MOST_CONFIGURED * count
        assert codes["INVALID_ARGUMENT"] > count / 2
        assert codes["FAILED_PRECONDITION"] > 0
        assert good_answers(channel) == before
        assert label_values(series(server))["model"] <= {"", *MODELS}
        server.process.terminate()
        assert server.process.wait(timeout=60) == 0
        assert "Traceback" not in "\n".join(server.log.rest())


def test_watched_names_are_not_remembered(server: RunningServer, channel: grpc.Channel) -> None:
    """Whoever watches the health of made-up services leaves nothing behind, however many and long the names are."""
    for _ in streams_of(channel, 200):
        pass
    held = resident_bytes(server.process.pid)
    for _ in streams_of(channel, 2_000):
        pass
    assert resident_bytes(server.process.pid) - held < 10 * 2**20


def streams_of(channel: grpc.Channel, count: int) -> Iterator[None]:
    """Watch one made-up service after the other, with names of 20 kB."""
    for number in range(count):
        name = f"{number}".encode().rjust(20_000, b"n")
        data = b"\x0a" + encode_varint(len(name)) + name
        assert streamed(channel, Request(WATCH, data)) == (Code.OK, "")
        yield


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: str(path.stem))
def test_what_was_found_once_is_refused(channel: grpc.Channel, path: Path) -> None:
    """Each file is a request, METHOD-what.bin, that once did harm or was told too much."""
    method = path.stem.partition("-")[0]
    (address,) = [each for each in REPLIES if each.endswith(f"/{method}")]
    ((_, code, text),) = send(channel, [Request(address, path.read_bytes())])
    assert code in ALLOWED - {Code.OK}, text
    assert not PYTHON.search(text), text
