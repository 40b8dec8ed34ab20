"""Tests of `benchmarks.gpu.graph` and `native`: one set of numbers, two models, equal answers."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from benchmarks.gpu import graph, native
from server.lowering.walk import lower
from tests.server.lowering.export.packages import package
from tests.server.lowering.graphs import model, numbers


def _answer(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        (answer,) = module(torch.from_numpy(graph.images(2)))
    assert isinstance(answer, torch.Tensor)
    return answer


def test_the_graph_is_vit_base_and_holds_no_weights() -> None:
    """As many variables and numbers as TensorFlow has, in a file of some kilobytes."""
    bare = graph.load()
    sizes = [np.prod([int(size) for size in json.loads(one.doc_string)["shape"]], dtype=int)
             for one in bare.graph.initializer if one.doc_string]  # fmt: skip
    assert (len(sizes), sum(sizes)) == (200, 85_800_194)
    assert graph.FILE.stat().st_size < 200_000
    kinds = [node.op_type for node in bare.graph.node]
    assert (kinds.count("Attention"), kinds.count("LayerNormalization")) == (12, 25)


@pytest.mark.parametrize("kind", ["transformers", "plain"])
def test_both_models_answer_alike(kind: str) -> None:
    """Filled by TensorFlow's names, ours and either native model are the same function of as many numbers.

    What transformers is told by the environment is told to no other process.
    """
    before = dict(os.environ)
    bare = graph.load(1)
    values = graph.weights(bare)
    ours = lower(graph.filled(bare, values), graph.variables(bare))
    other, name = native.build(values, 1, kind)
    theirs = native.AtDtype(other, torch.float32, "cpu")
    torch.testing.assert_close(_answer(ours), _answer(theirs), atol=2e-6, rtol=0)
    assert name.startswith(kind)
    assert dict(os.environ) == before
    counts = {ours.trainable_elements(), sum(one.numel() for one in other.parameters())}
    assert counts == {sum(array.size for array in values.values())}


def test_weights_are_the_same_wherever_they_are_made() -> None:
    """Each by its name alone, and none is like another."""
    few, more = graph.weights(graph.load(1)), graph.weights(graph.load(2))
    assert set(few) < set(more)
    for name, array in few.items():
        np.testing.assert_array_equal(array, more[name])
    assert len({float(array.reshape(-1)[0]) for array in more.values()}) == len(more)


def test_a_cut_model_is_the_first_layers() -> None:
    """Of two layers, one less than the others' weights are left, and the last norm reads the second one's answer."""
    bare = graph.cut(graph.load(), 2)
    onnx.checker.check_model(graph.filled(bare, graph.weights(bare)))
    parts = {part for name in graph.variables(bare).values() for part in name.split("/")}
    layers = {part for part in parts if part.startswith("layer_._")}
    assert layers == {"layer_._0", "layer_._1"}
    norm = [node for node in bare.graph.node if node.op_type == "LayerNormalization"][-1]
    assert "layer_._1/output/add" in norm.input[0]


def test_a_converted_model_loses_and_regains_its_numbers(tmp_path: Path) -> None:
    """Nothing of a variable stays in the file; filled with its own numbers it is what it was, transposed ones too."""
    constants = {"w": numbers(3, 4), "b": numbers(4, seed=1)}
    proto = model("g (float[n,3] x) => (float[n,4] y) { m = MatMul(x, w) y = Add(m, b) }", **constants)
    own = package(tmp_path / "m" / "1", proto, {"x": numbers(2, 3)}, {"w": "dense/kernel", "b": "dense/bias"})
    manifest = json.loads((own.path / "manifest.json").read_text())
    manifest["initializers"][0] |= {"transposition": [1, 0]}
    bare = graph.stripped(proto, manifest)
    assert not any(one.raw_data or one.float_data for one in bare.graph.initializer)
    full = graph.filled(bare, {"dense/kernel": constants["w"].T, "dense/bias": constants["b"]})
    for before, after in zip(proto.graph.initializer, full.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(before), onnx.numpy_helper.to_array(after))


def test_a_name_without_a_place_is_refused() -> None:
    """A weight that the native model does not have, or that nothing fills, is no detail."""
    values = graph.weights(graph.load(1))
    with pytest.raises(ValueError, match="pooler/dense/kernel has no place"):
        native.build(values | {"vit/vit/pooler/dense/kernel": np.zeros((768, 768), np.float32)}, 1, "plain")
    values.popitem()
    with pytest.raises(ValueError, match="nothing has the weights of"):
        native.build(values, 1, "plain")
