"""A SavedModel of many small signatures: such that keep the rows of a batch apart, and such that do not.

`python -m tests.models.rows FOLDER`. Signatures are called apart_NAME and touching_NAME; each takes "x", [None, 6, 4]
floats, and answers "y". It runs as a process of its own, since tests do not import TensorFlow.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, Final

os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")  # read on import

import numpy as np
import tensorflow as tf

Function = Callable[[Any], Any]


def _weights(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def _attention(x: Any) -> Any:
    """Each row's steps attend to one another, in two heads made by reshaping to sizes asked for at run time."""
    batch, steps = tf.shape(x)[0], tf.shape(x)[1]
    heads = tf.transpose(tf.reshape(x @ _weights(4, 8), [batch, steps, 2, 4]), [0, 2, 1, 3])
    scores = tf.nn.softmax(tf.matmul(heads, heads, transpose_b=True))
    return tf.reshape(tf.transpose(tf.matmul(scores, heads), [0, 2, 1, 3]), [batch, steps, 8])


def _token(x: Any) -> Any:
    """A learned step before the others, repeated for each row."""
    return tf.concat([tf.tile(_weights(1, 1, 4), [tf.shape(x)[0], 1, 1]), x], 1)


def _images(x: Any) -> Any:
    """Convolution, pooling and a dense layer on the flattened rest."""
    y = tf.nn.conv2d(tf.reshape(x, [-1, 6, 4, 1]), _weights(3, 3, 1, 5), 1, "SAME")
    y = tf.nn.max_pool2d(tf.nn.relu(y), 2, 2, "VALID")
    return tf.reshape(y, [tf.shape(x)[0], -1]) @ _weights(30, 3)


def _gather_own(x: Any) -> Any:
    """In each row, the step where the first feature is largest."""
    return tf.gather(x, tf.argmax(x[:, :, 0], 1), batch_dims=1)


def _loop(x: Any) -> Any:
    """A recurrence over the steps."""

    def turn(step: Any, state: Any) -> tuple[Any, Any]:
        return step + 1, tf.tanh(state @ _weights(4, 4) + x[:, step])

    return tf.while_loop(lambda step, _: step < tf.shape(x)[1], turn, (0, tf.zeros([tf.shape(x)[0], 4])))[1]


APART: Final[dict[str, Function]] = {
    "dense": lambda x: tf.nn.relu(tf.reshape(x, [-1, 24]) @ _weights(24, 3)),
    "dense_steps": lambda x: tf.tensordot(x, _weights(4, 3), 1),
    "attention": _attention,
    "token": _token,
    "images": _images,
    "gather_own": _gather_own,
    "loop": _loop,
    "own_mean": lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True),
    "own_cumsum": lambda x: tf.cumsum(x, 1),
    "own_top": lambda x: tf.math.top_k(x, 2).values,
    "own_reverse": lambda x: tf.reverse(x, [1]),
    "time_major": lambda x: tf.transpose(tf.transpose(x, [1, 0, 2]) * 2.0, [1, 0, 2]),
    "resize": lambda x: tf.image.resize(tf.reshape(x, [-1, 6, 4, 1]), [3, 8]),
    "einsum": lambda x: tf.einsum("nij,njk->nik", x, tf.transpose(x, [0, 2, 1])),
    "one_hot": lambda x: tf.one_hot(tf.argmax(x, 2), 4),
    "zeros": lambda x: tf.concat([x, tf.zeros_like(x)], 2),
    "where": lambda x: tf.where(x > 0.0, x, tf.exp(x)),
    "steps_counted": lambda x: x / tf.cast(tf.shape(x)[1], tf.float32),
}
TOUCHING: Final[dict[str, Function]] = {
    "threshold": lambda x: x * tf.cast(tf.reduce_max(tf.abs(x)) < 100.0, tf.float32),
    "batch_mean": lambda x: x - tf.reduce_mean(x, 0, keepdims=True),
    "batch_moments": lambda x: (x - tf.nn.moments(x, [0])[0]) * tf.math.rsqrt(tf.nn.moments(x, [0])[1] + 1.0),
    "batch_norm": lambda x: tf.compat.v1.nn.fused_batch_norm(x[:, None], tf.ones(4), tf.ones(4), is_training=True)[0],
    "cumsum": lambda x: tf.cumsum(x, 0),
    "sort": lambda x: tf.sort(x, axis=0),
    "top": lambda x: tf.transpose(tf.math.top_k(tf.transpose(x, [1, 2, 0]), 1).values, [2, 0, 1]) + 0.0 * x,
    "softmax": lambda x: tf.nn.softmax(x, 0),
    "first_row": lambda x: x - x[:1],
    "last_row": lambda x: x - x[-1:],
    "neighbour": lambda x: x + tf.roll(x, 1, 0),
    "reverse": lambda x: tf.reverse(x, [0]),
    "sampled": lambda x: tf.gather(x, tf.zeros(tf.shape(x)[:1], tf.int32)),
    "attention": lambda x: tf.nn.softmax(tf.reshape(x, [-1, 24]) @ tf.transpose(tf.reshape(x, [-1, 24]))) @ x[:, 0],
    "count": lambda x: x / tf.cast(tf.shape(x)[0], tf.float32),
    "numbered": lambda x: x + tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None, None],
    "mixed": lambda x: tf.reshape(tf.transpose(x, [1, 0, 2]), tf.shape(x)),
    "regrouped": lambda x: tf.reshape(tf.reduce_sum(tf.reshape(x, [6, -1, 4]), 2), [-1, 6]),
    "kept": lambda x: tf.boolean_mask(x, x[:, 0, 0] > 0.0),
    "places": lambda x: tf.cast(tf.where(x[:, 0, 0] > -9.0), tf.float32),
    "condition": lambda x: tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0),
    "any_row": lambda x: tf.while_loop(lambda y: tf.reduce_max(y) > 1.0, lambda y: (y * 0.5,), (x,))[0],
    "odd_batch": lambda x: tf.cond(tf.equal(tf.shape(x)[0] % 2, 0), lambda: x * 2.0, lambda: x),
    "width_of_batch": lambda x: tf.tile(x[:, 0, :1], [1, tf.shape(x)[0]]),
    "normalised": tf.linalg.l2_normalize,
}


def main(folder: str) -> None:
    """Write the model."""
    module = tf.Module()
    named = {f"apart_{n}": f for n, f in APART.items()} | {f"touching_{n}": f for n, f in TOUCHING.items()}
    signatures = {}
    for name, function in named.items():
        spec = tf.TensorSpec([None, 6, 4], tf.float32, name="x")
        wrapped = tf.function(lambda x, function=function: {"y": function(x)}, input_signature=[spec])
        signatures[name] = wrapped.get_concrete_function()
    tf.saved_model.save(module, folder, signatures=signatures)


if __name__ == "__main__":
    main(sys.argv[1])
