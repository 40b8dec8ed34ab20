"""Models of other kinds than `tests.models.zoo`'s: TensorFlow 1's, and Keras's own files. Only the zoo imports this."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


def version_1(folder: Path) -> None:
    """TensorFlow 1: placeholders, a session, aliases of any characters, and a Classify signature fed with Examples."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, scale = v1.placeholder(tf.float32, [None, 3], "x"), v1.placeholder(tf.float32, [], "scale")
        kernel = v1.get_variable("layer/kernel", [3, 2], initializer=v1.random_normal_initializer(seed=1))
        y = tf.matmul(x, kernel) * scale
        examples = v1.placeholder(tf.string, [None], "examples")
        features = v1.io.parse_example(examples, {"x": tf.io.FixedLenFeature([3], tf.float32)})
        scores = tf.matmul(features["x"], kernel)
        session.run(v1.global_variables_initializer())
        utils, build = v1.saved_model.utils, v1.saved_model.signature_def_utils.build_signature_def
        infos = {name: utils.build_tensor_info(t) for name, t in (("x", x), ("s", scale), ("y", y))}
        served = "tensorflow/serving/"
        inputs, outputs = {"in put/a:0": infos["x"], "größe": infos["s"]}, {"out:0": infos["y"], "in": infos["x"]}
        signatures = {
            "predict images": build(inputs, outputs, f"{served}predict"),
            "classify": build(
                {"inputs": utils.build_tensor_info(examples)},
                {"scores": utils.build_tensor_info(scores)},
                f"{served}classify",
            ),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def gru_keras(path: Path) -> None:
    """Keras 3: a bidirectional GRU over masked series of any length."""
    import keras  # noqa: PLC0415 - a second that few models need

    keras.utils.set_random_seed(1)
    inputs = keras.Input([None, 6], name="series")
    x = keras.layers.Masking(mask_value=0.0)(inputs)
    x = keras.layers.Bidirectional(keras.layers.GRU(40, return_sequences=True))(x)
    keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x)).save(path)


def lambda_keras(path: Path) -> None:
    """Keras 3: a layer that is Python code, for either file format."""
    import keras  # noqa: PLC0415 - a second that few models need

    keras.Sequential([keras.Input([4]), keras.layers.Lambda(lambda x: x + 1.0)]).save(path)


def weights_h5(path: Path) -> None:
    """Keras 3: weights without their model."""
    import keras  # noqa: PLC0415 - a second that few models need

    keras.Sequential([keras.Input([4]), keras.layers.Dense(3)]).save_weights(path)


def keras_2_h5(path: Path) -> None:
    """Keras 2: a whole model in an .h5 file, which Keras 3 cannot read (its LSTM knows no time_major)."""
    import tf_keras  # noqa: PLC0415 - a second that few models need

    layers = [tf_keras.layers.Input([None, 4], name="series"), tf_keras.layers.LSTM(40), tf_keras.layers.Dense(2)]
    tf_keras.Sequential(layers).save(path)


FILES: dict[str, Callable[[Path], None]] = {
    "version_1": version_1,
    "gru.keras": gru_keras,
    "lambda.keras": lambda_keras,
    "lambda.h5": lambda_keras,
    "only.weights.h5": weights_h5,
    "keras_2.h5": keras_2_h5,
}
"""Writers by the name of what they write."""
