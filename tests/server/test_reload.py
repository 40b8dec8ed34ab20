"""Tests of model configurations, labels and reloading over a real channel: `server.reload` and `server.services.model`.

What clients of TensorFlow Serving see of version policies and labels is here too.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from protos.serving import inference_pb2, metadata_pb2, model_pb2, model_service_pb2
from protos.serving.config_pb2 import ModelServerConfig
from server.app import Server, ServerStartError
from server.config import ServerConfig
from server.lifecycle.awaited import Reload
from server.services.model import RELOAD, ModelService, reload_failed
from server.wire.responses import encode_predict_request
from tests.packages import Affine, joined, write_package
from tests.server.reloading import (
    ANYTHING,
    COUNTER,
    INPUTS,
    SECONDS,
    entry,
    listing,
    reload,
    reload_error,
    running,
    served,
    settings,
)
from tests.server.test_app import Code

CHANGE = "Illegal to change a model's platform. "


def test_a_configuration_file_is_served_as_it_is(
    root: Path, config_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Several places, policies and labels work from the first answer on; what is not done is in the log."""
    with running(settings(root, model_config_file=config_file)) as (_, client):
        assert served(client, "affine") == 2
        assert served(client, "affine", version=1) == 1
        assert served(client, "affine", label="stable") == 1
        assert served(client, "affine", label="canary") == 2
        assert served(client, "other") == 7
        assert client.error("Predict", encode_predict_request(INPUTS, name="other", label="stable")) == (
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: stable",
        )
    assert "model other: logging_config is ignored: requests are not recorded" in caplog.text


def test_every_method_that_names_a_version_takes_a_label(root: Path, config_file: Path) -> None:
    """GetModelMetadata answers for the labelled version; Classify, Regress and MultiInference look the label up too."""
    with running(settings(root, model_config_file=config_file)) as (_, client):
        metadata = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        metadata.model_spec.name = "affine"
        metadata.model_spec.version_label = "stable"
        reply = metadata_pb2.GetModelMetadataResponse.FromString(client.call("GetModelMetadata", metadata))
        assert reply.model_spec.version.value == 1
        unknown = (Code.INVALID_ARGUMENT, "Unrecognized servable version label: nope")
        for label in ("stable", "nope"):
            spec = model_pb2.ModelSpec(name="affine", version_label=label)
            task = inference_pb2.InferenceTask(model_spec=spec)
            requests: dict[str, Message] = {
                "Classify": inference_pb2.ClassificationRequest(model_spec=spec),
                "Regress": inference_pb2.RegressionRequest(model_spec=spec),
                "MultiInference": inference_pb2.MultiInferenceRequest(tasks=[task]),
            }
            for method, request in requests.items():
                found = client.error(method, request)
                assert found == unknown if label == "nope" else "label" not in str(found[1])


def test_one_model_from_anywhere(root: Path) -> None:
    """--model_name and --model_base_path are the short form of a configuration."""
    with running(settings(root, model_name="m", model_base_path=str(root / "place"))) as (_, client):
        assert served(client, "m") == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model_config_list {\n config { nam: 'm' } }", "models.config: line 2:11 : "),
        ("model_config_list { config { name: 'm' base_path: 'relative' model_platform: 'tensorflow' } }", "absolute"),
        (None, "models.config: No such file or directory"),
        (b"# \xff", "models.config: line 1 is not UTF-8 text"),
    ],
)
def test_a_configuration_that_cannot_be_used_stops_the_start(
    tmp_path: Path, text: str | bytes | None, problem: str
) -> None:
    """The operator reads which file and which line."""
    file = tmp_path / "models.config"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ServerStartError, match=problem):
        Server(settings(tmp_path, model_config_file=file))


def test_reloading_is_off_unless_the_operator_turns_it_on(root: Path, config_file: Path) -> None:
    """Who can reach the server cannot change it."""
    with running(settings(root, model_config_file=config_file)) as (_, client):
        assert reload_error(client, listing())[0] is Code.UNIMPLEMENTED


def test_a_reload_supersedes_what_was_served(root: Path, config_file: Path) -> None:
    """New models are available when the answer comes, omitted ones are gone, and labels move with the versions."""
    with running(settings(root, model_config_file=config_file, admin=True)) as (server, client):
        both = "model_version_policy { all {} }"
        reply = reload(
            client,
            listing(
                entry("affine", root / "place", both + "version_labels { key: 'stable' value: 2 }"),
                entry("new", root / "elsewhere" / "other"),
            ),
        )
        assert reply.HasField("status")
        assert (reply.status.error_code, reply.status.error_message) == (0, "")
        assert [(each.name, each.int64_value_increase) for each in reply.metric] == [(ANYTHING, 0), (COUNTER, 0)]
        assert served(client, "new") == 7
        assert served(client, "affine", label="stable") == 2
        with server.models._changed:
            assert server.models._changed.wait_for(
                lambda: "other" not in server.models._catalogue.now.available, SECONDS
            )
        assert client.error("Predict", encode_predict_request(INPUTS, name="other")) == (
            Code.NOT_FOUND,
            "Servable not found for request: Latest(other)",
        )
        assert client.error("Predict", encode_predict_request(INPUTS, name="affine", label="canary")) == (
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        )


def test_a_reload_tells_what_counters_have_grown_by(root: Path, config_file: Path) -> None:
    """Requests that are answered while a configuration is put into force are in the increase."""
    with running(settings(root, model_config_file=config_file, admin=True)) as (server, client):
        apply = server._reloader.apply

        def slowly(config: ModelServerConfig) -> Reload:
            served(client, "affine")
            return apply(config)

        service = ModelService(server.models, server._metrics, slowly)
        request = model_service_pb2.ReloadConfigRequest(
            config=listing(entry("affine", root / "place")), metric_names=[COUNTER]
        )
        rpc: Any = SimpleNamespace(deadline=float("inf"), cancelled=False)
        data = service.handle_reload_config_request(request.SerializeToString(), rpc)
        reply = model_service_pb2.ReloadConfigResponse.FromString(data)
        assert [(each.name, each.int64_value_increase) for each in reply.metric] == [(COUNTER, 1)]


def test_a_reload_replaces_a_repository(root: Path) -> None:
    """A server that began with a repository serves the configuration from then on, and nothing else."""
    config = ServerConfig(
        repository=root / "elsewhere", port=0, backends="onnxruntime", metrics_port=-1, lame_duck_seconds=0, admin=True
    )
    with running(config) as (_, client):
        assert served(client, "other") == 7
        reload(client, listing(entry("affine", root / "place"), entry("other", root / "elsewhere" / "other")))
        assert (served(client, "affine"), served(client, "other")) == (2, 7)


def refusals(root: Path) -> list[tuple[ModelServerConfig, Code, str]]:
    """Configurations that are refused while "affine" and "other" are served."""
    affine = entry("affine", root / "place")
    custom = ModelServerConfig()
    custom.custom_model_config.SetInParent()
    wrong_kind = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    return [
        (ModelServerConfig(), Code.INVALID_ARGUMENT, wrong_kind),
        (custom, Code.INVALID_ARGUMENT, wrong_kind),
        (
            listing(affine, affine),
            Code.INVALID_ARGUMENT,
            "Illegal to list model affine multiple times in config list",
        ),
        (
            listing(entry("affine", Path("p"))),
            Code.INVALID_ARGUMENT,
            "Expected model affine to have an absolute path or URI; got base_path()=p",
        ),
        (
            listing(affine.replace("tensorflow", "other")),
            Code.INVALID_ARGUMENT,
            f"{CHANGE}For model affine platform was tensorflow and new platform requested is other",
        ),
        (
            listing(entry("affine", root / "place", "version_labels { key: 'stable' value: 3 }")),
            Code.FAILED_PRECONDITION,
            "Request to assign label to version 3 of model affine, which is not currently available for inference",
        ),
    ]


def test_a_refused_reload_changes_nothing(root: Path, config_file: Path) -> None:
    """Code and text are TensorFlow Serving's, and what was served is served."""
    with running(settings(root, model_config_file=config_file, admin=True)) as (_, client):
        for config, code, text in refusals(root):
            assert reload_error(client, config) == (code, text)
        assert served(client, "affine", label="canary") == 2
        assert served(client, "other") == 7


def test_a_model_that_does_not_load_is_reported(root: Path) -> None:
    """The caller reads which version and why; the rest of the configuration is in force."""
    write_package(root / "bad" / "1", Affine(claimed_scale=3))
    with running(settings(root, model_base_path=str(root / "place"), admin=True)) as (_, client):
        config = listing(entry("bad", root / "bad"), entry("affine", root / "place"))
        code, text = reload_error(client, config)
        assert code is Code.UNKNOWN
        assert text is not None
        beginning = "1 model(s) did not become available: {{{name: bad version: 1} due to error: INTERNAL: The backend "
        assert text.startswith(beginning)
        assert text.endswith("}, }")
        assert served(client, "affine") == 2


def test_a_reload_that_another_one_overtakes_ends_with_the_contracts_code(root: Path) -> None:
    """Who asked for a model that a newer list leaves out hears UNKNOWN, as for any model that does not come."""
    with running(settings(root, model_base_path=str(root / "place"), admin=True)) as (server, client):
        before = server.models._reloads
        late = listing(entry("late", root / "late"))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(reload_error, client, late)
            with server.models._changed:
                assert server.models._changed.wait_for(lambda: server.models._reloads > before, SECONDS)
            reload(client, listing(entry("affine", root / "place")))
            code, text = waiting.result(SECONDS)
        assert code is Code.UNKNOWN
        assert text == (
            "1 model(s) did not become available: {{{name: late version: 0} due to error: ABORTED: another "
            "configuration has left it out}, }"
        )


def test_a_reload_waits_no_longer_than_its_caller(root: Path) -> None:
    """A place without versions is waited for until the deadline; then the server is free for the next request."""
    with running(settings(root, model_base_path=str(root / "place"), admin=True, request_threads=1)) as (_, client):
        request = model_service_pb2.ReloadConfigRequest(config=listing(entry("late", root / "late")))
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = client.channel.unary_unary(
            f"/tensorflow.serving.ModelService/{RELOAD}"
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub(request.SerializeToString(), timeout=0.2)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        code, _ = client.error("Predict", encode_predict_request(INPUTS, name="late"))
        assert code is Code.NOT_FOUND


def test_the_message_tells_the_status_too() -> None:
    """Clients that look into the response find what gRPC's own status says (grpcio's client throws it away)."""
    reply = reload_failed(Code.INVALID_ARGUMENT, "why")
    status = model_service_pb2.ReloadConfigResponse.FromString(reply).status
    assert (status.error_code, status.error_message) == (3, "why")


def test_labels_move_under_load_without_a_failed_request(root: Path, config_file: Path) -> None:
    """While a label goes back and forth every request by it is answered by a version that it had."""
    with running(settings(root, model_config_file=config_file, admin=True)) as (_, client):
        stop = threading.Event()
        answers: set[int] = set()

        def ask() -> None:
            while not stop.is_set():
                answers.add(served(client, "affine", label="stable"))

        asking = threading.Thread(target=ask, name="ask")
        with joined(asking):
            for turn in range(20):
                more = f"model_version_policy {{ all {{}} }} version_labels {{ key: 'stable' value: {turn % 2 + 1} }}"
                reload(client, listing(entry("affine", root / "place", more)))
            stop.set()
        assert answers <= {1, 2}
        assert served(client, "affine", label="stable") == 2
