"""An edge behind a real server, with models that do as a test says, and what is left when all calls have ended."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from protos.serving import prediction_service_pb2
from server.admission import Budget, Workers
from server.calls import Call
from server.metrics import Metrics
from server.services.edge import Edge, Method
from server.services.transport import Rpc, RpcServer

SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
CHECK = "/some.Health/Check"
SECONDS = 20.0
MOST_BYTES = 10_000


class WatchedBudget(Budget):
    """A budget that can be waited for."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._changed = threading.Condition()

    def take(self, size: int, *, own: int = 0) -> None:
        """See Budget."""
        super().take(size, own=own)
        self._tell()

    def hold(self, size: int) -> None:
        """See Budget."""
        super().hold(size)
        self._tell()

    def give_back(self, size: int) -> None:
        """See Budget."""
        super().give_back(size)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, held: int) -> bool:
        """Whether so many bytes are held, now or soon."""
        with self._changed:
            return self._changed.wait_for(lambda: self.held == held, SECONDS)


@dataclass
class Told:
    """A watcher, and what it was told."""

    begun: list[Call] = field(default_factory=list)
    ended: list[tuple[Call, int, int]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self) -> None:
        """Until every call that has begun has ended: their answers go out before that is told."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended) >= len(self.begun), SECONDS)

    def begin(self, call: Call) -> None:
        """See calls.Watcher."""
        self.begun.append(call)

    def end(self, call: Call, request_bytes: int, reply_bytes: int) -> None:
        """See calls.Watcher."""
        with self._changed:
            self.ended.append((call, request_bytes, reply_bytes))
            self._changed.notify_all()


class Scripted:
    """A prediction that does as it is told. Its request's bytes name it."""

    model = "m"

    def __init__(self, models: "Models") -> None:
        self._models = models

    def answer_now(self) -> bytes | None:
        """See edge.Prediction."""
        return self._models.answer_now()

    def together(self) -> int:
        """See edge.Prediction."""
        return 1

    def memory(self) -> int:
        """See edge.Prediction."""
        return self._models.memory

    def answer(self) -> bytes:
        """See edge.Prediction."""
        return self._models.answer()

    def release(self) -> None:
        """See edge.Prediction."""
        self._models.count("released")


@dataclass
class Models:
    """A predictor whose every step a test may replace."""

    plain: bool = True
    memory: int = 100
    check: Callable[[Rpc], None] = lambda _rpc: None
    answer_now: Callable[[], bytes | None] = lambda: None
    answer: Callable[[], bytes] = lambda: b"answer"
    counted: Counter[str] = field(default_factory=Counter)
    threads: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def count(self, what: str) -> None:
        """Note that something happened once more."""
        with self._changed:
            self.counted[what] += 1
            self._changed.notify_all()

    def wait_for(self, what: str, count: int) -> None:
        """Until something has happened so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.counted[what] >= count, SECONDS)

    def model_of(self, _data: bytes) -> str:
        """See edge.Predictor."""
        return "m"

    def is_plain(self, _data: bytes) -> bool:
        """See edge.Predictor."""
        return self.plain

    def prepare(self, _data: bytes, rpc: Rpc) -> Scripted:
        """See edge.Predictor."""
        self.threads.append(threading.current_thread().name)
        self.check(rpc)
        self.count("leased")
        return Scripted(self)


class Clock:
    """The time, which can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead


class Gate:
    """See edge.Permission."""

    is_open = True

    def permits(self, _rpc: Rpc) -> bool:
        """Whether this call may go on."""
        return self.is_open


@dataclass
class Served:
    """What a test works with."""

    models: Models
    budget: WatchedBudget
    told: Told
    metrics: Metrics
    clock: Clock
    gate: Gate
    channel: grpc.Channel

    def start(self, data: bytes = b"request", timeout: float = SECONDS, method: str = PREDICT) -> Any:
        """Begin a call."""
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return stub.future(data, timeout=timeout)

    def failure(self, data: bytes = b"request", method: str = PREDICT) -> tuple[grpc.StatusCode, str | None]:
        """How a call fails."""
        error = self.start(data, method=method).exception(SECONDS)
        assert isinstance(error, grpc.RpcError)
        return error.code(), error.details()

    def until_queued(self, count: int) -> None:
        """Until so many requests have been handed to workers: what the polling thread does next comes after that."""
        self.models.wait_for("leased", count)
        assert self.start(b"check", method=CHECK).result(SECONDS) == b"CHECK"

    def check_ended(self) -> None:
        """Every call that was begun has ended, once; nothing is held, and leases are given back."""
        self.told.wait()
        assert self.budget.wait_for(0)
        assert Counter(id(call) for call in self.told.begun) == Counter(id(call) for call, _, _ in self.told.ended)
        assert self.models.counted["released"] == self.models.counted["leased"]

    def check_settled(self, codes: list[str]) -> None:
        """All calls have ended, with these codes in any order; those that are not OK have been counted."""
        self.check_ended()
        assert sorted(call.code for call, _, _ in self.told.ended) == sorted(codes)
        failures = Counter(code for code in codes if code != "OK")
        counted: Counter[str] = Counter()
        for (_, _, code), count in self.metrics.requests().items():
            counted[code] += count
        assert counted == failures


@contextmanager
def serving(models: Models, *, waiting: int = 8, methods: dict[str, Method] | None = None) -> Iterator[Served]:
    """A server with one worker; methods beside Predict are run by it too."""
    clock, told, budget, metrics, gate = Clock(), Told(), WatchedBudget(MOST_BYTES), Metrics(), Gate()
    rpc = RpcServer([("grpc.so_reuseport", 0)])
    workers = Workers("model", 1, waiting=waiting, paced=False, clock=clock)
    edge = Edge(metrics, workers, budget, may_answer_here=rpc.may_answer_here, watchers=[told], gate=gate)
    edge.add_predictor(SERVICE, "Predict", models)
    edge.add_service(SERVICE, methods or {}, workers, weight=3)
    edge.add_immediate("some.Health", "Check", bytes.upper)
    rpc.begin_calls_with(edge.begin)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        served = Served(models, budget, told, metrics, clock, gate, channel)
        yield served
    rpc.stop(None)
    served.check_ended()


class Held:
    """Something that a thread comes to, and stays in until it is let go."""

    def __init__(self, result: bytes = b"answer") -> None:
        self._reached, self._go = threading.Semaphore(0), threading.Event()
        self._result = result

    def __call__(self) -> bytes:
        """Stay."""
        self._reached.release()
        assert self._go.wait(SECONDS)
        return self._result

    def wait(self) -> None:
        """Until a thread is in it."""
        assert self._reached.acquire(timeout=SECONDS)

    def let_go(self) -> None:
        """Let those in it, and those to come, go on."""
        self._go.set()
