"""The unmodified tensorflow-serving-api client as a program: calls on standard input, answers on standard output.

It runs in a process of its own, because TensorFlow's protobuf symbols and ours cannot share one. A call is
    {"method": "Predict", "spec": {"name", "version", "label", "signature_name"}, "inputs": {alias: {"dtype", "value"}},
     "filter": [...], "content": false, "fields": [...]}
or, for any method, with the request in protobuf's text format
    {"method": "Classify", "request": "model_spec { ... } ...", "crowd": 1, "timeout": 60}
where the call is made `crowd` times at once and the first answer is taken; and an answer {"code", "text"} for an error,
else what the method gives, or {"reply"} in text format.
"""

import json
import queue
import sys
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}


def main(address: str) -> None:
    """Read calls, make them, write answers."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        answers = [answer(channel, call) for call in json.load(sys.stdin)]
    json.dump(answers, sys.stdout)


def answer(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """Make one call."""
    methods = {"Predict": predict, "GetModelMetadata": get_model_metadata, "GetModelStatus": get_model_status}
    try:
        return text_call(channel, call) if "request" in call else methods[call["method"]](channel, call)
    except grpc.RpcError as error:
        return {"code": error.code().name, "text": error.details()}


def text_call(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """A call whose request and reply are in text format."""
    method = call["method"]
    request = text_format.Parse(call["request"], REQUESTS[method]())
    in_model_service = method in {"GetModelStatus", "HandleReloadConfigRequest"}
    services = model_service_pb2_grpc if in_model_service else prediction_service_pb2_grpc
    stub = services.ModelServiceStub(channel) if in_model_service else services.PredictionServiceStub(channel)
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    begin = getattr(stub, method).future
    crowd = [begin(request, timeout=call.get("timeout", 60)) for _ in range(call.get("crowd", 1))]
    for future in crowd:
        future.add_done_callback(ended.put)
    first, *_ = [ended.get() for _ in crowd]
    return {"reply": text_format.MessageToString(first.result())}


def fill_spec(spec: Any, wanted: dict[str, Any] | None) -> None:
    """Fill a ModelSpec; None leaves the message without one."""
    if wanted is None:
        return
    spec.SetInParent()
    spec.name = wanted.get("name", "")
    spec.signature_name = wanted.get("signature_name", "")
    if "version" in wanted:
        spec.version.value = wanted["version"]
    if "label" in wanted:
        spec.version_label = wanted["label"]


def predict(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """Predict, with inputs as tf.make_tensor_proto writes them."""
    request = predict_pb2.PredictRequest(output_filter=call.get("filter", []))
    fill_spec(request.model_spec, call.get("spec"))
    for alias, tensor in call.get("inputs", {}).items():
        proto = tf.make_tensor_proto(tensor["value"], dtype=tensor.get("dtype"), shape=tensor.get("shape"))
        request.inputs[alias].CopyFrom(proto)
    reply = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    return {
        "outputs": {alias: plain(tf.make_ndarray(tensor)) for alias, tensor in reply.outputs.items()},
        "fields": {alias: [field.name for field, _ in tensor.ListFields()] for alias, tensor in reply.outputs.items()},
        "spec": [reply.model_spec.name, reply.model_spec.version.value, reply.model_spec.signature_name],
    }


def plain(array: Any) -> Any:
    """An array as JSON takes it."""
    if array.dtype == object:
        return [value.decode() for value in array.ravel()]
    return np.asarray(array).tolist()


def get_model_metadata(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """GetModelMetadata, its Any unpacked."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=call.get("fields", []))
    fill_spec(request.model_spec, call.get("spec"))
    reply = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(signatures)
    return {
        "spec": [reply.model_spec.name, reply.model_spec.version.value, reply.model_spec.signature_name],
        "signatures": {
            name: {
                "method": signature.method_name,
                "inputs": {alias: describe(info) for alias, info in signature.inputs.items()},
                "outputs": {alias: describe(info) for alias, info in signature.outputs.items()},
            }
            for name, signature in signatures.signature_def.items()
        },
    }


def describe(info: Any) -> list[Any]:
    """A TensorInfo as [name, dtype, shape]."""
    return [info.name, tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim]]


def get_model_status(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """GetModelStatus, by version."""
    request = get_model_status_pb2.GetModelStatusRequest()
    fill_spec(request.model_spec, call.get("spec"))
    reply = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60)
    return {
        "versions": {
            str(status.version): [status.state, status.status.error_code, status.status.error_message]
            for status in reply.model_version_status
        }
    }


if __name__ == "__main__":
    main(sys.argv[1])
