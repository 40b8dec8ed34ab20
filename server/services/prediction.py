"""tensorflow.serving.PredictionService: Predict and GetModelMetadata."""

import time
from collections.abc import Mapping, Sequence

from protos.serving import metadata_pb2
from server import calls
from server.arrays import Array
from server.errors import InvalidRequest
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Servable
from server.metrics import Metrics
from server.services.edge import Method
from server.services.statuses import acquire, parse, peek_loaded_model
from server.services.transport import Rpc
from server.signatures import Call, ServedSignature
from server.wire.requests import (
    PredictRequest,
    is_known_layout,
    parse_predict_request,
    spec_from_proto,
)
from server.wire.responses import encode_predict_response

SIGNATURE_DEF = "signature_def"

# Whatever is in a request of this size, it is parsed in about a millisecond.
_SMALL_BYTES = 1 << 12

# Requests whose arrays take more than this are never run in the polling thread.
_QUICK_BYTES = 1 << 18


class PredictionService:
    """The methods of one server."""

    def __init__(self, models: ModelManager, metrics: Metrics, *, tensor_content: bool = False) -> None:
        self._models = models
        self.metrics = metrics
        self.tensor_content = tensor_content

    def methods(self) -> dict[str, Method]:
        """The methods that are no prediction, by their names in the service."""
        return {"GetModelMetadata": self.get_model_metadata}

    def model_of(self, data: bytes) -> str:
        """See edge.Predictor."""
        return peek_loaded_model(self._models, data)

    def is_plain(self, data: bytes) -> bool:
        """See edge.Predictor."""
        return len(data) <= _SMALL_BYTES or (len(data) <= _QUICK_BYTES and is_known_layout(data))

    def prepare(self, data: bytes, rpc: Rpc) -> "Prediction":
        """See edge.Predictor."""
        begin = time.perf_counter()
        request = parse_predict_request(data)
        servable = acquire(self._models, request.model_spec)
        try:
            assert request.model_spec is not None  # noqa: S101 - acquire has refused requests without one
            signature = servable.signature(request.model_spec.signature_name)
            memory = sum(tensor.nbytes for tensor in request.inputs.values())
            return Prediction(self, servable, signature, request, rpc=rpc, begin=begin, size=len(data), memory=memory)
        except BaseException:
            servable.release()
            raise

    def get_model_metadata(self, data: bytes, _rpc: Rpc) -> bytes:
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
            self.metrics.ended("GetModelMetadata", servable.name, "OK")
            return reply.SerializeToString()
        finally:
            servable.release()


class Prediction:
    """See edge.Prediction."""

    __slots__ = (
        "_begin",
        "_call",
        "_memory",
        "_request",
        "_rpc",
        "_servable",
        "_service",
        "_signature",
        "_size",
        "model",
    )

    def __init__(
        self,
        service: PredictionService,
        servable: Servable,
        signature: ServedSignature,
        request: PredictRequest,
        *,
        rpc: Rpc,
        begin: float,
        size: int,
        memory: int,
    ) -> None:
        self.model = servable.name
        self._service = service
        self._servable = servable
        self._signature = signature
        self._request = request
        self._rpc = rpc
        self._begin = begin
        self._size = size
        self._memory = memory
        self._call: Call | None = None

    def memory(self) -> int:
        """See edge.Prediction."""
        return self._memory

    def together(self) -> int:
        """See edge.Prediction."""
        return self._servable.rows_together(self._signature)

    def answer_now(self) -> bytes | None:
        """See edge.Prediction: judged by how long the signature took of late for requests of such a size."""
        if self._memory > _QUICK_BYTES or not self._signature.quickness.is_quick(self._size):
            return None
        call = self._bound()
        begin = time.perf_counter()
        arrays = self._servable.run_now(self._signature, call.feeds, [name for _, name in call.outputs])
        return None if arrays is None else self._finish(call, arrays, begin)

    def answer(self) -> bytes:
        """See edge.Prediction."""
        call = self._bound()
        begin = time.perf_counter()
        names = [name for _, name in call.outputs]
        rpc = self._rpc
        arrays = self._servable.run(self._signature, call.feeds, names, rpc.deadline, rpc.is_cancelled)
        return self._finish(call, arrays, begin)

    def _bound(self) -> Call:
        """The feeds and outputs, checked and made once: `answer` follows an `answer_now` that had to wait."""
        if self._call is None:
            self._call = self._signature.call(self._request.inputs, self._request.output_filter)
        return self._call

    def _finish(self, call: Call, arrays: Sequence[Array], run_begin: float) -> bytes:
        """Encode the answer, and note what it took."""
        run_end = time.perf_counter()
        servable, signature, service = self._servable, self._signature, self._service
        reply = encode_predict_response(
            [(alias, array) for (alias, _), array in zip(call.outputs, arrays, strict=True)],
            name=servable.name,
            version=servable.version,
            signature_name=signature.name,
            as_content=service.tensor_content,
        )
        signature.quickness.observe(self._size, run_end - run_begin)
        backend, bucket, begin = servable.backend_name, 0, self._begin
        if (exchange := calls.current()) is not None:
            exchange.ran(signature.name, _rows(call.feeds), (run_begin, run_end))
            backend, bucket, begin = exchange.backend, exchange.bucket, exchange.begin
        metrics = service.metrics
        timer = metrics.timer(servable.name, servable.version, signature.name, backend, "Predict", bucket)
        timer.ran(exchange, run_begin, run_end)
        timer.answered(exchange, begin, run_end, time.perf_counter())
        metrics.ended("Predict", servable.name, "OK")
        return reply

    def release(self) -> None:
        """See edge.Prediction."""
        self._servable.release()


def _rows(feeds: Mapping[str, Array]) -> int:
    """The first dimension; 0 without inputs, or if they are scalars."""
    shape = next((array.shape for array in feeds.values()), ())
    return int(shape[0]) if shape else 0
