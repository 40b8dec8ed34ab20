"""Classify, Regress and MultiInference: what a signature must be, and its answers as classes and values. Pure.

Rules, their order and their texts are those of TensorFlow Serving's classifier.cc, regressor.cc and multi_inference.cc;
where those demand one input of serialized Examples, plain tensors named like features are taken too (see examples.py).
A signature's method_name is not looked at: TensorFlow Serving does so only with --enable_signature_method_name_check.
"""

from collections.abc import Mapping

from protos.serving import inference_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.errors import InvalidRequest
from server.signatures import DEFAULT_SIGNATURE, ServedSignature
from server.wire.dtypes import of_dtype

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_CLASSES, _SCORES, _VALUES = "classes", "scores", "outputs"


def find_signature(servable_signatures: Mapping[str, ServedSignature], name: str, text: str) -> ServedSignature:
    """The signature of that name, "serving_default" if it is empty.

    Args:
        servable_signatures: All of a version's, by name.
        name: As in the request.
        text: What to say, before the name, if there is none: Classify and MultiInference differ.

    Raises:
        InvalidRequest: There is none.
    """
    wanted = name or DEFAULT_SIGNATURE
    if wanted not in servable_signatures:
        raise InvalidRequest(f"{text}: {wanted}")
    return servable_signatures[wanted]


def check_classification(signature: ServedSignature) -> tuple[str, ...]:
    """The outputs to compute for Classify: "classes", "scores" or both.

    Raises:
        InvalidRequest: It is no classification.
    """
    _check_inputs(signature)
    if len(signature.outputs) not in {1, 2}:
        raise InvalidRequest(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    found = tuple(alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs)
    if not found:
        raise InvalidRequest(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {signature.definition}'
        )
    return found


def check_regression(signature: ServedSignature) -> tuple[str, ...]:
    """The output to compute for Regress: "outputs".

    Raises:
        InvalidRequest: It is no regression.
    """
    _check_inputs(signature)
    if len(signature.outputs) != 1:
        raise InvalidRequest("Expected one output Tensor.")
    if _VALUES not in signature.outputs:
        raise InvalidRequest(f"No regression outputs found in SignatureDef: {signature.definition}")
    return (_VALUES,)


def classification_result(outputs: Mapping[str, Array], rows: int) -> inference_pb2.ClassificationResult:
    """The classes of each row: labels, scores, or both.

    Raises:
        InvalidRequest: The outputs are not of the form that Classify needs.
    """
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None:
        _check_matrix(classes, _CLASSES, "O", "DT_STRING", rows)
    if scores is not None:
        _check_matrix(scores, _SCORES, "f4", "DT_FLOAT", rows)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise InvalidRequest(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(iter(outputs.values())).shape[1]
    labels = [[b""] * width] * rows if classes is None else classes.tolist()
    values = [[0.0] * width] * rows if scores is None else scores.tolist()
    result = inference_pb2.ClassificationResult()
    for row_labels, row_values in zip(labels, values, strict=True):
        row = result.classifications.add()
        for label, value in zip(row_labels, row_values, strict=True):
            row.classes.add(label=label.decode(errors="replace"), score=value)
    return result


def regression_result(outputs: Mapping[str, Array], rows: int) -> inference_pb2.RegressionResult:
    """The value of each row.

    Raises:
        InvalidRequest: The output is not of the form that Regress needs.
    """
    values = outputs[_VALUES]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise InvalidRequest(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(values)}"
        )
    if values.shape[0] != rows:
        raise InvalidRequest(f"Input batch size did not match output batch size: {rows} vs. {values.shape[0]}")
    if values.dtype != "f4":
        raise InvalidRequest(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype_name(values)}")
    regressions = [inference_pb2.Regression(value=value) for value in values.ravel().tolist()]
    return inference_pb2.RegressionResult(regressions=regressions)


def _check_inputs(signature: ServedSignature) -> None:
    if not signature.inputs:
        raise InvalidRequest("Expected one input Tensor.")


def _check_matrix(values: Array, alias: str, dtype: str, dtype_name: str, rows: int) -> None:
    if values.ndim != 2:
        raise InvalidRequest(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(values)}")
    if values.dtype != dtype:
        raise InvalidRequest(f"Expected {alias} Tensor of {dtype_name}. Got: {_dtype_name(values)}")
    if values.shape[0] != rows:
        raise InvalidRequest(f"Expected {alias} output batch size of {rows}. Got: {values.shape[0]}")


def _shape(values: Array) -> str:
    return "[" + ",".join(map(str, values.shape)) + "]"


def _dtype_name(values: Array) -> str:
    return tensor_pb2.DataType.Name(of_dtype(values.dtype).number)
