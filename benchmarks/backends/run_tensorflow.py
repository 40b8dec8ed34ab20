"""TensorFlow's own runtime as a contender: the SavedModel's default signature. Of the server it imports only arrays.

`python -m benchmarks.backends.run_tensorflow FOLDER` writes the model's variables for the native contender.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read on import

import tensorflow as tf

from benchmarks.backends.contender import Run
from server.arrays import Array, save_arrays


def load(name: str, model: str, folder: Path) -> Run:  # noqa: ARG001 - one name, and the folder has one model
    """Load the SavedModel."""
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    signature = loaded.signatures["serving_default"]

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        answers = signature(**{alias: tf.constant(array) for alias, array in inputs.items()})
        # `loaded` owns the variables: without it they would be gone
        return {alias: answer.numpy() for alias, answer in answers.items() if loaded is not None}

    return run


def write_weights(folder: Path) -> None:
    """Write FOLDER/weights.npz: the variables by name."""
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    save_arrays(folder / "weights.npz", {variable.name: variable.numpy() for variable in loaded.variables})


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]))
