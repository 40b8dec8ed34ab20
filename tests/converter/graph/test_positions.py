"""Tests of `converter.graph.positions`: what nobody reads is not computed, and answers stay what they were."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from converter.graph import positions
from converter.graph.facts import gather_facts
from converter.graph.pipeline import rewrite
from server.arrays import Array
from tests.converter.graph.conftest import Networks
from tests.converter.graph.simplifying import operators, rewritten

SERIES = "float[n, 5, 4] x"
SECOND = "c = Slice(h, one, two, one)"
ATTEND = "Attention<q_num_heads=2, kv_num_heads=2"

# A body that gives h, in which a product or an attention is computed for each of five positions.
MOVED = {
    "dense layer": "p = MatMul(x, w) h = Add(p, v)",
    "residual": "p = MatMul(x, w) q = Gelu(p) h = Add(x, q)",
    "layer normalisation": "p = MatMul(x, w) h = LayerNormalization<axis=-1>(p, v, v)",
    "broadcasting": "p = MatMul(x, w) r = Mul(p, row) s = Sub(column, r) h = Max(s, v)",
    "attention": f"q = MatMul(x, w) h = {ATTEND}>(q, x, x)",
    "a mask with rows": f"q = MatMul(x, w) h = {ATTEND}>(q, x, x, rows)",
    "product with a batch of matrices": "t = Transpose<perm=[0, 2, 1]>(x) p = MatMul(x, t) h = Relu(p)",
}
STAYED = {
    "earlier positions count": f"q = MatMul(x, w) h = {ATTEND}, is_causal=1>(q, x, x)",
    "normalised over positions": "p = MatMul(x, w) h = LayerNormalization<axis=1>(p, square, square)",
    "no longer an axis by itself": "p = MatMul(x, w) h = Transpose<perm=[0, 2, 1]>(p)",
    "sorted along positions": "p = MatMul(x, w) h = CumSum(p, one)",
    "no product": "p = Add(x, v) h = Gelu(p)",
}


def _model(body: str, inputs: str = SERIES) -> ir.Model:
    """A model from ONNX's text whose y is made of h, with constants of fixed random numbers."""
    text = f'<ir_version: 11, opset_import: ["" : 23]> g ({inputs}) => (float[n, k, m] y) {{ {body} }}'
    model = parser.parse_model(text)
    random = np.random.default_rng(0)
    shapes = {"w": (4, 4), "v": (4,), "row": (1, 1), "column": (5, 1), "rows": (5, 5), "square": (5, 4)}
    arrays: dict[str, Array] = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {name: np.array([number]) for name, number in {"one": 1, "two": 2, "three": 3, "last": -1}.items()}
    arrays["end"] = np.array([2**63 - 1])
    used = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used)
    return ir.from_proto(model)


def _moved(model: ir.Model) -> ir.Model | None:
    """The model after the rewrite, which must answer as before; None if it found nothing to do."""
    result = rewrite(model, {}, rewrites=[positions.REWRITE])
    assert not result.refused
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(ir.to_proto(one).SerializeToString()).run(None, {"x": x})
        for one in (model, result.model)
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    return result.model if result.applied else None


def _width(model: ir.Model) -> set[object]:
    """How many positions the products and attentions compute."""
    facts = gather_facts(model)
    found = [node.outputs[0] for node in model.graph if node.op_type in {"MatMul", "Attention"}]
    return {facts.shapes[value][1] for value in found}


@pytest.mark.parametrize("cut", [SECOND, "c = Slice(h, last, end, one)"])
@pytest.mark.parametrize("body", MOVED.values(), ids=MOVED.keys())
def test_only_what_is_read_is_computed(body: str, cut: str) -> None:
    """The slice comes first, and each layer that treats the positions one by one computes one of five."""
    model = _moved(_model(f"{body} {cut} y = Relu(c)"))
    assert model is not None
    assert _width(model) == {1}


@pytest.mark.parametrize("body", STAYED.values(), ids=STAYED.keys())
def test_positions_that_count_are_computed(body: str) -> None:
    """What depends on other positions, and what is not worth a slice more, stays as it is."""
    assert _moved(_model(f"{body} {SECOND} y = Relu(c)")) is None


def test_several_positions_are_kept_together() -> None:
    """A slice of more than one position moves as one of a single position does."""
    model = _moved(_model("h = MatMul(x, w) c = Slice(h, one, three, one) y = Relu(c)"))
    assert model is not None
    assert _width(model) == {2}


@pytest.mark.parametrize(
    "rest",
    [
        "c = Slice(h, one, two, one) d = Slice(h, two, three, one) y = Add(c, d)",
        "c = Slice(h, one, two, one) y = Add(c, h)",
        "c = Slice(h, one, two, one) s = Shape(h) f = Cast<to=1>(s) g = ReduceSum(f) y = Add(c, g)",
    ],
    ids=["by another slice", "whole", "its size"],
)
def test_what_others_read_is_computed_whole(rest: str) -> None:
    """A slice stays where something besides it reads what it slices."""
    assert _moved(_model(f"h = MatMul(x, w) {rest}")) is None


def test_what_may_be_of_size_one_is_not_sliced() -> None:
    """Of two operands whose sizes are known at run time only, either may be broadcast: the slice stays behind them."""
    model = _model(
        "p = MatMul(x, w) h = Add(p, z) c = Slice(h, one, two, one) y = Relu(c)", f"{SERIES}, float[n, k, 4] z"
    )
    result = rewrite(model, {}, rewrites=[positions.REWRITE])
    assert (result.applied, result.refused) == ({}, {})


@pytest.mark.slow
def test_the_last_layer_of_a_classifier(network: Networks, tmp_path: Path) -> None:
    """Of ViT's last layer, keys and values are computed for every token, all else for the one that is classified."""
    result = rewritten(network("vit"), tmp_path)
    assert "positions" in result.applied
    facts = gather_facts(result.model)
    tokens = [facts.shapes[node.outputs[0]][1] for node in result.model.graph if node.op_type == "MatMul"]
    assert tokens == [17] * 6 + [17, 1, 17] + [1] * 3 + [tokens[-1]]
    assert operators(result.model)["Slice"] == 2


@pytest.mark.slow
def test_a_layer_that_is_an_output_is_whole(network: Networks, tmp_path: Path) -> None:
    """BERT's pooled output needs the first token alone, but its states are an answer too."""
    assert "positions" not in rewritten(network("bert"), tmp_path).applied
