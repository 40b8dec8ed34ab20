"""Tests of `server.tracing` against a collector that runs in the test: a real OTLP receiver over gRPC."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from server.app import Server
from server.logs import formatter
from server.wire.responses import encode_predict_request
from tests.e2e.processes import ROOT
from tests.prometheus import scraping
from tests.servers import INPUTS, call, code_of, running

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METHOD = "tensorflow.serving.PredictionService/Predict"


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    requests: list[trace_service_pb2.ExportTraceServiceRequest] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def Export(  # noqa: N802 - the method's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans."""
        self.requests.append(request)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        """All that came."""
        resources = [resource for request in self.requests for resource in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    made = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def facts(span: Span) -> dict[str, str | int]:
    """A span's attributes."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def called(server: Server, metadata: Sequence[tuple[str, str]] = ()) -> None:
    """One request that is answered and one that is refused."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call(channel, metadata=metadata)
        code_of(channel, request=encode_predict_request(INPUTS, name="unknown"))


def test_a_request_is_a_span_with_its_parts(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    """Below the client's span, with what served it; its parts follow one another within it."""
    received, endpoint = collector
    with running(tmp_path, otlp_endpoint=endpoint) as server:
        called(server, [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "mine")])
    both = [span for span in received.spans() if span.name == METHOD]
    served, refused = sorted(both, key=lambda span: facts(span)["rpc.response.status_code"] != "OK")
    assert (served.trace_id.hex(), served.parent_span_id.hex()) == (TRACE, PARENT)
    assert served.kind == Span.SPAN_KIND_SERVER
    answered_by = {
        "segue.model": "affine",
        "segue.version": 1,
        "segue.signature": "serving_default",
        "segue.backend": "onnxruntime-cpu",
        "segue.rows": 1,
    }
    rpc = {"rpc.system.name": "grpc", "rpc.method": METHOD, "rpc.response.status_code": "OK"}
    assert facts(served).items() >= {**answered_by, **rpc, "segue.request_id": "mine"}.items()
    assert facts(served)["network.peer.address"] == "127.0.0.1"
    parts = [span for span in received.spans() if span.parent_span_id == served.span_id]
    assert [span.name for span in parts] == ["parse", "admission", "run", "encode"]
    assert all(facts(span).items() >= answered_by.items() for span in parts)
    moments = [served.start_time_unix_nano]
    for part in parts:
        moments += [part.start_time_unix_nano, part.end_time_unix_nano]
    moments.append(served.end_time_unix_nano)
    assert moments == sorted(moments)
    assert refused.trace_id != served.trace_id
    assert facts(refused)["rpc.response.status_code"] == "NOT_FOUND"
    assert "segue.model" not in facts(refused)
    assert refused.status.code == Status.STATUS_CODE_UNSET


def test_waiting_for_a_batch_is_a_part(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    """Where requests are batched, what they waited is told from what they ran."""
    received, endpoint = collector
    with running(tmp_path, otlp_endpoint=endpoint, max_batch_size=4, batch_timeout_micros=20_000) as server:
        called(server)
    queue, run = (next(span for span in received.spans() if span.name == name) for name in ("queue", "run"))
    assert queue.end_time_unix_nano == run.start_time_unix_nano
    assert queue.end_time_unix_nano - queue.start_time_unix_nano > 10_000_000


def test_a_trace_that_the_client_does_not_sample_is_not_sent(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    """The parent's decision holds."""
    received, endpoint = collector
    with running(tmp_path, otlp_endpoint=endpoint) as server:
        called(server, [("traceparent", f"00-{TRACE}-{PARENT}-00")])
    assert [span.trace_id.hex() for span in received.spans() if span.trace_id.hex() == TRACE] == []
    assert len(received.spans()) == 1


def test_the_log_names_the_trace(
    tmp_path: Path, collector: tuple[Collector, str], caplog: pytest.LogCaptureFixture
) -> None:
    """From a line in the log to the trace, and back."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter("json").format(record))

    handler = Handler()
    logging.getLogger("server.requests").addHandler(handler)
    with caplog.at_level("INFO"), running(tmp_path, otlp_endpoint=collector[1], log_requests="all") as server:
        called(server, [("traceparent", f"00-{TRACE}-{PARENT}-01")])
    logging.getLogger("server.requests").removeHandler(handler)
    assert sum(f'"trace_id": "{TRACE}"' in line for line in lines) == 1


def test_a_collector_that_is_not_there_disturbs_nobody(tmp_path: Path) -> None:
    """Requests are answered, and the end does not wait for it."""
    with running(tmp_path, otlp_endpoint="http://127.0.0.1:1") as server:
        called(server)


def test_without_an_endpoint_nothing_is_imported(tmp_path: Path) -> None:
    """A server without traces neither needs nor pays for OpenTelemetry."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom server.app import Server\nfrom server.config import ServerConfig\n"
        f"Server(ServerConfig(Path({str(tmp_path)!r}), port=0, metrics_port=-1, backends='onnxruntime')).stop()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_traces_without_what_they_need_stop_the_start(tmp_path: Path) -> None:
    """The operator reads what to install."""
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from pathlib import Path\nfrom server.app import Server\nfrom server.config import ServerConfig\n"
        f"Server(ServerConfig(Path({str(tmp_path)!r}), port=0, metrics_port=-1, otlp_endpoint='http://h:1'))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=False, timeout=60, capture_output=True, text=True)
    assert "pip install 'segue-serving[traces]'" in done.stderr


def test_prometheus_finds_the_trace_of_a_slow_request(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    """The latency of a traced request has its trace's id as an exemplar; one that is not sampled leaves none."""
    _, endpoint = collector
    with running(tmp_path, otlp_endpoint=endpoint) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call(channel, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
            assert " # {" not in server._metrics.open_page().decode()
            call(channel, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        lines = server._metrics.open_page().decode().splitlines()
        assert " # {" not in server._metrics.page().decode()
    (line,) = [line for line in lines if " # {" in line]
    assert line.startswith("segue_request_latency_seconds_bucket{")
    assert f' # {{trace_id="{TRACE}"}} 0.' in line


@pytest.mark.slow
def test_a_real_prometheus_keeps_the_trace(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    """Asked for exemplars of the latency, it gives the id by which the trace is found."""
    _, endpoint = collector
    with running(tmp_path / "models", otlp_endpoint=endpoint, metrics_port=0) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call(channel, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        with scraping(tmp_path / "data", [f"127.0.0.1:{server.metrics_port}"]) as prometheus:
            prometheus.until("segue_request_latency_seconds_count")
            now = time.time()
            name = "segue_request_latency_seconds_bucket"
            (found,) = prometheus.ask("query_exemplars", query=name, start=str(now - 600), end=str(now + 600))
    assert found["seriesLabels"]["model"] == "affine"
    assert [exemplar["labels"] for exemplar in found["exemplars"]] == [{"trace_id": TRACE}]
