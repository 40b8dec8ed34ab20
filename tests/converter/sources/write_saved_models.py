"""Child process: writes SavedModels and warm-up records with TensorFlow's own code.

Run as `python write_saved_models.py OUT`; each model becomes a folder of its own under OUT.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # read on import

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

Module: Any = tf.Module


class Branching(Module):  # type: ignore[misc] # its base has no type
    """Two signatures; one calls a function in a branch, so that its operator is found only inside functions."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([[1.0], [2.0]], name="w")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])  # type: ignore[untyped-decorator] # TensorFlow ships no types
    def score(self, x: Any) -> Any:
        """A product, and a hyperbolic cosine if the sum is positive."""
        y = x @ self.w
        return {"y": tf.cond(tf.reduce_sum(y) > 0, lambda: tf.cosh(y), lambda: y)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])  # type: ignore[untyped-decorator] # TensorFlow ships no types
    def length(self, text: Any) -> Any:
        """Lengths of strings."""
        return {"length": tf.strings.length(text)}


def write_tf2(path: Path) -> None:
    """A TensorFlow 2 model with two signatures."""
    module = Branching()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.score, "length": module.length})


def write_without_signatures(path: Path) -> None:
    """A TensorFlow 2 model that nobody can call by name."""
    tf.saved_model.save(tf.Module(), str(path))


def write_tf1(path: Path, tags: list[str]) -> None:
    """A TensorFlow 1 model: a graph, a session, a table to initialise."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        y = tf.sinh(x, name="y")
        info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(y)}, "predict")
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            tags,
            signature_def_map={"serving_default": signature},
            main_op=tf.compat.v1.tables_initializer(),
        )
        builder.save()


def write_warmup(path: Path) -> None:
    """Predict records in several encodings, and one of every other kind."""
    logs = []
    for values in (tf.constant([[1.0, 2.0]]), tf.zeros([3, 2])):
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.name = "m"
        log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(values))
        logs.append(log)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "length"
    log.predict_log.request.inputs["text"].CopyFrom(tf.make_tensor_proto([b"a", b"\xff\x00"]))
    logs += [log, prediction_log_pb2.PredictionLog()]
    for kind in ("classify_log", "regress_log", "multi_inference_log", "session_run_log", "predict_streamed_log"):
        other = prediction_log_pb2.PredictionLog()
        getattr(other, kind).SetInParent()
        logs.append(other)
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def main(out: Path) -> None:
    """Write all of them."""
    write_tf2(out / "tf2")
    write_warmup(out / "tf2" / "assets.extra" / "tf_serving_warmup_requests")
    write_without_signatures(out / "without_signatures")
    write_tf1(out / "tf1", ["serve"])
    write_tf1(out / "train_only", ["train", "gpu"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
