"""Running exported models on ONNX Runtime, to compare them with TensorFlow's answers."""

import numpy as np
import onnx
import onnxruntime

from converter.exported import ExportedSignature, GoldenCase
from server.arrays import Array, is_string


def open_session(signature: ExportedSignature) -> onnxruntime.InferenceSession:
    """Check the model and load it.

    ONNX's checker has no notion of an unknown rank, so such ends are shown to it as scalars; the runtime knows better.
    """
    model = onnx.load(signature.onnx)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(str(signature.onnx), providers=["CPUExecutionProvider"])


def answer(session: onnxruntime.InferenceSession, signature: ExportedSignature, case: GoldenCase) -> dict[str, Array]:
    """Outputs by alias."""
    feeds = {name: _fed(case.inputs[alias]) for alias, name in signature.inputs.items() if name is not None}
    outputs = session.run(list(signature.outputs.values()), feeds)
    return dict(zip(signature.outputs, outputs, strict=True))


def require_golden(signature: ExportedSignature, tolerance: float = 1e-5) -> None:
    """Assert that every golden case is reproduced: dtype, shape, and values."""
    session = open_session(signature)
    assert signature.cases
    for case in signature.cases:
        got = answer(session, signature, case)
        for alias, expected in case.outputs.items():
            assert got[alias].dtype == expected.dtype, alias
            np.testing.assert_allclose(got[alias], expected, rtol=tolerance, atol=tolerance, err_msg=alias)


def _fed(array: Array) -> Array:
    """ONNX Runtime takes strings as str."""
    if not is_string(array):
        return array
    return np.array([value.decode() for value in array.flat], dtype=object).reshape(array.shape)
