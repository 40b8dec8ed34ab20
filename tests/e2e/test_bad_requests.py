"""No request, however bad, harms the server: it is refused with a code that tells the client so, or answered.

`make prove` runs the long form. What was ever found is in tests/corpus, and is sent again by each run of the tests.
"""

import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from protos.serving import inference_pb2, metadata_pb2, model_service_pb2, predict_pb2
from tests.bad_requests import HEALTH, MODELS, PREDICTION, STATUS, Request, bad_requests, good_requests
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
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(request.path)
        future = call.future(request.data, timeout=120)
        future.add_done_callback(lambda _: free.release())
        waiting.append((request, future))
        if len(waiting) == 4 * WINDOW:
            yield from map(ended, waiting)
            waiting.clear()
    yield from map(ended, waiting)


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


def label_values(server: RunningServer) -> dict[str, set[str]]:
    """All values of each label on /metrics."""
    with urllib.request.urlopen(server.metrics, timeout=30) as page:  # noqa: S310 - our own address
        text = page.read().decode()
    values: dict[str, set[str]] = {}
    for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text):
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
    codes: Counter[str] = Counter()
    findings = []
    for request, code, text in send(channel, bad_requests(seed, count)):
        codes[code.name] += 1
        if code not in ALLOWED or PYTHON.search(text):
            findings.append((request.path, code.name, text[:300], request.data[:300].hex()))
    print(codes)
    assert not findings, f"{len(findings)} findings, the first: {findings[:5]}"
    assert codes.total() == count
    assert codes["INVALID_ARGUMENT"] > count / 2
    assert {"NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"} <= codes.keys()
    assert server.process.poll() is None
    assert good_answers(channel) == before
    assert resident_bytes(server.process.pid) - held < MAX_GROWTH
    labels = label_values(server)
    assert labels["model"] <= {"", *MODELS}
    assert labels["signature"] <= {"serving_default", *ECHOED, *FOREST}
    assert labels["version"] <= {"1", "2"}
    assert labels["method"] <= {path.rpartition("/")[2] for path in REPLIES}
    assert labels["code"] <= {code.name for code in ALLOWED}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: str(path.stem))
def test_what_was_found_once_is_refused(channel: grpc.Channel, path: Path) -> None:
    """Each file is a request, METHOD-what.bin, that once did harm or was told too much."""
    method = path.stem.partition("-")[0]
    (address,) = [each for each in REPLIES if each.endswith(f"/{method}")]
    ((_, code, text),) = send(channel, [Request(address, path.read_bytes())])
    assert code in ALLOWED - {Code.OK}, text
    assert not PYTHON.search(text), text
