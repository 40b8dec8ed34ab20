"""Where calls meet methods.

A call is answered in the polling thread only if that takes microseconds; all others go to workers, by model.

Methods take and return bytes: gRPC hands the request over as it came, so that its size is known and checked before any
of it becomes an object.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from server.admission import Budget, Workers
from server.errors import MethodUnsupported, QueueFull, SegueError
from server.metrics import Metrics
from server.services.statuses import Code, status_code, status_text
from server.services.transport import Call, Metadata

logger = logging.getLogger(__name__)

Method = Callable[[bytes, Call], bytes]
ErrorReply = Callable[[grpc.StatusCode, str], bytes]
"""Makes the message that goes with a status that is not OK, for methods whose message tells the status too."""

_NO_MESSAGE = MethodUnsupported("the method takes one message, and none came")

# Larger requests are not even looked into by the polling thread.
_SMALL_BYTES = 1 << 16

# A client that retries at once would only lengthen a queue that is full; gRPC's own clients heed this.
_DO_NOT_RETRY: Metadata = (("grpc-retry-pushback-ms", "-1"),)


class Prediction(Protocol):
    """A request for a model, checked and ready to run. It holds a lease until `release`."""

    model: str

    def is_quick(self) -> bool:
        """Whether it takes so little that handing it to another thread would take longer."""
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

    def prepare(self, data: bytes, call: Call) -> Prediction:
        """Parse and check a request; raises a SegueError if it cannot be answered."""
        ...


class Edge:
    """Begins each call: finds its method, has it run where it should, and ends it."""

    def __init__(
        self, metrics: Metrics, workers: Workers, budget: Budget, *, may_answer_here: Callable[[], bool]
    ) -> None:
        """Make an edge without methods.

        Args:
            metrics: Counts how requests end.
            workers: Run models.
            budget: Bytes that requests in flight may hold.
            may_answer_here: Whether the polling thread may run something short now.
        """
        self._metrics = metrics
        self._workers = workers
        self._budget = budget
        self._may_answer_here = may_answer_here
        self._methods: dict[bytes, Callable[[Call], None]] = {}

    def begin(self, call: Call) -> None:
        """Begin a call; in the polling thread."""
        method = self._methods.get(call.method)
        if method is None:
            call.end(Code.UNIMPLEMENTED, "Method not found!")
        else:
            method(call)

    def add_service(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, Method],
        workers: Workers,
        error_replies: Mapping[str, ErrorReply] | None = None,
    ) -> None:
        """Answer these methods of a service in workers; the others answer UNIMPLEMENTED."""
        replies = error_replies or {}
        for name, method in methods.items():
            path = _path(service.full_name, service.methods_by_name[name].name)
            self._methods[path] = self._in_workers(name, method, replies.get(name, _no_message), workers)

    def add_predictor(self, service: ServiceDescriptor, name: str, predictor: Predictor) -> None:
        """Answer a method with predictions, in the polling thread if they are quick."""

        def begin(call: Call) -> None:
            call.receive(lambda data: self._predict(name, predictor, call, data))

        self._methods[_path(service.full_name, service.methods_by_name[name].name)] = begin

    def add_immediate(self, service: str, name: str, answer: Callable[[bytes], bytes]) -> None:
        """Answer a method in the polling thread, whatever else the server has to do."""

        def begin(call: Call) -> None:
            call.receive(on_message(call))

        def on_message(call: Call) -> Callable[[bytes | None], None]:
            def then(data: bytes | None) -> None:
                try:
                    if data is None:
                        raise _NO_MESSAGE
                    call.reply(answer(data))
                except SegueError as error:
                    self._fail(name, call, error)

            return then

        self._methods[_path(service, name)] = begin

    def add_stream(self, service: str, name: str, begin: Callable[[Call, Callable[[SegueError], None]], None]) -> None:
        """Let a method that streams handle its calls itself; the second argument ends a call with an error."""
        self._methods[_path(service, name)] = lambda call: begin(call, lambda error: self._fail(name, call, error))

    def add_watch(
        self, service: str, name: str, watch: Callable[[Call, bytes, Callable[[SegueError], None]], None]
    ) -> None:
        """Let a method that takes one message and sends several handle its calls itself."""

        def begin(call: Call, fail: Callable[[SegueError], None]) -> None:
            def then(data: bytes | None) -> None:
                if data is None:
                    fail(_NO_MESSAGE)
                else:
                    watch(call, data, fail)

            call.receive(then)

        self.add_stream(service, name, begin)

    def _in_workers(
        self, name: str, method: Method, error_reply: ErrorReply, workers: Workers
    ) -> Callable[[Call], None]:
        def begin(call: Call) -> None:
            def fail(error: Exception) -> None:
                self._fail(name, call, error, error_reply)

            def then(data: bytes | None) -> None:
                if data is None:
                    fail(_NO_MESSAGE)
                else:
                    self._submit(workers, "", call, len(data), lambda: method(data, call), fail, _nothing)

            call.receive(then)

        return begin

    def _predict(self, name: str, predictor: Predictor, call: Call, data: bytes | None) -> None:
        """Answer a request here, or hand it over; in the polling thread."""

        def fail(error: Exception) -> None:
            self._fail(name, call, error)

        if data is None:
            fail(_NO_MESSAGE)
            return
        if len(data) > _SMALL_BYTES:
            answer = self._answer_large(predictor, call, data)
            self._submit(self._workers, predictor.model_of(data), call, len(data), answer, fail, _nothing)
            return
        try:
            prediction = predictor.prepare(data, call)
            if prediction.is_quick() and self._may_answer_here():
                try:
                    call.reply(prediction.answer())
                finally:
                    prediction.release()
                return
        except Exception as error:  # noqa: BLE001 - the outermost guard: see _fail
            fail(error)
            return
        held = len(data) + prediction.memory()
        self._submit(self._workers, prediction.model, call, held, prediction.answer, fail, prediction.release)

    def _answer_large(self, predictor: Predictor, call: Call, data: bytes) -> Callable[[], bytes]:
        """Leave it to a worker to look into a large request too."""

        def answer() -> bytes:
            prediction = predictor.prepare(data, call)
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

    def _submit(  # noqa: PLR0917 - the parts of one task
        self,
        workers: Workers,
        lane: str,
        call: Call,
        held: int,
        answer: Callable[[], bytes],
        fail: Callable[[Exception], None],
        release: Callable[[], None],
    ) -> None:
        """Have workers answer; a refusal goes to `fail`. `release` is called once, whatever happens."""

        def let_go() -> None:
            release()
            self._budget.give_back(held)

        try:
            self._budget.take(held)
        except SegueError as error:
            release()
            fail(error)
            return
        task = _Task(call=call, answer=answer, fail=fail, let_go=let_go, deadline=call.deadline)
        try:
            workers.submit(lane, task)
        except SegueError as error:
            task.refuse(error)

    def _fail(self, name: str, call: Call, error: Exception, error_reply: ErrorReply | None = None) -> None:
        """End a call with an error's status; the outermost guard, so that a client gets an id, never a trace."""
        if isinstance(error, SegueError):
            code, text = status_code(error), status_text(error.message)
        elif isinstance(error, MemoryError):
            code, text = Code.RESOURCE_EXHAUSTED, "the server has not the memory for this request now"
        else:
            code, text = Code.INTERNAL, _log_unexpected(name, error)
        self._metrics.ended(name, "", code.name)
        trailing = _DO_NOT_RETRY if isinstance(error, QueueFull) else None
        call.end(code, text, error_reply(code, text) if error_reply else b"", trailing)


@dataclass(slots=True, kw_only=True)
class _Task:
    """One request on its way through the workers; see admission.Work."""

    call: Call
    answer: Callable[[], bytes]
    fail: Callable[[Exception], None]
    let_go: Callable[[], None]
    deadline: float

    @property
    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self.call.cancelled

    def run(self) -> None:
        """Answer, and let go of what the request holds."""
        try:
            self.call.reply(self.answer())
        except Exception as error:  # noqa: BLE001 - the outermost guard: see Edge._fail
            self.fail(error)
        finally:
            self.let_go()

    def refuse(self, error: SegueError) -> None:
        """Answer that it will not be run."""
        self.fail(error)
        self.let_go()


def _nothing() -> None:
    """Nothing is to be released."""


def _path(service: str, method: str) -> bytes:
    return f"/{service}/{method}".encode()


def _no_message(_code: grpc.StatusCode, _text: str) -> bytes:
    return b""


def _log_unexpected(method: str, error: Exception) -> str:
    reference = secrets.token_hex(4)
    logger.error("%s failed unexpectedly, reference %s", method, reference, exc_info=error)
    return f"internal error, reference {reference}: see the server's log"
