"""Where calls meet methods.

A call is answered in the polling thread only if that takes microseconds; all others go to workers, by model.

Methods take and return bytes: gRPC hands the request over as it came, so that its size is known and checked before any
of it becomes an object.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor

from server import calls
from server.admission import Budget, Workers
from server.calls import Watcher
from server.errors import MalformedRequest, MethodUnsupported, SegueError
from server.metrics import Metrics
from server.services.authorisation import REFUSAL
from server.services.exchange import Errand, ErrorReply, Exchange
from server.services.statuses import Code, status_code, status_text
from server.services.transport import Rpc

Method = Callable[[bytes, Rpc], bytes]

_NO_MESSAGE = MethodUnsupported("the method takes one message, and none came")

MOST_BYTES = 1 << 16
"""Of a request that is answered whatever else there is to do: it is parsed in the polling thread."""

# Requests that gain from being run beside each other: more than cores (those that this process may use) only make each
# of them late. Of those that one run may answer there may be as many as there are workers.
_AT_ONCE = len(os.sched_getaffinity(0)) + 1
_ALL = 0


def _nothing() -> None:
    """What a request without a lease gives back."""


class Prediction(Protocol):
    """A request for a model, checked and ready to run. It holds a lease until `release`."""

    model: str

    def answer_now(self) -> bytes | None:
        """Run it if it takes so little that handing it to another thread would take longer, and need not wait."""
        ...

    def together(self) -> int:
        """Requests of this kind that one run may answer."""
        ...

    def memory(self) -> int:
        """Bytes that its arrays take."""
        ...

    def answer(self) -> bytes:
        """Run it."""
        ...

    def release(self) -> None:
        """Give the lease back."""
        ...


class Predictor(Protocol):
    """Makes predictions of requests."""

    def model_of(self, data: bytes) -> str:
        """The name of the model that a request is for, if it is loaded and easily found; else "". Never raises."""
        ...

    def is_plain(self, data: bytes) -> bool:
        """Whether a request is parsed in microseconds: one that is small, or like one that was parsed before."""
        ...

    def prepare(self, data: bytes, rpc: Rpc) -> Prediction:
        """Parse and check a request; raises a SegueError if it cannot be answered."""
        ...


class Permission(Protocol):
    """Decides who may call."""

    def permits(self, rpc: Rpc) -> bool:
        """Whether this call may go on."""
        ...


class Edge:
    """Begins each call: finds its method, and has it run where it should."""

    def __init__(
        self,
        metrics: Metrics,
        workers: Workers,
        budget: Budget,
        *,
        may_answer_here: Callable[[], bool],
        watchers: Sequence[Watcher] = (),
        gate: Permission | None = None,
    ) -> None:
        """Make an edge without methods.

        Args:
            metrics: Counts how requests end.
            workers: Run models.
            budget: Bytes that requests in flight may hold.
            may_answer_here: Whether the polling thread may run something short now.
            watchers: Are told of every request to a method of ours.
            gate: Turns calls away before anything is read of them; None lets all through.
        """
        self._metrics = metrics
        self._workers = workers
        self._budget = budget
        self._may_answer_here = may_answer_here
        self._watchers = tuple(watchers)
        self._gate = gate
        self._methods: dict[bytes, Callable[[Rpc], None]] = {}

    def begin(self, rpc: Rpc) -> None:
        """Begin a call; in the polling thread."""
        if self._gate is not None and not self._gate.permits(rpc):
            rpc.end(Code.UNAUTHENTICATED, REFUSAL)
            return
        method = self._methods.get(rpc.method)
        if method is None:
            rpc.end(Code.UNIMPLEMENTED, "Method not found!")
        else:
            method(rpc)

    def add_service(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, Method],
        workers: Workers,
        *,
        error_replies: Mapping[str, ErrorReply] | None = None,
        lane_of: Callable[[bytes], str] | None = None,
        weight: int = 1,
    ) -> None:
        """Answer these methods of a service in workers; the others answer UNIMPLEMENTED.

        Args:
            service: Theirs.
            methods: By name.
            workers: Run them.
            error_replies: Make the messages that go with errors, by name.
            lane_of: Tells which model's turn a request takes; by default all take one.
            weight: Bytes that a request holds for each of its own.
        """
        for name, method in methods.items():
            reply = (error_replies or {}).get(name)
            self._add_in_workers(service, name, method, reply, workers, lane_of or _no_lane, weight)

    def add_predictor(self, service: ServiceDescriptor, name: str, predictor: Predictor) -> None:
        """Answer a method with predictions, in the polling thread if they are quick."""
        full_name = _full_name(service, name)

        def begin(rpc: Rpc) -> None:
            def then(data: bytes | None) -> None:
                exchange = self._exchange(name, full_name, rpc, data)
                try:
                    if data is not None:
                        self._predict(predictor, exchange, data)
                finally:
                    calls.leave()

            rpc.receive(then)

        self._methods[_path(full_name)] = begin

    def add_immediate(self, service: str, name: str, answer: Callable[[bytes], bytes]) -> None:
        """Answer a method in the polling thread, whatever else the server has to do, and tell nobody."""

        def watch(rpc: Rpc, data: bytes, fail: Callable[[SegueError], None]) -> None:
            try:
                rpc.reply(answer(data))
            except SegueError as error:
                fail(error)

        self.add_watch(service, name, watch)

    def add_watch(
        self, service: str, name: str, watch: Callable[[Rpc, bytes, Callable[[SegueError], None]], None]
    ) -> None:
        """Let a method that takes one message handle its calls itself; the last argument ends one with an error."""

        def begin(rpc: Rpc, fail: Callable[[SegueError], None]) -> None:
            def then(data: bytes | None) -> None:
                if data is None:
                    fail(_NO_MESSAGE)
                elif len(data) > MOST_BYTES:
                    fail(MalformedRequest(f"it has {len(data)} bytes; such a request has at most {MOST_BYTES}"))
                else:
                    watch(rpc, data, fail)

            rpc.receive(then)

        self.add_stream(service, name, begin)

    def add_stream(self, service: str, name: str, begin: Callable[[Rpc, Callable[[SegueError], None]], None]) -> None:
        """Let a method that streams handle its calls itself; the second argument ends a call with an error."""

        def begin_call(rpc: Rpc) -> None:
            def fail(error: SegueError) -> None:
                code = status_code(error)
                self._metrics.failed(name, "", code.name, error)
                rpc.end(code, status_text(error.message))

            begin(rpc, fail)

        self._methods[_path(f"{service}/{name}")] = begin_call

    def _exchange(
        self, name: str, full_name: str, rpc: Rpc, data: bytes | None, error_reply: ErrorReply | None = None
    ) -> Exchange:
        """Begin an exchange; without a message it has ended already."""
        size = len(data) if data is not None else 0
        exchange = Exchange(
            name,
            full_name,
            rpc,
            size,
            metrics=self._metrics,
            budget=self._budget,
            watchers=self._watchers,
            error_reply=error_reply,
        )
        if data is None:
            exchange.fail(_NO_MESSAGE)
        return exchange

    def _add_in_workers(  # noqa: PLR0917 - what `add_service` is told of one method
        self,
        service: ServiceDescriptor,
        name: str,
        method: Method,
        error_reply: ErrorReply | None,
        workers: Workers,
        lane_of: Callable[[bytes], str],
        weight: int,
    ) -> None:
        full_name = _full_name(service, name)

        def begin(rpc: Rpc) -> None:
            def then(data: bytes | None) -> None:
                exchange = self._exchange(name, full_name, rpc, data, error_reply)
                try:
                    if data is not None:
                        held = weight * len(data)
                        self._submit(exchange, held, lambda: method(data, rpc), lane=lane_of(data), workers=workers)
                finally:
                    calls.leave()

            rpc.receive(then)

        self._methods[_path(full_name)] = begin

    def _predict(self, predictor: Predictor, exchange: Exchange, data: bytes) -> None:
        """Answer a request here, or hand it over; in the polling thread."""
        if not predictor.is_plain(data):
            answer = self._answer_large(predictor, exchange.rpc, data)
            self._submit(exchange, len(data), answer, lane=predictor.model_of(data))
            return
        prediction = None
        try:
            prediction = predictor.prepare(data, exchange.rpc)
            message = prediction.answer_now() if self._may_answer_here() else None
        except Exception as error:  # noqa: BLE001 - the outermost guard: see Exchange.fail
            if prediction is not None:
                prediction.release()
            exchange.fail(error)
            return
        if message is not None:
            prediction.release()
            exchange.reply(message)
            return
        together = prediction.together()
        self._submit(
            exchange,
            len(data) + prediction.memory(),
            prediction.answer,
            lane=prediction.model,
            release=prediction.release,
            at_once=_ALL if together > 1 else _AT_ONCE,
            together=together,
        )

    def _answer_large(self, predictor: Predictor, rpc: Rpc, data: bytes) -> Callable[[], bytes]:
        """Leave it to a worker to look into a large request too."""

        def answer() -> bytes:
            prediction = predictor.prepare(data, rpc)
            try:
                memory = prediction.memory()
                self._budget.take(memory, own=len(data))
                try:
                    return prediction.answer()
                finally:
                    self._budget.give_back(memory)
            finally:
                prediction.release()

        return answer

    def _submit(
        self,
        exchange: Exchange,
        held: int,
        answer: Callable[[], bytes],
        *,
        lane: str,
        workers: Workers | None = None,
        release: Callable[[], None] = _nothing,
        at_once: int | None = None,
        together: int = 1,
    ) -> None:
        """Have workers answer. `release` is called once, whatever happens."""

        def let_go() -> None:
            release()
            self._budget.give_back(held)

        exchange.lane = lane
        try:
            self._budget.take(held)
        except SegueError as error:
            release()
            exchange.fail(error)
            return
        errand = Errand(exchange, answer, let_go)
        try:
            (workers or self._workers).submit(lane, errand, at_once, together)
        except SegueError as error:
            errand.refuse(error)


def _no_lane(_data: bytes) -> str:
    return ""


def _full_name(service: ServiceDescriptor, name: str) -> str:
    return f"{service.full_name}/{service.methods_by_name[name].name}"


def _path(full_name: str) -> bytes:
    return f"/{full_name}".encode()
