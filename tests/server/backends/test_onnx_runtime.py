"""Tests of what is asked of ONNX Runtime, and what isn't because it would end the process."""

from pathlib import Path

import numpy as np
import pytest

from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.errors import InvalidRequest
from tests.server.backends.graphs import write_graph

_LAYER = "g (float[t,b,2] x) => (float[t,d,b,3] y) {{ y = {kind}<hidden_size=3>(x, w, r) }}"


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("sizes", [(5, 0), (0, 3), (0, 0)])
def test_recurrent_layers_are_not_asked_for_nothing(
    tmp_path: Path, kind: str, gates: int, sizes: tuple[int, int]
) -> None:
    """ONNX Runtime's own would end the server; the next request is answered."""
    weights = {"w": np.ones((1, 3 * gates, 2), np.float32), "r": np.ones((1, 3 * gates, 3), np.float32)}
    graph = OnnxRuntimeBackend().load(write_graph(tmp_path, _LAYER.format(kind=kind), weights))
    with pytest.raises(InvalidRequest, match="recurrent layers of this model for an input without elements"):
        graph.run({"x": np.zeros((*sizes, 2), np.float32)}, ["y"])
    assert graph.run({"x": np.zeros((5, 4, 2), np.float32)}, ["y"])[0].shape == (5, 1, 4, 3)


def test_other_models_answer_an_empty_batch(tmp_path: Path) -> None:
    """As TensorFlow's do: with no rows."""
    graph = OnnxRuntimeBackend().load(write_graph(tmp_path, "g (float[b,2] x) => (float[b,2] y) { y = Relu(x) }"))
    assert graph.run({"x": np.zeros((0, 2), np.float32)}, ["y"])[0].shape == (0, 2)
