"""tensorflow.serving.ModelService: GetModelStatus."""

import grpc

from protos.serving import model_service_pb2
from protos.tensorflow import errors_pb2
from server.errors import InvalidRequest
from server.lifecycle.manager import ModelManager
from server.lifecycle.states import VersionStatus
from server.services.edge import Method, parse, status_code


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
            reply.model_version_status.append(_entry(status))
        return reply.SerializeToString()


def _entry(status: VersionStatus) -> model_service_pb2.ModelVersionStatus:
    outcome = model_service_pb2.StatusProto()
    if status.error is not None:
        code: int = status_code(status.error).value[0]
        outcome = model_service_pb2.StatusProto(
            error_code=errors_pb2.Code.Name(code), error_message=status.error.message
        )
    return model_service_pb2.ModelVersionStatus(version=status.version, state=status.state.name, status=outcome)
