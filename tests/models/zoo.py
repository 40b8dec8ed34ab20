"""Small models that TensorFlow and Keras really wrote, one per corner of the converter.

`python -m tests.models.zoo OUTDIR NAME…` writes each into OUTDIR/NAME (a SavedModel) or OUTDIR/NAME.keras and .h5; without
names, all of them. It runs as a process of its own, since tests do not import TensorFlow.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")  # read on import

import numpy as np
import tensorflow as tf

Builder = Callable[[Path], None]
Tensors = dict[str, Any]
BUILDERS: dict[str, Builder] = {}


def model(builder: Builder) -> Builder:
    """Enter a builder under its own name."""
    BUILDERS[builder.__name__] = builder
    return builder


class Holder(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    """Holds the variables and tables of a model."""


def variable(name: str, *shape: int) -> Any:
    """A variable with random, non-zero values."""
    rng = np.random.default_rng(len(name) + sum(shape))
    return tf.Variable(rng.standard_normal(shape).astype(np.float32) + 0.01, name=name)


def spec(name: str, shape: list[int | None] | None, dtype: Any = tf.float32) -> Any:
    """The TensorSpec of an input."""
    return tf.TensorSpec(shape, dtype, name=name)


def save(folder: Path, holder: Holder, **signatures: tuple[Callable[..., Tensors], list[Any]]) -> None:
    """Save a SavedModel with these signatures, each a function and the specs of its arguments."""
    functions = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in signatures.items()
    }
    holder.functions = list(functions.values())
    tf.saved_model.save(holder, str(folder), signatures=functions)


@model
def linear(folder: Path) -> None:
    """One layer: the least that a model can be."""
    holder = Holder()
    holder.w, holder.b = variable("kernel", 3, 2), variable("bias", 2)
    save(folder, holder, serving_default=(lambda x: {"y": x @ holder.w + holder.b}, [spec("x", [None, 3])]))


@model
def shared(folder: Path) -> None:
    """Two signatures on the same variables; and equal variables, which only names can tell apart."""
    holder = Holder()
    holder.w, holder.v = variable("first/kernel", 3, 4), variable("second/kernel", 4, 2)
    holder.a = tf.Variable(tf.zeros([4]), name="first/bias")
    holder.z = tf.Variable(tf.zeros([4]), trainable=False, name="other/bias")

    def embed(x: Any) -> Any:
        with tf.name_scope("first"):
            return tf.nn.relu(tf.nn.bias_add(x @ holder.w, holder.a))

    def classify(x: Any) -> Tensors:
        hidden = embed(x)
        with tf.name_scope("other"):
            return {"scores": tf.nn.bias_add(hidden, holder.z) @ holder.v}

    inputs = [spec("x", [None, 3])]
    save(folder, holder, embed=(lambda x: {"hidden": embed(x)}, inputs), serving_default=(classify, inputs))


@model
def plumbing(folder: Path) -> None:
    """Unused input, outputs that are an input, a constant, one tensor twice, and an output called like an input."""
    holder = Holder()
    holder.w = variable("kernel", 3, 4)

    def answer(x: Any, unused: Any) -> Tensors:  # noqa: ARG001 - an input that no output needs
        y = x @ holder.w
        return {"passed": x, "constant": tf.constant([1.0, 2.0]), "once": y, "twice": y, "x": x + 1.0, "y é/:0": -y}

    save(folder, holder, serving_default=(answer, [spec("x", [None, 3]), spec("unused", [None, 2], tf.int64)]))


@model
def tokens(folder: Path) -> None:
    """Token ids below 50, types 0 and 1, any length up to 40."""
    holder = Holder()
    holder.ids, holder.types, holder.positions = variable("ids", 50, 4), variable("types", 2, 4), variable("at", 40, 4)

    def answer(ids: Any, types: Any) -> Tensors:
        places = tf.gather(holder.positions, tf.range(tf.shape(ids)[1]))
        return {"states": tf.gather(holder.ids, ids) + tf.gather(holder.types, types) + places}

    save(folder, holder, serving_default=(answer, [spec("ids", [None, None], tf.int32), spec("types", [None, None], tf.int64)]))


def _table(folder: Path, keys: Any, dtype: Any) -> None:
    holder = Holder()
    values = tf.constant([10, 20, 30], tf.int64)
    holder.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
    save(folder, holder, serving_default=(lambda key: {"value": holder.table.lookup(key)}, [spec("key", [None], dtype)]))


@model
def string_table(folder: Path) -> None:
    """Strings to numbers by a hash table, which ONNX has."""
    _table(folder, tf.constant(["cat", "dog", "naïve"]), tf.string)


@model
def integer_table(folder: Path) -> None:
    """Numbers to numbers by a hash table, which ONNX has not."""
    _table(folder, tf.constant([7, 8, 9], tf.int64), tf.int64)


@model
def dtypes(folder: Path) -> None:
    """Inputs and outputs of many dtypes, a scalar among them."""

    def answer(flag: Any, image: Any, wide: Any, half: Any, scale: Any, number: Any) -> Tensors:
        return {
            "flag": tf.logical_not(flag),
            "image": image,
            "bright": tf.cast(image, tf.float32) / 255.0 * scale,
            "wide": tf.sqrt(tf.abs(wide)) * 2.0,
            "half": half * 2.0,
            "number": number + 1,
        }

    specs = [
        spec("flag", [None, 2], tf.bool), spec("image", [None, 4, 4, 3], tf.uint8), spec("wide", [None, 3], tf.float64),
        spec("half", [None, 3], tf.float16), spec("scale", []), spec("number", [None], tf.int64),
    ]  # fmt: skip
    save(folder, Holder(), serving_default=(answer, specs))


@model
def control(folder: Path) -> None:
    """A loop whose length depends on the input, and a condition."""

    def answer(x: Any) -> Tensors:
        def grow(value: Any) -> Any:
            return value * 1.5 + 1.0

        looped = tf.while_loop(lambda value: tf.reduce_max(value) < 50.0, lambda value: (grow(value),), (tf.abs(x),))[0]
        chosen = tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0)
        return {"looped": looped, "chosen": chosen}

    save(folder, Holder(), serving_default=(answer, [spec("x", [None, 3])]))


@model
def gelu(folder: Path) -> None:
    """Exact GELU, which TensorFlow lowers to Erfc, on a layer normalisation; float32 and float64."""
    holder = Holder()
    holder.gamma, holder.beta = variable("gamma", 8), variable("beta", 8)

    def answer(x: Any, wide: Any) -> Tensors:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        normal = tf.nn.batch_normalization(x, mean, variance, holder.beta, holder.gamma, 1e-6)
        return {"y": tf.nn.gelu(normal, approximate=False), "wide": tf.math.erfc(wide)}

    save(folder, holder, serving_default=(answer, [spec("x", [None, 5, 8]), spec("wide", [None, 2], tf.float64)]))


@model
def inverse(folder: Path) -> None:
    """MatrixInverse, which ONNX has not."""

    def answer(x: Any) -> Tensors:
        with tf.name_scope("solver"):
            return {"y": tf.linalg.inv(x)}

    save(folder, Holder(), serving_default=(answer, [spec("x", [None, 3, 3])]))


@model
def noise(folder: Path) -> None:
    """Another answer each time."""
    save(folder, Holder(), serving_default=(lambda x: {"y": x + tf.random.normal(tf.shape(x))}, [spec("x", [None, 3])]))


@model
def ranks(folder: Path) -> None:
    """An input of unknown rank, one of fixed shape, and one with a dynamic second dimension only."""
    save(
        folder,
        Holder(),
        unknown=(lambda x: {"y": tf.nn.relu(x)}, [spec("x", None)]),
        fixed=(lambda x: {"y": tf.nn.relu(x)}, [spec("x", [2, 3])]),
        second=(lambda x: {"y": tf.reduce_sum(x, axis=1)}, [spec("x", [2, None])]),
    )


@model
def picky(folder: Path) -> None:
    """Accepts nothing but rows that sum to 1."""

    def answer(x: Any) -> Tensors:
        with tf.control_dependencies([tf.debugging.assert_near(tf.reduce_sum(x, -1), 1.0, message="no distribution")]):
            return {"y": -tf.reduce_sum(x * tf.math.log(x + 1e-6), -1)}

    save(folder, Holder(), serving_default=(answer, [spec("x", [None, 4])]))


@model
def positive(folder: Path) -> None:
    """Gives NaN for negative numbers, so normally distributed inputs say little."""
    save(folder, Holder(), serving_default=(lambda x: {"y": tf.math.log(x + 0.5)}, [spec("x", [None, 40])]))


@model
def convolution(folder: Path) -> None:
    """Convolutions (transposed kernels in ONNX), batch normalisation (folded away), and a dense layer."""
    holder = Holder()
    holder.k, holder.d = variable("conv/kernel", 3, 3, 3, 8), variable("dense/kernel", 8, 4)
    holder.bn = [tf.Variable(tf.random.uniform([8], 0.5, 1.5), trainable=at < 2, name=f"bn/part{at}") for at in range(4)]

    def answer(image: Any) -> Tensors:
        x = tf.nn.conv2d(image, holder.k, 1, "SAME")
        x = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=holder.bn[0], offset=holder.bn[1], mean=holder.bn[2], variance=holder.bn[3], is_training=False
        ).y
        return {"scores": tf.reduce_mean(tf.nn.relu(x), [1, 2]) @ holder.d}

    save(folder, holder, serving_default=(answer, [spec("image", [None, None, None, 3])]))


@model
def unsigned(folder: Path) -> None:
    """A SavedModel without signatures."""
    holder = Holder()
    holder.w = variable("kernel", 3)
    tf.saved_model.save(holder, str(folder))


@model
def abort(folder: Path) -> None:
    """Kills the process that runs it."""

    def answer(x: Any) -> Tensors:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the model aborts")]):
            return {"y": tf.identity(x)}

    save(folder, Holder(), serving_default=(answer, [spec("x", [None, 3])]))


@model
def endless(folder: Path) -> None:
    """Never answers."""
    save(
        folder,
        Holder(),
        serving_default=(
            lambda x: {"y": tf.while_loop(lambda _: tf.constant(True), lambda value: (value + 1.0,), (x,))[0]}, # noqa: FBT003
            [spec("x", [None, 3])],
        ),
    )


@model
def hungry(folder: Path) -> None:
    """Wants 400 GB for any input."""

    def answer(x: Any) -> Tensors:
        huge = tf.fill([tf.shape(x)[0] + 100_000, 1_000_000], tf.reduce_sum(x))
        return {"y": tf.reduce_max(tf.cumsum(huge))}

    save(folder, Holder(), serving_default=(answer, [spec("x", [None, 3])]))


@model
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
        info, signature = v1.saved_model.utils.build_tensor_info, v1.saved_model.signature_def_utils
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "predict images": signature.predict_signature_def({"in put/a:0": x, "größe": scale}, {"out:0": y, "in": x}),
                "classify": signature.build_signature_def(
                    {"inputs": info(examples)}, {"scores": info(scores)}, "tensorflow/serving/classify"
                ),
            },
        )
        builder.save()


def _keras_file(name: str) -> Callable[[Callable[[Any], Any]], Builder]:
    """Enter a builder of a Keras 3 model, to be saved under this file name beside the folder that it would have."""

    def entered(build: Callable[[Any], Any]) -> Builder:
        def builder(folder: Path) -> None:
            import keras  # noqa: PLC0415 - a second that few models need

            keras.utils.set_random_seed(1)
            build(keras).save(folder.parent / name)

        BUILDERS[name] = builder
        return builder

    return entered


@_keras_file("gru.keras")
def _gru(keras: Any) -> Any:
    inputs = keras.Input([None, 6], name="series")
    x = keras.layers.Masking(mask_value=0.0)(inputs)
    x = keras.layers.Bidirectional(keras.layers.GRU(5, return_sequences=True))(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classes")(x))


@_keras_file("dense.h5")
def _dense(keras: Any) -> Any:
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])


@_keras_file("lambda.keras")
def _lambda(keras: Any) -> Any:
    return keras.Sequential([keras.Input([4]), keras.layers.Lambda(lambda x: x + 1.0)])


@_keras_file("lambda.h5")
def _lambda_h5(keras: Any) -> Any:
    return _lambda_model(keras)


def _lambda_model(keras: Any) -> Any:
    return keras.Sequential([keras.Input([4]), keras.layers.Lambda(lambda x: x + 1.0)])


def _weights(folder: Path) -> None:
    import keras  # noqa: PLC0415 - a second that few models need

    _dense_model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    _dense_model.save_weights(folder.parent / "only.weights.h5")


def _keras_2(folder: Path) -> None:
    import tf_keras  # noqa: PLC0415 - a second that few models need

    layers = [tf_keras.layers.Input([None, 4]), tf_keras.layers.LSTM(3), tf_keras.layers.Dense(2)]
    tf_keras.Sequential(layers).save(folder.parent / "keras2.h5")


BUILDERS["only.weights.h5"] = _weights
BUILDERS["keras2.h5"] = _keras_2


def main(folder: Path, names: list[str]) -> None:
    """Write models into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or list(BUILDERS):
        BUILDERS[name](folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
