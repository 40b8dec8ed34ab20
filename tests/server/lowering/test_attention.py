"""Tests of `server.lowering.attention`: what is attention becomes one call, and nothing else does."""

import numpy as np
import pytest
from torch.export import Dim

from server.lowering import LoweredModule, lower
from server.lowering.attention import attended
from tests.server.lowering.graphs import Array, model, numbers, real, require_lowered, require_one_graph

_BEFORE = "q = Transpose<perm=[0,2,1,3]>(a) k = Transpose<perm=[0,2,3,1]>(b) v = Transpose<perm=[0,2,1,3]>(c)"


def graph(scores: str, weighted: str = "y = MatMul(p, v)", more: str = "", softmax: str = "Softmax") -> str:
    """Attention over three heads, with what lies between the products; `s` is what the softmax takes."""
    inputs = f"float[n,t,3,4] a, float[n,u,3,4] b, float[n,u,3,5] c{more}"
    return f"g ({inputs}) => (float[n,3,t,5] y) {{ {_BEFORE} {scores} p = {softmax}(s) {weighted} }}"


def found(module: LoweredModule) -> int:
    """How many attentions a module has."""
    return sum(node.target is attended for node in module.graph.nodes)


def feeds() -> list[Array]:
    """Queries, keys and values."""
    return [numbers(2, 6, 3, 4), numbers(2, 7, 3, 4, seed=1), numbers(2, 7, 3, 5, seed=2)]


@pytest.mark.parametrize(
    "scores",
    [
        "s = MatMul(q, k)",
        "m = MatMul(q, k) s = Mul(m, half)",
        "m = MatMul(q, k) s = Mul(half, m)",
        "m = MatMul(q, k) s = Div(m, half)",
        "m = MatMul(q, k) d = Mul(m, half) s = Add(d, tiny)",
        "m = MatMul(q, k) d = Mul(m, half) s = Add(tiny, d)",
        "r = Mul(q, half) s = MatMul(r, k)",
        "m = MatMul(q, k) e = Div(m, half) d = Mul(e, half) s = Add(d, tiny)",
        (
            "kk = Transpose<perm=[0,2,1,3]>(b) qq = Transpose<perm=[0,2,3,1]>(a) m = MatMul(kk, qq) "
            "z = Transpose<perm=[0,1,3,2]>(m) s = Mul(z, half)"
        ),
    ],
)
def test_scales_in_any_form_and_order(scores: str) -> None:
    """A factor, a quotient, on the scores or the queries; a number added to all scores changes nothing and goes."""
    module = require_lowered(model(graph(scores), half=real(0.5), tiny=real(1e-9)), *feeds())
    assert found(module) == 1
    assert not any("softmax" in node.name.lower() for node in module.graph.nodes)


@pytest.mark.parametrize("order", ["d, mask", "mask, d"])
@pytest.mark.parametrize("shape", [(2, 1, 1, 7), (6, 7), (2, 3, 6, 7)])
def test_a_mask_is_added(order: str, shape: tuple[int, ...]) -> None:
    """As BERT does, before or behind the scores."""
    dims = ",".join(map(str, shape))
    text = graph(f"m = MatMul(q, k) d = Mul(m, half) s = Add({order})", more=f", float[{dims}] mask")
    mask = np.where(numbers(*shape) > 0.5, -1e9, 0).astype(np.float32)
    assert found(require_lowered(model(text, half=real(0.5)), *feeds(), mask)) == 1


def test_scores_may_be_replaced() -> None:
    """By a number so low that nothing of the score would be left, also where a row has nothing else."""
    text = graph(
        "m = MatMul(q, k) d = Mul(m, half) s = Where(seen, d, low)", more=", bool[n,1,t,u] seen"
    )  # fmt: skip
    seen = numbers(2, 1, 6, 7) > 0
    seen[0, 0, 0] = False
    assert found(require_lowered(model(text, half=real(0.5), low=real(-3e38)), *feeds(), seen)) == 1
    assert found(require_lowered(model(text, half=real(0.5), low=real(-5)), *feeds(), seen)) == 0


@pytest.mark.parametrize(
    ("scores", "weighted", "softmax"),
    [
        ("m = MatMul(q, k) d = Add(m, tiny) s = Mul(d, half)", "y = MatMul(p, v)", "Softmax<axis=2>"),
        ("m = MatMul(q, k) s = Relu(m)", "y = MatMul(p, v)", "Softmax"),
        ("m = MatMul(q, k) s = Mul(m, m)", "y = MatMul(p, v)", "Softmax"),
        ("s = MatMul(q, k)", "w = MatMul(p, v) l = Log(p) e = ReduceSum<keepdims=1>(l, axes) y = Add(w, e)", "Softmax"),
        ("s = MatMul(q, k)", "z = Mul(p, half) y = MatMul(z, v)", "Softmax"),
        ("m = MatMul(q, k) s = Mul(m, nought)", "y = MatMul(p, v)", "Softmax"),
    ],
)
def test_what_is_no_attention_stays(scores: str, weighted: str, softmax: str) -> None:
    """Another axis, a function between, a softmax that is used elsewhere."""
    constants = {"half": real(0.5), "tiny": real(1e-9), "nought": real(0.0), "axes": np.array([3])}
    module = require_lowered(model(graph(scores, weighted, softmax=softmax), **constants), *feeds())
    assert found(module) == 0


def test_a_scale_that_is_trained_is_no_number() -> None:
    """It stays a parameter."""
    text = graph("m = MatMul(q, k) s = Mul(m, half)")
    module = require_lowered(model(text, half=real([0.5])), *feeds(), variables={"half": "temperature"})
    assert found(module) == 0


def test_a_mask_behind_the_scale_is_not_scaled() -> None:
    """Where mask and score are scaled together, both must be."""
    text = graph("m = MatMul(q, k) d = Add(m, mask) s = Mul(d, half)", more=", float[6,7] mask")
    require_lowered(model(text, half=real(0.5)), *feeds(), numbers(6, 7))


def test_attention_of_any_length_is_one_graph() -> None:
    """Batch and both lengths stay open."""
    module = lower(model(graph("m = MatMul(q, k) s = Mul(m, half)"), half=real(0.5)))
    assert found(module) == 1
    other = [numbers(5, 8, 3, 4), numbers(5, 9, 3, 4), numbers(5, 9, 3, 5)]
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    require_one_graph(module, feeds(), other, dynamic=[axes, axes, axes])
