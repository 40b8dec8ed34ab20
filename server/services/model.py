"""tensorflow.serving.ModelService: GetModelStatus, and HandleReloadConfigRequest where the operator allows it."""

import math
import time
from collections.abc import Callable, Mapping

import grpc

from protos.serving import model_service_pb2
from protos.serving.config_pb2 import ModelServerConfig
from protos.tensorflow import errors_pb2
from server.errors import InvalidRequest, ModelsUnavailable, SegueError
from server.lifecycle.awaited import Reload
from server.lifecycle.manager import ModelManager
from server.lifecycle.states import VersionStatus
from server.metrics import Metrics
from server.services.edge import Method
from server.services.exchange import ErrorReply
from server.services.statuses import parse, status_code
from server.services.transport import Rpc

RELOAD = "HandleReloadConfigRequest"


class ModelService:
    """The methods of one server."""

    def __init__(
        self, models: ModelManager, metrics: Metrics, apply: Callable[[ModelServerConfig], Reload] | None = None
    ) -> None:
        """Make the service.

        Args:
            models: what is served.
            metrics: counts how requests end.
            apply: puts a configuration into force; None refuses to, as the default.
        """
        self._models = models
        self._metrics = metrics
        self._apply = apply

    def admin_methods(self) -> dict[str, Method]:
        """Methods that change what is served, by their names in the service; none without leave."""
        return {RELOAD: self.handle_reload_config_request} if self._apply is not None else {}

    def error_replies(self) -> dict[str, ErrorReply]:
        """Messages that tell the status too."""
        return {RELOAD: reload_failed}

    def get_model_status(self, data: bytes, _rpc: Rpc) -> bytes:
        """Answer with the state of one version or of all; a label is ignored, as TensorFlow Serving does."""
        request = parse(model_service_pb2.GetModelStatusRequest, data)
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        spec = request.model_spec
        statuses = self._models.statuses(spec.name, spec.version.value if spec.HasField("version") else None)
        reply = model_service_pb2.GetModelStatusResponse()
        for status in statuses:
            reply.model_version_status.append(_entry(status))
        self._metrics.ended("GetModelStatus", spec.name, "OK")  # a model that has a status has been found
        return reply.SerializeToString()

    def handle_reload_config_request(self, data: bytes, rpc: Rpc) -> bytes:
        """Replace what is served, and answer when the models that are new are available.

        The increase that the counters in metric_names had meanwhile is told, as by TensorFlow Serving's
        model_service_impl.cc: 0 for names that are no counters of this server. Where it looks at one model's counter of
        several, whichever comes first, all are added up.
        """
        assert self._apply is not None  # noqa: S101 - `methods` does not offer the method else
        request = parse(model_service_pb2.ReloadConfigRequest, data)
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        names = dict.fromkeys(request.metric_names)
        before = {name: self._metrics.counted(name) for name in names}
        reload = self._apply(request.config)
        left = rpc.deadline - time.monotonic()
        failed = self._models.wait_for(reload, left if math.isfinite(left) else None, lambda: not rpc.cancelled)
        if failed:
            raise ModelsUnavailable(_unavailable(failed))
        reply = model_service_pb2.ReloadConfigResponse()
        reply.status.SetInParent()
        for name, count in before.items():
            reply.metric.add(name=name, int64_value_increase=self._metrics.counted(name) - count)
        self._metrics.ended(RELOAD, "", "OK")
        return reply.SerializeToString()


def _unavailable(failed: Mapping[str, VersionStatus]) -> str:
    """The text of TensorFlow Serving's server_core.cc."""
    models = (
        f"{{{{name: {name} version: {status.version}}} due to error: {_cause(status.error)}}}, "
        for name, status in sorted(failed.items())
    )
    return f"{len(failed)} model(s) did not become available: {{{''.join(models)}}}"


def _cause(error: SegueError | None) -> str:
    return "" if error is None else f"{status_code(error).name}: {error.message}"


def reload_failed(code: grpc.StatusCode, text: str) -> bytes:
    """The message that goes with a configuration's refusal."""
    return model_service_pb2.ReloadConfigResponse(status=_status(code, text)).SerializeToString()


def _entry(status: VersionStatus) -> model_service_pb2.ModelVersionStatus:
    outcome = model_service_pb2.StatusProto()
    if status.error is not None:
        outcome = _status(status_code(status.error), status.error.message)
    return model_service_pb2.ModelVersionStatus(version=status.version, state=status.state.name, status=outcome)


def _status(code: grpc.StatusCode, text: str) -> model_service_pb2.StatusProto:
    number: int = code.value[0]
    return model_service_pb2.StatusProto(error_code=errors_pb2.Code.Name(number), error_message=text)
