"""The Vision Transformer of the published attempt, as a SavedModel.

`python -m tests.models.vit FOLDER gelu_new|gelu [FIELD=NUMBER …]`, the fields being those of ViTConfig.

transformers' TFViTForImageClassification in its base size, with random weights. Every weight is non-zero, biases and
layer-norm offsets too: zeros would be folded away and the graph would not be that of a trained model.
"""

import os
import sys

os.environ.update(USE_TORCH="0", TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1")  # read on import

import numpy as np
import tensorflow as tf
from transformers import TFViTForImageClassification, ViTConfig


def save_vit(folder: str, hidden_act: str, **config: int) -> None:
    """Save a ViT with a `serving_default` signature: pixel_values [batch, 3, 224, 224] to logits [batch, 2].

    Args:
        folder: Of the SavedModel.
        hidden_act: "gelu_new" (tanh) or "gelu" (exact).
        config: Other fields of ViTConfig, to make it smaller.
    """
    model = TFViTForImageClassification(ViTConfig(hidden_act=hidden_act, **config))
    size = model.config.image_size
    model(tf.zeros([1, 3, size, size]))
    rng = np.random.default_rng(0)
    for variable in model.variables:
        noise = rng.standard_normal(tuple(variable.shape)).astype(np.float32)
        variable.assign_add(0.02 * noise)

    specs = [tf.TensorSpec([None, 3, size, size], name="pixel_values")]
    serve = tf.function(
        lambda pixel_values: {"logits": model(pixel_values, training=False).logits}, input_signature=specs
    )
    tf.saved_model.save(model, folder, signatures={"serving_default": serve})


if __name__ == "__main__":
    save_vit(sys.argv[1], sys.argv[2], **{field: int(number) for field, number in (f.split("=") for f in sys.argv[3:])})
