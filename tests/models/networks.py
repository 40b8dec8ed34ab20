"""Well-known networks as TensorFlow and Keras write them, with random weights, none of them zero or one.

`python -m tests.models.networks NAME PATH [FIELD=NUMBER …]` writes one. BERT's fields are those of transformers'
BertConfig, the other networks' those of their functions here.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

os.environ.update(USE_TORCH="0", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")  # read on import
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # what transformers' models are written for; Keras 3 has a name of its own

import keras
import numpy as np
import tensorflow as tf


def disturb(variables: list[Any], scale: float = 0.02) -> None:
    """Add noise to every weight: zeros and ones would be folded away, unlike those of a trained model."""
    rng = np.random.default_rng(0)
    for variable in variables:
        noise = rng.standard_normal(tuple(variable.shape)).astype(np.float32)
        variable.assign(variable + scale * np.abs(noise))


def bert(folder: Path, **config: int) -> None:
    """The TFBertModel of transformers: ids, mask and types of any batch and length to states and the pooled first."""
    from transformers import BertConfig, TFBertModel  # noqa: PLC0415 - seconds that the other networks do not need

    model = TFBertModel(BertConfig(**config))
    names = ("input_ids", "attention_mask", "token_type_ids")
    model({name: tf.ones([1, 4], tf.int32) for name in names})
    disturb(model.variables)

    def answer(*tensors: Any) -> dict[str, Any]:
        answers = model(dict(zip(names, tensors, strict=True)), training=False)
        return {"states": answers.last_hidden_state, "pooled": answers.pooler_output}

    specs = [tf.TensorSpec([None, None], tf.int32, name=name) for name in names]
    tf.saved_model.save(model, str(folder), signatures={"serving_default": tf.function(answer, input_signature=specs)})


def transformer(path: Path, width: int = 16, heads: int = 4, layers: int = 2) -> None:
    """Keras 3's own attention, layer normalisation and both GELUs, over series of any length with padding masked."""
    series = keras.Input([None], dtype="int32", name="tokens")
    x = keras.layers.Embedding(50, width, mask_zero=True)(series)
    for layer in range(layers):
        normal = keras.layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + keras.layers.MultiHeadAttention(heads, width // heads)(normal, normal, use_causal_mask=layer == 0)
        hidden = keras.layers.Dense(4 * width)(keras.layers.LayerNormalization(epsilon=1e-6)(x))
        hidden = keras.activations.gelu(hidden, approximate=layer == 0)
        x = x + keras.layers.Dense(width)(hidden)
    model = keras.Model(series, keras.layers.Dense(3, name="classes")(x))
    disturb(model.variables)
    model.save(path)


def resnet(path: Path, size: int = 224) -> None:
    """ResNet-50, its batch normalisations far from the identity."""
    _application(keras.applications.ResNet50, path, size)


def efficientnet(path: Path, size: int = 224) -> None:
    """EfficientNet-B0: depthwise convolutions, squeeze and excitation, swish."""
    _application(keras.applications.EfficientNetB0, path, size)


def _application(build: Callable[..., Any], path: Path, size: int) -> None:
    keras.utils.set_random_seed(0)
    model = build(weights=None, input_shape=(size, size, 3), classes=10)
    disturb(model.variables)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # else it goes on with the numbers that it had, until the model is loaded again
    _settle(model, size)
    model.save(path)


def _settle(model: Any, size: int) -> None:
    """Let the moving moments be those of images as golden inputs are, as training would, and the logits be moderate.

    With others, a network of random weights answers the same to every golden input: one class, beyond all doubt.
    """
    normal = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normal]
    for layer in normal:
        layer.momentum = 0.0
    images = np.random.default_rng(1).standard_normal([64, size, size, 3]).astype(np.float32)
    model(images, training=True)
    for layer, momentum in zip(normal, momenta, strict=True):
        layer.momentum = momentum
    head = model.layers[-1]
    logits = keras.Model(model.input, head.input)(images, training=False) @ head.kernel + head.bias
    for variable in head.variables:
        variable.assign(variable * (3.0 / np.abs(logits).max()))


def recurrent(path: Path, width: int = 32) -> None:
    """Keras 2: a bidirectional GRU and an LSTM, over series of any length."""
    import tf_keras  # noqa: PLC0415 - as above

    layers = tf_keras.layers
    model = tf_keras.Sequential([
        layers.Input([None, 6], name="series"),
        layers.Bidirectional(layers.GRU(width, return_sequences=True)),
        layers.LSTM(width),
        layers.Dense(3, name="classes"),
    ])  # fmt: skip
    disturb(model.variables)
    model.save(path)


def gru(path: Path, width: int = 32) -> None:
    """Keras 3: a bidirectional GRU over masked series of any length, which its export writes as two loops."""
    series = keras.Input([None, 6], name="series")
    x = keras.layers.Masking(mask_value=0.0)(series)
    x = keras.layers.Bidirectional(keras.layers.GRU(width, return_sequences=True))(x)
    model = keras.Model(series, keras.layers.Dense(3, name="classes")(x))
    disturb(model.variables)
    model.save(path)


NETWORKS: Final[dict[str, Callable[..., None]]] = {
    "bert": bert,
    "transformer": transformer,
    "resnet": resnet,
    "efficientnet": efficientnet,
    "recurrent": recurrent,
    "gru": gru,
}


if __name__ == "__main__":
    NETWORKS[sys.argv[1]](Path(sys.argv[2]), **{f: int(n) for f, n in (field.split("=") for field in sys.argv[3:])})
