"""tensorflow.serving.PredictionService: Predict and GetModelMetadata."""

import time

import grpc

from protos.serving import metadata_pb2
from server.errors import InvalidRequest
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Servable
from server.metrics import Metrics
from server.services.edge import Method, acquire, cancelled, deadline, parse
from server.wire.requests import PredictRequest, parse_predict_request, spec_from_proto
from server.wire.responses import encode_predict_response

SIGNATURE_DEF = "signature_def"


class PredictionService:
    """The methods of one server."""

    def __init__(self, models: ModelManager, metrics: Metrics, *, tensor_content: bool = False) -> None:
        self._models = models
        self._metrics = metrics
        self._tensor_content = tensor_content

    def methods(self) -> dict[str, Method]:
        """Methods by their names in the service."""
        return {"Predict": self.predict, "GetModelMetadata": self.get_model_metadata}

    def predict(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one PredictRequest with one PredictResponse, both as bytes."""
        begin = time.perf_counter()
        request = parse_predict_request(data)
        servable = acquire(self._models, request.model_spec)
        try:
            return self._predict(servable, request, begin, context)
        finally:
            servable.release()

    def _predict(
        self, servable: Servable, request: PredictRequest, begin: float, context: grpc.ServicerContext
    ) -> bytes:
        assert request.model_spec is not None  # noqa: S101 - acquire has refused requests without one
        signature = servable.signature(request.model_spec.signature_name)
        call = signature.call(request.inputs, request.output_filter)
        timer = self._metrics.timer(servable.name, servable.version, signature.name, servable.backend_name)
        run_begin = time.perf_counter()
        wanted = [onnx_name for _, onnx_name in call.outputs]
        arrays = servable.run(signature, call.feeds, wanted, deadline(context), cancelled(context))
        run_end = time.perf_counter()
        reply = encode_predict_response(
            [(alias, array) for (alias, _), array in zip(call.outputs, arrays, strict=True)],
            name=servable.name,
            version=servable.version,
            signature_name=signature.name,
            as_content=self._tensor_content,
        )
        timer.run.observe(run_end - run_begin)
        timer.latency.observe(time.perf_counter() - begin)
        self._metrics.ended("Predict", servable.name, "OK")
        return reply

    def get_model_metadata(self, data: bytes, _context: grpc.ServicerContext) -> bytes:
        """Answer with the SignatureDefs of a version."""
        request = parse(metadata_pb2.GetModelMetadataRequest, data)
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        if not request.metadata_field:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise InvalidRequest(f"Metadata field {field} is not supported")
        servable = acquire(self._models, spec_from_proto(request.model_spec))
        try:
            reply = metadata_pb2.GetModelMetadataResponse()
            reply.model_spec.name = servable.name
            reply.model_spec.version.value = servable.version
            reply.metadata[SIGNATURE_DEF].Pack(servable.signature_map)
            self._metrics.ended("GetModelMetadata", servable.name, "OK")
            return reply.SerializeToString()
        finally:
            servable.release()
