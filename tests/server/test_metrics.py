"""Tests of `server.metrics`, `server.tensorflow_metrics` and `server.metrics_page`."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import request_metrics
from protos.serving import inference_pb2
from server.app import Server, ServerStartError
from server.config import ServerConfig
from server.lifecycle.states import State
from server.metrics import Metrics
from server.wire.responses import encode_predict_request
from tests.packages import Affine, write_package
from tests.server.test_exposition import PROMETHEUS_2
from tests.servers import INPUTS, call, code_of, running

THEIRS = "/monitoring/prometheus/metrics"

# From the contract: TensorFlow Serving's util.cc, saved_model_warmup_util.cc and batching_session.cc.
CONTRACT = {
    ":tensorflow:serving:request_count": ("counter", {"model_name", "status"}),
    ":tensorflow:serving:request_latency": ("histogram", {"model_name", "API", "entrypoint"}),
    ":tensorflow:serving:runtime_latency": ("histogram", {"model_name", "API", "runtime"}),
    ":tensorflow:serving:request_example_counts": ("histogram", {"model"}),
    ":tensorflow:serving:request_example_count_total": ("counter", {"model"}),
    ":tensorflow:serving:model_warmup_latency": ("histogram", {"model_path", "status"}),
    ":tensorflow:serving:batching_session:queuing_latency": ("histogram", {"thread_pool_name"}),
    ":tensorflow:serving:batching_session:wrapped_run_count": ("counter", set()),
}


def classify_request(examples: int) -> bytes:
    """A ClassificationRequest that reaches the model's signature, which is no classification."""
    request = inference_pb2.ClassificationRequest()
    request.model_spec.name = "affine"
    for _ in range(examples):
        request.input.example_list.examples.add()
    return request.SerializeToString()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has answered three requests and refused two."""
    folder = tmp_path_factory.mktemp("metrics")
    config = folder / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/their/own" }')
    with running(folder / "models", metrics_port=0, monitoring_config_file=config) as made:
        with grpc.insecure_channel(f"127.0.0.1:{made.port}") as channel:
            for _ in range(3):
                call(channel)
            code_of(channel, request=encode_predict_request(INPUTS, name="made-up"))
            code_of(channel, request=encode_predict_request(INPUTS, name="affine", signature_name="nope"))
        yield made


def page(server: Server, path: str) -> str:
    """The text of a page."""
    with urlopen(f"http://127.0.0.1:{server.metrics_port}{path}", timeout=20) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = reply.read().decode()
    return text


def families(text: str) -> list[Metric]:
    """What prometheus_client's own parser finds; it adds "_total" to counters that have none."""
    return list(text_string_to_metric_families(text))


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one sample."""
    assert f"\n{name}{{" in text
    names = {name, f"{name}_total"}
    found = [s.value for f in families(text) for s in f.samples if s.name in names and s.labels == labels]
    assert len(found) == 1, (name, labels, text)
    return found[0]


@pytest.mark.parametrize("path", ["/metrics", THEIRS, "/their/own", "/metrics?x=1"])
def test_every_page_tells_all_under_both_names(server: Server, path: str) -> None:
    """Ours and TensorFlow Serving's, at our path, at theirs and where monitoring_config_file wants it."""
    text = page(server, path)
    ours = {"model": "affine", "version": "1", "signature": "serving_default", "backend": "onnxruntime-cpu"}
    ours["bucket"] = "1"
    assert sample(text, "segue_request_latency_seconds_count", **ours) == 3
    assert sample(text, "segue_batch_run_seconds_bucket", le="30.0", **ours) == 3
    assert sample(text, "segue_backend_selected", **ours) == 1
    for stage in ("run", "encode"):
        assert sample(text, "segue_request_stage_seconds_count", stage=stage, **ours) == 3
    assert sample(text, "segue_requests_total", method="Predict", model="affine", code="OK") == 3
    assert sample(text, ":tensorflow:serving:request_count", model_name="affine", status="OK") == 3
    latency = {"model_name": "affine", "API": "Predict", "entrypoint": "GRPC"}
    assert sample(text, ":tensorflow:serving:request_latency_count", **latency) == 3
    assert sample(text, ":tensorflow:serving:request_latency_bucket", le="+Inf", **latency) == 3
    runtime = {"model_name": "affine", "API": "Predict", "runtime": "onnxruntime-cpu"}
    assert sample(text, ":tensorflow:serving:runtime_latency_count", **runtime) == 3
    warmup = {"model_path": "affine/1", "status": "OK"}
    assert sample(text, ":tensorflow:serving:model_warmup_latency_count", **warmup) == 1


def test_the_names_types_and_labels_are_the_contracts(server: Server) -> None:
    """Each family of TensorFlow Serving's that has a meaning here, and no other, with its labels."""
    server._metrics.examples("affine", 3)
    text = page(server, THEIRS)
    types = dict(re.findall(r"^# TYPE (:\S+) (\S+)$", text, re.MULTILINE))
    assert types == {name: kind for name, (kind, _) in CONTRACT.items()}
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(:\S+?)\{(.*)\} \S+$", text, re.MULTILINE):
        family = next(each for each in (name, re.sub("_(bucket|sum|count)$", "", name)) if each in types)
        found.setdefault(family, set()).update(set(re.findall(r'(\w+)="', labels)) - {"le"})
    assert found == {name: labels for name, (_, labels) in CONTRACT.items()}


def test_the_unit_and_the_buckets_are_tensorflow_servings(server: Server) -> None:
    """Microseconds, in the bounds that its dashboards' quantiles are computed from."""
    text = page(server, THEIRS)
    bounds = re.findall(r':request_latency_bucket\{.*API="Predict".*le="(.*?)"\}', text)
    assert bounds[:4] == ["10", "18", "32.4", "58.32"]
    assert (len(bounds), bounds[-1]) == (34, "+Inf")
    latency = {"model_name": "affine", "API": "Predict", "entrypoint": "GRPC"}
    ours = {"model": "affine", "version": "1", "signature": "serving_default", "backend": "onnxruntime-cpu"}
    ours["bucket"] = "1"
    theirs = sample(text, ":tensorflow:serving:request_latency_sum", **latency)
    assert theirs == pytest.approx(1e6 * sample(text, "segue_request_latency_seconds_sum", **ours))
    assert theirs > 10


def test_failures_belong_to_the_model_that_was_found_and_made_up_names_to_none(server: Server) -> None:
    """An alert on one model's errors works; names that only a client knows make no series."""
    text = page(server, THEIRS)
    assert sample(text, ":tensorflow:serving:request_count", model_name="", status="NOT_FOUND") == 1
    assert sample(text, ":tensorflow:serving:request_count", model_name="affine", status="FAILED_PRECONDITION") == 1
    assert "made-up" not in text


def test_who_accepts_open_metrics_gets_them(server: Server) -> None:
    """Prometheus asks for them by itself; whoever does not say gets the text format, on every path."""
    for path in ("/metrics", THEIRS):
        asked = Request(f"http://127.0.0.1:{server.metrics_port}{path}", headers={"Accept": PROMETHEUS_2})
        with urlopen(asked, timeout=20) as reply:  # noqa: S310 - our own
            assert reply.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            assert reply.headers["Vary"] == "Accept"
            assert reply.read().endswith(b"# EOF\n")
        assert "# EOF" not in page(server, path)


def test_no_other_path_has_a_page(server: Server) -> None:
    """A scraper with a wrong path reads that, not something else's metrics."""
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{server.metrics_port}/metric", timeout=20)


def test_batches_are_told_under_tensorflow_servings_names(server: Server) -> None:
    """Its buckets, 100 microseconds and 51 times a fifth more; a reload tells how much the counter has grown."""
    text = page(server, THEIRS)
    pool = {"thread_pool_name": "batch_threads"}
    name = ":tensorflow:serving:batching_session:queuing_latency"
    assert sample(text, f"{name}_count", **pool) == 3
    assert sample(text, f"{name}_bucket", le="100", **pool) == 3
    bounds = re.findall(r':queuing_latency_bucket\{.*le="(.*?)"\}', text)
    assert (len(bounds), bounds[1:3], bounds[-1]) == (53, ["120", "144"], "+Inf")
    runs = ":tensorflow:serving:batching_session:wrapped_run_count"
    assert sample(text, runs) == server._metrics.counted(runs.replace(":", "/")) == 3


def test_counters_do_not_go_back_when_a_version_goes(tmp_path: Path) -> None:
    """What is summed over versions keeps the requests of those that are gone; per-version series go with them."""
    write_package(tmp_path / "affine" / "1")
    with running(tmp_path, metrics_port=0, poll_seconds=0) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call(channel)
        before = page(server, THEIRS)
        shutil.rmtree(tmp_path / "affine")
        server.models.poll()
        after = page(server, THEIRS)
        assert server.models.statuses("affine")[0].state is State.END
    latency = {"model_name": "affine", "API": "Predict", "entrypoint": "GRPC"}
    name = ":tensorflow:serving:request_latency_count"
    assert sample(before, name, **latency) == sample(after, name, **latency) == 1
    runs = ":tensorflow:serving:batching_session:wrapped_run_count"
    assert sample(before, runs) == sample(after, runs) == 1
    assert "segue_request_latency_seconds_count{" in before
    assert "segue_request_latency_seconds_count{" not in after
    assert "model_path" not in after


def test_the_state_of_a_failed_version_goes_with_its_folder(tmp_path: Path) -> None:
    """As long as it is there an alert can be raised on it; the count of failures stays."""
    write_package(tmp_path / "affine" / "1")
    write_package(tmp_path / "affine" / "2", Affine(claimed_scale=3))
    with running(tmp_path, metrics_port=0, poll_seconds=0) as server:
        before = page(server, "/metrics")
        shutil.rmtree(tmp_path / "affine" / "2")
        wait(server.models.poll())
        after = page(server, "/metrics")
    assert sample(before, "segue_model_version_state", model="affine", version="2") == State.END
    assert sample(after, "segue_model_version_state", model="affine", version="1") == State.AVAILABLE
    assert 'version="2"' not in after
    assert sample(after, "segue_model_load_failures_total", model="affine") == 1


def test_the_examples_of_a_request_are_counted() -> None:
    """TensorFlow Serving's buckets for them: 1, 2, 4 to 16384."""
    metrics = Metrics()
    for count in (1, 3, 20_000):
        metrics.examples("m", count)
    text = metrics.page().decode()
    name = ":tensorflow:serving:request_example_counts"
    found = [sample(text, f"{name}_bucket", model="m", le=le) for le in ("1", "2", "4", "16384", "+Inf")]
    assert found == [1, 1, 2, 2, 3]
    assert sample(text, f"{name}_sum", model="m") == 20_004
    assert sample(text, ":tensorflow:serving:request_example_count_total", model="m") == 20_004


def test_a_requests_metrics_cost_little() -> None:
    """At most 15 microseconds, the best of several rounds, for all that a successful Predict counts."""
    assert min(request_metrics.per_request(rounds=5, requests=2000).values()) < 15e-6


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        ("prometheus_config { enabled: true }", "has no field named"),
        ('prometheus_config { enable: true path: "metrics" }', "path must begin with a slash, not 'metrics'"),
    ],
)
def test_a_monitoring_config_that_cannot_be_followed_stops_the_start(
    tmp_path: Path, content: str | None, text: str
) -> None:
    """With the file and what is wrong in it."""
    file = tmp_path / "monitoring.config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ServerStartError, match=f"{file}.*{text}"):
        Server(ServerConfig(port=0, metrics_port=-1, monitoring_config_file=file))
