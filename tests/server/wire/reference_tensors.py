"""Child process: what TensorFlow's kernels make of serialized TensorProtos.

Run as `python reference_tensors.py IN OUT`: IN is a JSON list of [DataType number, base64 of a TensorProto];
OUT gets one entry for each: null where TensorFlow refuses it, else [shape, values], values being base64 of
the raw elements, or a list of base64 for strings. `tf.io.parse_tensor` is Tensor::FromProto, the function
that TensorFlow Serving calls on the inputs of Predict.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf


def parse(number: int, proto: str) -> Any:
    """Let TensorFlow parse one TensorProto."""
    try:
        array = tf.io.parse_tensor(base64.b64decode(proto), tf.dtypes.as_dtype(number)).numpy()
    except tf.errors.InvalidArgumentError:
        return None
    if isinstance(array, bytes):  # a scalar string
        return [[], [base64.b64encode(array).decode()]]
    if array.dtype == object:
        return [array.shape, [base64.b64encode(each).decode() for each in array.ravel().tolist()]]
    return [array.shape, base64.b64encode(array.tobytes()).decode()]


def main(source: Path, target: Path) -> None:
    """Answer all cases of a file."""
    target.write_text(json.dumps([parse(number, proto) for number, proto in json.loads(source.read_text())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
