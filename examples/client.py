"""An ordinary TensorFlow Serving client, as written years ago: it knows nothing of Segue.

    python -m examples.client HOST:PORT MODEL SAVED_MODEL_FOLDER

sends random inputs to `Predict` with the published tensorflow-serving-api package, asks TensorFlow for its own answer to
the same inputs, and prints the largest difference of each output. TensorFlow and this client share a process; no server
does.
"""

import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def main(address: str, model: str, saved_model: str) -> int:
    """Compare the server's answers with TensorFlow's; returns the exit code."""
    function = tf.saved_model.load(saved_model).signatures["serving_default"]
    _, specs = function.structured_input_signature
    generator = np.random.default_rng(7)
    inputs = {
        alias: generator.standard_normal([size or 2 for size in spec.shape], np.float32)
        for alias, spec in specs.items()
    }
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for alias, array in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(array))
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=unlimited) as channel:
        reply = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    expected = function(**{alias: tf.constant(array) for alias, array in inputs.items()})
    print(f"  {model} version {reply.model_spec.version.value} answered tensorflow-serving-api's client:")
    worst = 0.0
    for alias in sorted(reply.outputs):
        answer = tf.make_ndarray(reply.outputs[alias])
        difference = float(np.abs(answer - expected[alias].numpy()).max())
        worst = max(worst, difference)
        print(
            f"    {alias:<10} {answer.dtype} {list(answer.shape)}: largest difference from TensorFlow {difference:.1e}"
        )
    return 0 if worst <= 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
