"""tensorflow.serving.PredictionService: Classify, Regress and MultiInference.

The texts are TensorFlow Serving's; the rules of signatures and results are in server/inference.py.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from protos.serving import inference_pb2, model_pb2
from server import calls, inference
from server.arrays import Array
from server.errors import InvalidRequest, MethodUnsupported
from server.examples import columns, rows_of
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Servable
from server.metrics import Metrics
from server.request_metrics import RequestTimer
from server.services.edge import Method
from server.services.statuses import acquire, parse, peek_loaded_model
from server.services.transport import Rpc
from server.signatures import DEFAULT_SIGNATURE, ServedSignature
from server.wire.merging import Inner
from server.wire.requests import spec_from_proto
from server.wire.scanner import Allowance

Result = TypeVar("Result", inference_pb2.ClassificationResult, inference_pb2.RegressionResult)

# Where the Examples of a request lie, for all three kinds: input, then example_list or example_list_with_context.
_LISTS: Inner = {0x12: {0x0A: None, 0x12: None}}
# A row takes a microsecond in Python before it is parsed: four seconds for as many as this, and nobody sends more.
_MOST_FIELDS = 1 << 22

T = TypeVar("T", bound=Message)

_NO_SIGNATURE = "No signature was found with the name"
_NOT_IN_GRAPH = "Requested signature not found in model graph"


@dataclass(frozen=True, slots=True)
class _Run:
    """What a signature has answered: outputs by alias, the number of rows, and for its metrics when that was."""

    outputs: Mapping[str, Array]
    rows: int
    timer: RequestTimer
    begin: float
    end: float


class InferenceService:
    """The methods of one server that take Examples."""

    def __init__(self, models: ModelManager, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    def methods(self) -> dict[str, Method]:
        """Methods by their names in the service."""
        return {"Classify": self.classify, "Regress": self.regress, "MultiInference": self.multi_inference}

    def model_of(self, data: bytes) -> str:
        """The model whose turn a request takes."""
        return peek_loaded_model(self._models, data, depths=(0, 1))

    def classify(self, data: bytes, rpc: Rpc) -> bytes:
        """Answer a ClassificationRequest."""
        request = _parsed(inference_pb2.ClassificationRequest, data)
        check, make = inference.check_classification, inference.classification_result
        return self._answer(request, "Classify", check, make, inference_pb2.ClassificationResponse, rpc=rpc)

    def regress(self, data: bytes, rpc: Rpc) -> bytes:
        """Answer a RegressionRequest."""
        request = _parsed(inference_pb2.RegressionRequest, data)
        check, make = inference.check_regression, inference.regression_result
        return self._answer(request, "Regress", check, make, inference_pb2.RegressionResponse, rpc=rpc)

    def multi_inference(self, data: bytes, rpc: Rpc) -> bytes:
        """Answer a MultiInferenceRequest: several signatures of one version on the same Examples."""
        request = _parsed(inference_pb2.MultiInferenceRequest, data)
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        reply = inference_pb2.MultiInferenceResponse()
        with acquire(self._models, spec_from_proto(spec)).leased() as servable:
            checked = _check_tasks(request.tasks, servable.signatures)
            runs = []
            for task, (signature, wanted) in zip(request.tasks, checked, strict=True):
                run = self._run(servable, signature, wanted, request.input, method="MultiInference", rpc=rpc)
                runs.append(run)
                result = reply.results.add(model_spec=_spec(servable, signature))
                if task.method_name == inference.CLASSIFY:
                    result.classification_result.CopyFrom(inference.classification_result(run.outputs, run.rows))
                else:
                    result.regression_result.CopyFrom(inference.regression_result(run.outputs, run.rows))
            return self._encoded(reply, "MultiInference", servable, runs)

    def _encoded(self, reply: Message, method: str, servable: Servable, runs: Sequence[_Run]) -> bytes:
        """The bytes of an answer; counts the request for each of its runs."""
        data = reply.SerializeToString()
        end, call = time.perf_counter(), calls.current()
        for run in runs:
            run.timer.answered(call, run.begin, runs[-1].end, end)
        self._metrics.ended(method, servable.name, "OK")
        return data

    def _answer(
        self,
        request: inference_pb2.ClassificationRequest | inference_pb2.RegressionRequest,
        method: str,
        check: Callable[[ServedSignature], tuple[str, ...]],
        make: Callable[[Mapping[str, Array], int], Result],
        reply_of: Callable[..., Message],
        *,
        rpc: Rpc,
    ) -> bytes:
        """Answer with the result of one signature, made of its outputs and the number of rows."""
        spec = spec_from_proto(request.model_spec) if request.HasField("model_spec") else None
        with acquire(self._models, spec).leased() as servable:
            signature = inference.find_signature(servable.signatures, request.model_spec.signature_name, _NO_SIGNATURE)
            wanted = check(signature)
            run = self._run(servable, signature, wanted, request.input, method=method, rpc=rpc)
            reply = reply_of(result=make(run.outputs, run.rows), model_spec=_spec(servable, signature))
            return self._encoded(reply, method, servable, [run])

    def _run(
        self,
        servable: Servable,
        signature: ServedSignature,
        wanted: Sequence[str],
        examples: inference_pb2.Input,
        *,
        method: str,
        rpc: Rpc,
    ) -> _Run:
        """Run one signature."""
        begin = time.perf_counter()
        rows = rows_of(examples)
        call = signature.call_with_arrays(columns(rows, signature.inputs), wanted)
        self._metrics.examples(servable.name, len(rows))
        run_begin = time.perf_counter()
        wanted_names = [onnx_name for _, onnx_name in call.outputs]
        arrays = servable.run(signature, call.feeds, wanted_names, rpc.deadline, rpc.is_cancelled)
        end = time.perf_counter()
        backend, bucket = servable.backend_name, 0
        if (call_now := calls.current()) is not None:
            call_now.ran(signature.name, len(rows), (run_begin, end))
            backend, bucket, begin = call_now.backend, call_now.bucket, call_now.begin
        timer = self._metrics.timer(servable.name, servable.version, signature.name, backend, method, bucket)
        timer.ran(call_now, run_begin, end)
        outputs = {alias: array for (alias, _), array in zip(call.outputs, arrays, strict=True)}
        return _Run(outputs, len(rows), timer, begin, end)


def _parsed(kind: type[T], data: bytes) -> T:
    """A request with Examples."""
    return parse(kind, data, _LISTS, Allowance(_MOST_FIELDS))


def _check_tasks(
    tasks: Sequence[inference_pb2.InferenceTask], signatures: Mapping[str, ServedSignature]
) -> list[tuple[ServedSignature, tuple[str, ...]]]:
    """Each task's signature and the outputs that it needs, in the order of the tasks."""
    checks = {inference.CLASSIFY: inference.check_classification, inference.REGRESS: inference.check_regression}
    seen: dict[str, tuple[ServedSignature, tuple[str, ...]]] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise InvalidRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        signature = inference.find_signature(signatures, name, _NOT_IN_GRAPH)
        if task.method_name not in checks:
            raise MethodUnsupported(f"Unsupported signature method_name: {task.method_name}")
        seen[name] = (signature, checks[task.method_name](signature))
    return list(seen.values())


def _spec(servable: Servable, signature: ServedSignature) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature.name)
    spec.version.value = servable.version
    return spec
