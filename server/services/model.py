"""tensorflow.serving.ModelService: GetModelStatus."""

import grpc

from protos.serving import model_service_pb2
from server.errors import InvalidRequest
from server.lifecycle.manager import ModelManager
from server.lifecycle.states import VersionStatus
from server.services.edge import Method, parse, status_code, status_text


class ModelService:
    """The methods of one server."""

    def __init__(self, models: ModelManager) -> None:
        self._models = models

    def methods(self) -> dict[str, Method]:
        """Methods by their names in the service."""
        return {"GetModelStatus": self.get_model_status}

    def get_model_status(self, data: bytes, _context: grpc.ServicerContext) -> bytes:
        """Answer with the state of one version or of all; a label is ignored, as TensorFlow Serving does."""
        request = parse(model_service_pb2.GetModelStatusRequest, data)
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        spec = request.model_spec
        statuses = self._models.statuses(spec.name, spec.version.value if spec.HasField("version") else None)
        reply = model_service_pb2.GetModelStatusResponse()
        for status in statuses:
            _fill(reply.model_version_status.add(), status)
        return reply.SerializeToString()


def _fill(entry: model_service_pb2.ModelVersionStatus, status: VersionStatus) -> None:
    entry.version = status.version
    entry.state = model_service_pb2.ModelVersionStatus.State.ValueType(status.state)
    entry.status.SetInParent()
    if status.error is not None:
        entry.status.error_code = status_code(status.error).value[0]
        entry.status.error_message = status_text(status.error.message)
