"""OpenTelemetry traces: a span for each request, with what it spent its time on. Only this module knows opentelemetry.

It is imported only if traces are asked for, so that without them there is nothing to install and nothing to pay. What a
span shows is told by the times that the request's Call holds when it ends.
"""

import os
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.calls import Call, now

# OpenTelemetry's conventions for gRPC servers: the other codes are the client's fault, or its wish.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_PARENT = ("traceparent", "tracestate")
_FLUSH_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class _Open:
    """A span that has begun."""

    span: Span
    offset: int
    """From the call's clock to nanoseconds since 1970: one for all its times, so that its parts fit together."""


class Tracing:
    """Makes spans of requests and sends them to a collector, in batches, from a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        """Make one.

        Args:
            endpoint: http://HOST:PORT, or https:// for TLS, of a collector that takes OTLP over gRPC.
        """
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        # Its queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE, 2048): spans are dropped rather than kept.
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("segue", metadata.version("segue-serving"))
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, call: Call) -> None:
        """See calls.Watcher: the span begins now, below the one that the client names."""
        offset = time.time_ns() - round(now() * 1e9)
        carrier = {key: value for key in _PARENT if (value := call.metadata(key))}
        span = self._tracer.start_span(
            call.method,
            context=self._propagator.extract(carrier, context=Context()),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": call.method},
            start_time=_wall(call.begin, offset),
        )
        call.span = _Open(span, offset)
        call.trace_id = format_trace_id(span.get_span_context().trace_id)
        call.is_traced = span.is_recording()

    def end(self, call: Call, request_bytes: int, reply_bytes: int) -> None:
        """See calls.Watcher: the span ends now, with its parts."""
        opened: _Open = call.span
        span = opened.span
        if span.is_recording():
            span.set_attributes(
                {
                    "rpc.response.status_code": call.code,
                    **_peer(call.source.peer()),
                    "segue.request_id": call.request_id,
                    "segue.request_bytes": request_bytes,
                    "segue.reply_bytes": reply_bytes,
                }
            )
            span.set_attributes(_served(call))
            if call.code in _FAULTS:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", call.code)
            self._parts(call, opened)
        span.end()

    def stop(self) -> None:
        """Send what has not been sent yet, but wait for no collector that does not answer."""
        flush = threading.Thread(target=self._provider.shutdown, name="flush spans", daemon=True)
        flush.start()
        flush.join(_FLUSH_SECONDS)

    def _parts(self, call: Call, opened: _Open) -> None:
        """Spans below: parse, admission (if it waited for a worker), queue (for a batch), run, encode."""
        if not call.finished:
            return
        within = set_span_in_context(opened.span, Context())
        started = call.started or call.checked
        parts = [("parse", call.begin, call.queued or call.checked)]
        if call.queued:
            parts.append(("admission", call.queued, call.taken))
        if call.started:
            parts.append(("queue", call.checked, started))
        parts += [("run", started, call.finished), ("encode", call.finished, now())]
        attributes = _served(call)
        for name, begin, end in parts:
            from_ns, to_ns = _wall(begin, opened.offset), _wall(end, opened.offset)
            self._tracer.start_span(name, context=within, start_time=from_ns, attributes=attributes).end(to_ns)


def _served(call: Call) -> dict[str, str | int]:
    """What answered; nothing of it if nothing did."""
    facts: dict[str, str | int] = {"segue.model": call.model, "segue.version": call.version} if call.model else {}
    if call.signature:
        facts |= {"segue.signature": call.signature, "segue.backend": call.backend, "segue.rows": call.rows}
    return facts


def _peer(peer: str) -> dict[str, str | int]:
    """An address as gRPC has it, "ipv4:127.0.0.1:5000", in the conventions' terms."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return {"network.peer.address": rest, "network.transport": kind}
    address, _, port = rest.rpartition(":")
    return {"network.peer.address": address.strip("[]"), "network.peer.port": int(port)}


def _wall(moment: float, offset: int) -> int:
    """A time of the call's clock as nanoseconds since 1970."""
    return round(moment * 1e9) + offset


def _resource() -> Resource:
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    version = {"service.version": metadata.version("segue-serving")}
    return Resource.create(version if named else {"service.name": "segue-server", **version})
