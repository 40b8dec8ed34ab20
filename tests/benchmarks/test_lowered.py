"""Tests of `benchmarks.lowered`: the measures, on a model whose measures are known."""

import json
from pathlib import Path

import numpy as np

from benchmarks import lowered
from tests.server.lowering.export.packages import package
from tests.server.lowering.graphs import model, numbers, real

_GRAPH = """g (float[n,5,8] x) => (float[n,5,8] y) {
    a = LayerNormalization(x, g, b) q = MatMul(a, wq) k = MatMul(a, wk) t = Transpose<perm=[0,2,1]>(k)
    m = MatMul(q, t) s = Mul(m, half) p = Softmax(s) w = MatMul(p, a) y = Add(w, x) }"""
_VARIABLES = {"g": "norm/gamma", "b": "norm/beta", "wq": "query/kernel", "wk": "key/kernel"}


def test_the_measures_of_one_attention(tmp_path: Path) -> None:
    """As many numbers as TensorFlow trains, one attention, one graph for all sizes."""
    constants = {"g": numbers(8), "b": numbers(8, seed=1), "wq": numbers(8, 8), "wk": numbers(8, 8, seed=2)}
    proto = model(_GRAPH, half=real(0.5), **constants)
    found = lowered.measure(package(tmp_path / "m" / "1", proto, {"x": numbers(2, 5, 8)}, _VARIABLES))
    assert found.pop("difference") < 1e-5
    assert found == {
        "trainable": 144, "tensorflow": 144, "attentions": 1, "layer_norms": 1, "dense": 2, "recurrent": 0,
        "graph_breaks": 0, "exports": True, "graphs": 1,
    }  # fmt: skip


def test_what_differs_is_measured(tmp_path: Path) -> None:
    """A constant that is no variable is not trained; the difference is the largest one."""
    proto = model(
        "g (float[n,3] x) => (float[n,3] y) { a = MatMul(x, w) y = Mul(a, c) }", w=numbers(3, 3), c=numbers(3)
    )
    own = package(tmp_path / "m" / "1", proto, {"x": numbers(2, 3)}, {"w": "kernel"})
    arrays = {key: array + np.float32(0.25) if "answer" in key else array for key, array in own.golden_arrays().items()}
    np.savez(own.path / "golden.npz", **arrays)  # type: ignore[arg-type] # numpy's stub takes them for an option
    found = lowered.measure(own)
    assert abs(found["difference"] - 0.25) < 1e-5
    assert found["trainable"] == found["tensorflow"] == 9


def test_the_published_table_is_made_of_the_results() -> None:
    """And keeps its promises: 0 graph breaks, one graph, dynamic export, and as many numbers as TensorFlow."""
    models = json.loads(lowered.RESULT.read_text("utf-8"))["models"]
    text = lowered.DOCUMENT.read_text("utf-8")
    assert lowered.render(text, models) == text
    assert set(models) == set(lowered.MODELS)
    for name, one in models.items():
        assert (one["graph_breaks"], one["exports"], one["graphs"]) == (0, True, 1), name
        assert one["trainable"] == one["tensorflow"] or name == "efficientnet"
    assert (models["vit"]["attentions"], models["vit"]["layer_norms"]) == (12, 25)
    assert models["vit"]["trainable"] == 85_800_194
    assert models["vit"]["difference"] <= 5e-6
