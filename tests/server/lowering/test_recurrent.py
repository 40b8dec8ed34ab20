"""Tests of the recurrent operators where the standard's node tests do not go: all forms against each other."""

import numpy as np
import pytest
from onnx import helper
from torch.export import Dim

from server.lowering import lower
from tests.server.lowering.graphs import Array, model, numbers, require_lowered, require_one_graph, run, whole

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(operator: str, attributes: str = "", directions: int = 1, lengths: str = "") -> str:
    """A graph of one recurrent layer over [time, batch, 2] with 3 hidden numbers."""
    outputs = "y, h, c" if operator == "LSTM" else "y, h"
    given = f", int64[b] {lengths}" if lengths else ""
    declared = ", ".join(f"float[{shape}] {name}" for name, shape in zip(
        outputs.split(", "), [f"t,{directions},b,3", f"{directions},b,3", f"{directions},b,3"], strict=False
    ))  # fmt: skip
    cast = f"short = Cast<to=6>({lengths})" if lengths else ""
    short = "short" if lengths else ""
    return f"""g (float[t,b,2] x{given}) => ({declared}) {{
        {cast} {outputs} = {operator}<hidden_size=3 {attributes}>(x, w, r, bias, {short}) }}"""


def weights(operator: str, directions: int = 1) -> dict[str, Array]:
    """Random weights of that layer."""
    rows = 3 * _GATES[operator]
    return {
        "w": numbers(directions, rows, 2), "r": numbers(directions, rows, 3, seed=1),
        "bias": numbers(directions, 2 * rows, seed=2),
    }  # fmt: skip


@pytest.mark.parametrize("operator", _GATES)
def test_a_layer_computes_what_the_standard_says(operator: str) -> None:
    """Against ONNX's reference implementation."""
    require_lowered(model(layer(operator), **weights(operator)), numbers(5, 2, 2))


@pytest.mark.parametrize("operator", _GATES)
def test_time_stays_dynamic(operator: str) -> None:
    """nn.LSTM and nn.GRU cannot be exported with a dynamic number of steps; torch's scan can."""
    module = lower(model(layer(operator), **weights(operator)))
    first, others = [numbers(5, 3, 2)], [[numbers(8, 2, 2)], [numbers(2, 4, 2)]]
    require_one_graph(module, first, *others, dynamic=[{0: Dim.DYNAMIC, 1: Dim.DYNAMIC}])


@pytest.mark.parametrize("operator", _GATES)
def test_both_directions_are_one_each_way(operator: str) -> None:
    """The second direction is the first one over the series turned around."""
    both = weights(operator, 2)
    x = numbers(5, 2, 2)
    y, h, *_ = run(lower(model(layer(operator, ', direction="bidirectional"', 2), **both)), x)
    ahead = {name: value[:1] for name, value in both.items()}
    back = {name: value[1:] for name, value in both.items()}
    y1, h1, *_ = run(lower(model(layer(operator), **ahead)), x)
    y2, h2, *_ = run(lower(model(layer(operator), **back)), np.ascontiguousarray(x[::-1]))
    np.testing.assert_allclose(y, np.concatenate([y1, y2[::-1]], 1), atol=1e-6)
    np.testing.assert_allclose(h, np.concatenate([h1, h2]), atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("operator", _GATES)
def test_short_rows_end_early(operator: str, direction: str) -> None:
    """A row's result is that of the row alone; what lies beyond its length is not looked at, and gives zeros."""
    own, x, lengths = weights(operator), numbers(5, 3, 2), whole([5, 2, 3])
    graph = layer(operator, f', direction="{direction}"', lengths="lengths")
    y, h, *_ = run(lower(model(graph, **own)), x, lengths)
    alone = lower(model(layer(operator, f', direction="{direction}"'), **own))
    for row, length in enumerate(lengths):
        y1, h1, *_ = run(alone, np.ascontiguousarray(x[:length, row : row + 1]))
        np.testing.assert_allclose(y[:length, :, row : row + 1], y1, atol=1e-6)
        np.testing.assert_allclose(h[:, row : row + 1], h1, atol=1e-6)
        assert not y[length:, :, row].any()


def test_a_batch_first_layout_is_the_same_layer() -> None:
    """Layout 1 puts the batch first everywhere."""
    own, x = weights("GRU"), numbers(5, 2, 2)
    y, h = run(lower(model(layer("GRU"), **own)), x)
    turned = model(layer("GRU").replace("t,b", "b,t").replace("t,1,b", "b,t,1").replace("1,b,3", "b,1,3"), **own)
    turned.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    y1, h1 = run(lower(turned), np.ascontiguousarray(x.swapaxes(0, 1)))
    np.testing.assert_allclose(y1, y.transpose(2, 0, 1, 3), atol=1e-6)
    np.testing.assert_allclose(h1, h.swapaxes(0, 1), atol=1e-6)


def test_activations_may_be_named() -> None:
    """tf2onnx always names them, the default ones too."""
    own, x = weights("LSTM"), numbers(5, 2, 2)
    named = layer("LSTM", ', activations=["Sigmoid", "Tanh", "Tanh"]')
    np.testing.assert_array_equal(run(lower(model(named, **own)), x)[0], run(lower(model(layer("LSTM"), **own)), x)[0])
