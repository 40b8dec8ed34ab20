"""Tests of `benchmarks.lowered`: the measures, on a model whose measures are known."""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks import lowered
from benchmarks.doubled import doubled
from server.lowering import lower
from tests.server.lowering.export.packages import package
from tests.server.lowering.graphs import model, numbers, real, whole

_GRAPH = """g (float[n,5,8] x) => (float[n,5,8] y) {
    a = LayerNormalization(x, g, b) q = MatMul(a, wq) k = MatMul(a, wk) t = Transpose<perm=[0,2,1]>(k)
    m = MatMul(q, t) s = Mul(m, half) p = Softmax(s) w = MatMul(p, a) y = Add(w, x) }"""
_VARIABLES = {"g": "norm/gamma", "b": "norm/beta", "wq": "query/kernel", "wk": "key/kernel"}
# What each model is made of: attentions, layer norms, dense layers, LSTM and GRU.
_LAYERS = {
    "vit": (12, 25, 73, 0), "bert": (2, 5, 13, 0), "resnet": (0, 0, 1, 0), "efficientnet": (0, 0, 1, 0),
    "recurrent": (0, 0, 1, 2), "transformer": (2, 4, 5, 0), "gru": (0, 0, 1, 0), "control": (0, 0, 0, 0),
    "basic_pitch": (0, 0, 0, 0),
}  # fmt: skip


def test_the_measures_of_one_attention(tmp_path: Path) -> None:
    """As many numbers as TensorFlow trains, one attention, one graph for all sizes, and training reaches everything."""
    constants = {"g": numbers(8), "b": numbers(8, seed=1), "wq": numbers(8, 8) / 4, "wk": numbers(8, 8, seed=2) / 4}
    proto = model(_GRAPH, half=real(0.5), **constants)
    found = lowered.measure(package(tmp_path / "m" / "1", proto, {"x": numbers(2, 5, 8)}, _VARIABLES))
    assert found.pop("difference") < lowered.BOUND
    tuned = found.pop("tuned")
    assert tuned["losses"][1] < tuned["losses"][0]
    assert tuned["changed"] == tuned["parameters"] == 4
    assert found == {
        "trainable": 144, "tensorflow": 144, "attentions": 1, "layer_norms": 1, "dense": 2, "recurrent": 0,
        "graph_breaks": 0, "exports": True, "sizes": [[2], [5], [7]], "graphs": 1,
    }  # fmt: skip


def test_what_differs_is_measured(tmp_path: Path) -> None:
    """A constant that is no variable is not trained; the difference is the largest one, and it is said whose it is."""
    proto = model(
        "g (float[n,3] x) => (float[n,3] y) { a = MatMul(x, w) y = Mul(a, c) }", w=numbers(3, 3), c=numbers(3)
    )
    own = package(tmp_path / "m" / "1", proto, {"x": numbers(2, 3)}, {"w": "kernel"})
    arrays = {key: array + np.float32(0.25) if "answer" in key else array for key, array in own.golden_arrays().items()}
    np.savez(own.path / "golden.npz", **arrays)  # type: ignore[arg-type] # numpy's stub takes them for an option
    found = lowered.measure(own)
    assert abs(found["difference"] - 0.25) < 1e-5
    assert found["trainable"] == found["tensorflow"] == 9
    assert found["own_error"] < 1e-6
    assert abs(found["tensorflow_error"] - 0.25) < 1e-5


def test_what_training_does_not_reach_is_counted(tmp_path: Path) -> None:
    """A parameter behind a step that no gradient passes stays what it was; whole numbers have nothing to tune."""
    proto = model(
        "g (float[n,3] x) => (float[n,3] y) { a = MatMul(x, v) f = Floor(a) m = MatMul(x, w) y = Add(f, m) }",
        v=numbers(3, 3), w=numbers(3, 3, seed=1),
    )  # fmt: skip
    found = lowered.measure(package(tmp_path / "m" / "1", proto, {"x": numbers(2, 3)}, {"v": "lost", "w": "kernel"}))
    assert (found["tuned"]["changed"], found["tuned"]["parameters"]) == (1, 2)
    integers = model("g (int64[n,3] x) => (int64[n,3] y) { y = Add(x, c) }", c=whole([1, 2, 3]))
    found = lowered.measure(package(tmp_path / "i" / "1", integers, {"x": np.ones((2, 3), np.int64)}))
    assert "trains nothing" in found["tuned"]["left_out"]


def test_every_open_axis_gets_other_sizes() -> None:
    """Batch and length, in all inputs alike; what is fixed stays."""
    graph = "g (float[n,t,3] x, float[n,t] m) => (float[n,t,3] y) { u = Unsqueeze(m, last) y = Mul(x, u) }"
    module = lower(model(graph, last=whole([2])))
    inputs = (torch.ones(1, 4, 3), torch.ones(1, 4))
    assert lowered.open_axes(module) == 2
    shapes = [[tuple(one.shape) for one in lowered.grown(module, inputs, sizes)] for sizes in lowered.SIZES]
    assert shapes == [[(2, 7, 3), (2, 7)], [(5, 9, 3), (5, 9)], [(7, 11, 3), (7, 11)]]


def test_double_precision_is_that_of_every_operator() -> None:
    """Constants, casts and normalisations too: the answer is numpy's in double precision."""
    graph = """g (float[n,8] x) => (float[n,8] y) {
        a = LayerNormalization(x, s, b) c = Cast<to=1>(a) y = Mul(c, third) }"""
    proto = model(graph, s=numbers(8), b=numbers(8, seed=1), third=real(1 / 3))
    x = numbers(2, 8, seed=2).astype(np.float64)
    with torch.no_grad():
        (got,) = lower(doubled(proto))(torch.from_numpy(x))
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float64(np.float32(1e-5)))
    wanted = (normal * numbers(8) + numbers(8, seed=1)) * np.float64(np.float32(1 / 3))
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9, atol=1e-9)


def test_the_published_table_is_made_of_the_results() -> None:
    """And keeps its promises: no graph break, one graph for all sizes, TensorFlow's numbers, layers and answers."""
    models = json.loads(lowered.RESULT.read_text("utf-8"))["models"]
    text = lowered.DOCUMENT.read_text("utf-8")
    assert lowered.render(text, models) == text
    assert set(models) == set(lowered.MODELS) == set(_LAYERS)
    for name, one in models.items():
        assert (one["graph_breaks"], one["exports"], one["graphs"]) == (0, True, 1), name
        assert one["trainable"] == one["tensorflow"], name
        assert (one["attentions"], one["layer_norms"], one["dense"], one["recurrent"]) == _LAYERS[name], name
        assert one["difference"] is not None, name
        # Where it is more, single precision can do no better: TensorFlow's own answers are farther from the exact ones.
        assert one["difference"] <= lowered.BOUND or one["difference"] < one["tensorflow_error"], name
        tuned = one["tuned"]
        if name == "control":
            assert "trains nothing" in tuned["left_out"]
        else:
            assert tuned["losses"][1] < tuned["losses"][0], name
            assert 0 < tuned["parameters"] == tuned["changed"], name
    assert [name for name, one in models.items() if one["difference"] > lowered.BOUND] in ([], ["basic_pitch"])
    assert models["vit"]["trainable"] == 85_800_194
    assert [len(sizes) for sizes in models["bert"]["sizes"]] == [2, 2, 2]
