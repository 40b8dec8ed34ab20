"""The request in work: what logs, traces and metrics say of it. Knows neither gRPC nor the payload.

A call is there for every request, so making one must cost next to nothing: whatever is dear (its id, the metadata) is
looked up when somebody asks for it.
"""

import re
import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Protocol

REQUEST_ID = "x-request-id"
"""The metadata by which a client, or a proxy, names its request."""

# What a client may put into every line about its request: visible, no quotes, bounded.
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


now = time.perf_counter
"""The clock of a call's times, in seconds."""


class Source(Protocol):
    """What is asked of whoever received the request; services.transport.Rpc is one."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Keys and values, as the client sent them."""

    def peer(self) -> str:
        """The client's address."""


class Call:
    """One request in work. Times are those of `now`; 0 for what has not happened."""

    __slots__ = (
        "_request_id",
        "backend",
        "begin",
        "bucket",
        "checked",
        "code",
        "finished",
        "is_traced",
        "method",
        "model",
        "queued",
        "rows",
        "run",
        "signature",
        "source",
        "span",
        "started",
        "taken",
        "trace_id",
        "version",
    )

    def __init__(self, method: str, source: Source) -> None:
        """Make a call that begins now.

        Args:
            method: With its service: "tensorflow.serving.PredictionService/Predict".
            source: Where it came from.
        """
        self.method = method
        self.source = source
        self.begin = now()
        self.code = "OK"
        self.model = self.signature = self.backend = self.trace_id = ""
        self.version = self.rows = self.bucket = 0
        self.queued = self.taken = self.checked = self.started = self.finished = 0.0
        self.run = (0.0, 0.0)
        self.span: Any = None
        self.is_traced = False
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The client's own, if it is sane; else one made here."""
        if not self._request_id:
            given = self.metadata(REQUEST_ID)
            self._request_id = given if _SANE_ID.fullmatch(given) else secrets.token_hex(8)
        return self._request_id

    def metadata(self, key: str) -> str:
        """The value of a metadata key, or nothing."""
        return next((v for k, v in self.source.invocation_metadata() if k == key and isinstance(v, str)), "")

    def answered_by(self, model: str, version: int) -> None:
        """Note which version answers: both are of something that is loaded."""
        self.model = model
        self.version = version

    def ran(self, signature: str, rows: int, times: tuple[float, float]) -> None:
        """Note what was run, and when: from the checked inputs to the outputs.

        Args:
            signature: Its name.
            rows: The first dimension of the inputs; 0 for scalars.
            times: Begin and end of the backend's part, waiting for a batch included.
        """
        self.signature = signature
        self.rows = rows
        self.checked, self.finished = times

    def run_on(self, backend: str, bucket: int, times: tuple[float, float]) -> None:
        """Note who has answered.

        Args:
            backend: Its name.
            bucket: The batch's, of the request's signature.
            times: Begin and end of the batch's run.
        """
        self.backend = backend
        self.bucket = bucket
        self.run = times

    @property
    def last_run(self) -> "Run":
        """What `run_on` was told last."""
        return self.backend, self.bucket, self.run


Run = tuple[str, int, tuple[float, float]]
"""A batch's run: the backend, the bucket, begin and end."""


class Watcher(Protocol):
    """Whoever wants to know of every request; called in the request's thread, so what it does must be quick."""

    def begin(self, call: Call) -> None:
        """A request has arrived."""

    def end(self, call: Call, request_bytes: int, reply_bytes: int) -> None:
        """It has its answer, or `call.code` is not OK."""


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


def begin(method: str, source: Source) -> Call:
    """Make a call, which is the current one of this thread until it leaves it."""
    call = Call(method, source)
    _CURRENT.set(call)
    return call


def enter(call: Call) -> None:
    """Go on with a call in another thread than the one that began it."""
    _CURRENT.set(call)


def leave() -> None:
    """Work on no call any more: it has ended, or another thread goes on with it."""
    _CURRENT.set(None)


def current() -> Call | None:
    """The request that this thread works on, if any."""
    return _CURRENT.get()
