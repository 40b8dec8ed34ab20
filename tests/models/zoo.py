"""Small models that TensorFlow and Keras really wrote, one per corner of the converter.

`python -m tests.models.zoo OUTDIR NAME…` writes each to OUTDIR/NAME, a SavedModel's folder or a Keras file; without
names, all of them. It runs as a process of its own, since tests do not import TensorFlow.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")  # read on import

import numpy as np
import tensorflow as tf

from tests.models import files

Tensors = dict[str, Any]
Signatures = dict[str, tuple[Callable[..., Tensors], list[Any]]]  # function, and the specs of its arguments
WRITERS: dict[str, Callable[[Path], None]] = {}  # by the name of what they write


class Holder(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    """Holds the variables and tables of a model."""


Builder = Callable[[Holder], Signatures]
BUILDERS: dict[str, Builder] = {}  # of SavedModels


def model(builder: Builder) -> Builder:
    """Enter the builder of a SavedModel under its own name."""
    BUILDERS[builder.__name__] = builder
    WRITERS[builder.__name__] = lambda folder: save(folder, builder)
    return builder


def save(folder: Path, builder: Builder) -> None:
    """Write the SavedModel of a builder."""
    holder = Holder()
    functions = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in builder(holder).items()
    }
    tf.saved_model.save(holder, str(folder), signatures=functions)


def variable(name: str, *shape: int) -> Any:
    """A variable with random, non-zero values."""
    rng = np.random.default_rng(len(name) + sum(shape))
    return tf.Variable(0.3 * rng.standard_normal(shape).astype(np.float32) + 0.01, name=name)


def spec(name: str, shape: list[int | None] | None, dtype: Any = tf.float32) -> Any:
    """The TensorSpec of an input."""
    return tf.TensorSpec(shape, dtype, name=name)


@model
def linear(holder: Holder) -> Signatures:
    """One layer: the least that a model can be."""
    holder.w, holder.b = variable("kernel", 3, 2), variable("bias", 2)
    return {"serving_default": (lambda x: {"y": x @ holder.w + holder.b}, [spec("x", [None, 3])])}


@model
def shared(holder: Holder) -> Signatures:
    """Two signatures on the same variables, of which two have equal values and only names tell them apart."""
    holder.w, holder.v = variable("first/kernel", 3, 4), variable("second/kernel", 4, 4)
    holder.a = tf.Variable([1.0, 2.0, 3.0, 4.0], name="first/bias")
    holder.z = tf.Variable([1.0, 2.0, 3.0, 4.0], trainable=False, name="second/bias")

    def embed(x: Any) -> Any:
        with tf.name_scope("first"):
            return tf.nn.relu(tf.nn.bias_add(x @ holder.w, holder.a))

    def classify(x: Any) -> Tensors:
        hidden = embed(x)
        with tf.name_scope("second"):
            return {"scores": tf.nn.bias_add(hidden @ holder.v, holder.z)}

    inputs = [spec("x", [None, 3])]
    return {"embed": (lambda x: {"hidden": embed(x)}, inputs), "serving_default": (classify, inputs)}


@model
def plumbing(holder: Holder) -> Signatures:
    """Unused input, outputs that are an input, a constant, one tensor twice, and an output called like an input."""
    holder.w = variable("kernel", 3, 4)

    def answer(x: Any, unused: Any) -> Tensors:  # noqa: ARG001 - an input that no output needs
        y = x @ holder.w
        return {"passed": x, "constant": tf.constant([1.0, 2.0]), "once": y, "twice": y, "x": x + 1.0, "y é/:0": -y}

    return {"serving_default": (answer, [spec("x", [None, 3]), spec("unused", [None, 2], tf.int64)])}


@model
def tokens(holder: Holder) -> Signatures:
    """Token ids below 50, types 0 and 1, any length up to 40."""
    holder.ids, holder.types, holder.places = variable("ids", 50, 4), variable("types", 2, 4), variable("at", 40, 4)

    def answer(ids: Any, types: Any) -> Tensors:
        places = tf.gather(holder.places, tf.range(tf.shape(ids)[1]))
        return {"states": tf.gather(holder.ids, ids) + tf.gather(holder.types, types) + places}

    return {"serving_default": (answer, [spec("ids", [None, None], tf.int32), spec("types", [None, None], tf.int64)])}


def _table(holder: Holder, keys: Any, dtype: Any) -> Signatures:
    values = tf.constant([10, 20, 30], tf.int64)
    holder.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
    return {"serving_default": (lambda key: {"value": holder.table.lookup(key)}, [spec("key", [None], dtype)])}


@model
def string_table(holder: Holder) -> Signatures:
    """Strings to numbers by a hash table, which ONNX has."""
    return _table(holder, tf.constant(["cat", "dog", "naïve"]), tf.string)


@model
def letters(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Strings in other letters, of any rank: ASCII's alone, or all."""

    def change(text: Any, index: Any) -> Tensors:
        german = tf.gather(tf.constant(["ÄRGER", "Straße"]), tf.math.floormod(index, 2))
        return {
            "lower": tf.strings.lower(text),
            "upper": tf.strings.upper(text[:, 0]),
            "ascii": tf.strings.lower(german),
            "unicode": tf.strings.lower(german, encoding="utf-8"),
        }

    return {"serving_default": (change, [spec("text", [None, 2], tf.string), spec("index", [None], tf.int64)])}


@model
def integer_table(holder: Holder) -> Signatures:
    """Numbers to numbers by a hash table, which ONNX has not."""
    return _table(holder, tf.constant([7, 8, 9], tf.int64), tf.int64)


@model
def dtypes(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Inputs and outputs of many dtypes, a scalar among them."""

    def answer(**inputs: Any) -> Tensors:
        return {
            "flag": tf.logical_not(inputs["flag"]),
            "image": inputs["image"],
            "bright": tf.cast(inputs["image"], tf.float32) / 255.0 * inputs["scale"],
            "wide": tf.sqrt(tf.abs(inputs["wide"])) * 2.0,
            "half": inputs["half"] * 2.0,
            "number": inputs["number"] + 1,
        }

    specs = [
        spec("flag", [None, 2], tf.bool), spec("image", [None, 4, 4, 3], tf.uint8), spec("wide", [None, 3], tf.float64),
        spec("half", [None, 3], tf.float16), spec("scale", []), spec("number", [None], tf.int64),
    ]  # fmt: skip
    return {"serving_default": (_by_keyword(answer, specs), specs)}


def _by_keyword(function: Callable[..., Tensors], specs: list[Any]) -> Callable[..., Tensors]:
    return lambda *tensors: function(**{one.name: tensor for one, tensor in zip(specs, tensors, strict=True)})


@model
def control(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """A loop whose length depends on the input, and a condition."""

    def answer(x: Any) -> Tensors:
        def grow(value: Any) -> tuple[Any]:
            return (value * 1.5 + 1.0,)

        looped = tf.while_loop(lambda value: tf.reduce_max(value) < 50.0, grow, (tf.abs(x),))[0]
        chosen = tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0)
        return {"looped": looped, "chosen": chosen}

    return {"serving_default": (answer, [spec("x", [None, 3])])}


@model
def gelu(holder: Holder) -> Signatures:
    """Exact GELU, which TensorFlow lowers to Erfc, on a layer normalisation; and Erfc of float64."""
    holder.gamma, holder.beta = variable("gamma", 8), variable("beta", 8)

    def answer(x: Any, wide: Any) -> Tensors:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        normal = tf.nn.batch_normalization(x, mean, variance, holder.beta, holder.gamma, 1e-6)
        return {"y": tf.nn.gelu(normal, approximate=False), "erfc": tf.math.erfc(wide)}

    return {"serving_default": (answer, [spec("x", [None, 5, 8]), spec("wide", [None, 2], tf.float64)])}


@model
def ranks(holder: Holder) -> Signatures:
    """Inputs of unknown rank, of fixed shape (with a variable of open shape), with a dynamic second dimension."""
    holder.open = tf.Variable(np.full([2, 3], 2.5, np.float32), shape=tf.TensorShape([None, 3]), name="open")
    return {
        "unknown": (lambda x: {"y": tf.nn.relu(x)}, [spec("x", None)]),
        "fixed": (lambda x: {"y": tf.nn.relu(x) * holder.open}, [spec("x", [2, 3])]),
        "second": (lambda x: {"y": tf.reduce_sum(x, axis=1)}, [spec("x", [2, None])]),
    }


@model
def positive(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Gives NaN for negative numbers, so normally distributed inputs say little."""
    return {"serving_default": (lambda x: {"y": tf.math.log(x + 0.5)}, [spec("x", [None, 40])])}


@model
def convolution(holder: Holder) -> Signatures:
    """Convolutions (transposed kernels in ONNX), batch normalisation (which must not be folded), and a dense layer."""
    holder.k, holder.d = variable("conv/kernel", 3, 3, 3, 32), variable("dense/kernel", 40, 4)
    holder.last = variable("last/kernel", 2, 2, 32, 40)
    holder.bn = [
        tf.Variable(tf.random.uniform([32], 0.5, 1.5, seed=part), trainable=part < 2, name=f"bn/part{part}")
        for part in range(4)
    ]

    def answer(image: Any) -> Tensors:
        x = tf.nn.conv2d(image, holder.k, 1, "SAME")
        x = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=holder.bn[0], offset=holder.bn[1], mean=holder.bn[2], variance=holder.bn[3], is_training=False
        ).y
        x = tf.nn.conv2d(tf.nn.relu(x), holder.last, 1, "VALID")
        return {"scores": tf.reduce_mean(tf.nn.relu(x), [1, 2]) @ holder.d}

    return {"serving_default": (answer, [spec("image", [None, None, None, 3])])}


CORNERS: Final = (
    linear, shared, plumbing, tokens, string_table, dtypes, control, gelu, ranks, positive, convolution
)  # fmt: skip


@model
def corners(holder: Holder) -> Signatures:
    """Every model above that can be converted, in one: signatures are called MODEL.SIGNATURE."""
    signatures: Signatures = {}
    holder.parts = [Holder() for _ in CORNERS]
    for builder, part in zip(CORNERS, holder.parts, strict=True):
        signatures |= {f"{builder.__name__}.{name}": function for name, function in builder(part).items()}
    return signatures


@model
def inverse(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """MatrixInverse, which ONNX has not."""

    def answer(x: Any) -> Tensors:
        with tf.name_scope("solver"):
            return {"y": tf.linalg.inv(x)}

    return {"serving_default": (answer, [spec("x", [None, 3, 3])])}


@model
def partial(holder: Holder) -> Signatures:
    """One signature that ONNX can express, and one that it cannot."""
    return {"invert": inverse(holder)["serving_default"], "serving_default": linear(holder)["serving_default"]}


@model
def bicubic(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Trebles images by bicubic interpolation, which ONNX Runtime rounds otherwise than TensorFlow's lookup table."""

    def answer(image: Any) -> Tensors:
        return {"large": tf.image.resize(image, [24, 24], method="bicubic")}

    return {"serving_default": (answer, [spec("image", [None, 8, 8, 3])])}


@model
def noise(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Another answer each time."""
    return {"serving_default": (lambda x: {"y": x + tf.random.normal(tf.shape(x))}, [spec("x", [None, 3])])}


@model
def picky(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Accepts nothing but rows that sum to 1."""

    def answer(x: Any) -> Tensors:
        with tf.control_dependencies([tf.debugging.assert_near(tf.reduce_sum(x, -1), 1.0, message="no distribution")]):
            return {"y": -tf.reduce_sum(x * tf.math.log(x + 1e-6), -1)}

    return {"serving_default": (answer, [spec("x", [None, 4])])}


@model
def unsigned(holder: Holder) -> Signatures:
    """A SavedModel without signatures."""
    holder.w = variable("kernel", 3)
    return {}


@model
def abort(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Kills the process that runs it."""

    def answer(x: Any) -> Tensors:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the model aborts")]):
            return {"y": tf.identity(x)}

    return {"serving_default": (answer, [spec("x", [None, 3])])}


@model
def endless(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Never answers."""

    def answer(x: Any) -> Tensors:
        return {"y": tf.while_loop(lambda value: value[0, 0] == value[0, 0], lambda value: (value * 0.5,), (x,))[0]}

    return {"serving_default": (answer, [spec("x", [None, 3])])}


@model
def hungry(holder: Holder) -> Signatures:  # noqa: ARG001 - no variables
    """Wants 400 GB for any input."""

    def answer(x: Any) -> Tensors:
        huge = tf.fill([tf.shape(x)[0] + 100_000, 1_000_000], tf.reduce_sum(x))
        return {"y": tf.reduce_max(tf.cumsum(huge))}

    return {"serving_default": (answer, [spec("x", [None, 3])])}


WRITERS |= files.FILES


def main(folder: Path, names: list[str]) -> None:
    """Write models into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or list(WRITERS):
        WRITERS[name](folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
