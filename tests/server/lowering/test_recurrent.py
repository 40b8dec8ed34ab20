"""Tests of the recurrent operators where the standard's node tests do not go: all forms against each other."""

import copy

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn
from torch.export import Dim

from server.lowering import Variable, lower
from tests.server.lowering.graphs import Array, model, numbers, require_lowered, require_one_graph, run, whole

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_AFTER = "linear_before_reset=1"  # what Keras's reset_after is called in ONNX
_LAYERS = [("RNN", ""), ("GRU", ""), ("GRU", _AFTER), ("LSTM", "")]


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


def with_attributes(operator: str, attributes: str) -> str:
    """The graph of a layer with these attributes."""
    return layer(operator, f", {attributes}" if attributes else "")


def weights(operator: str, directions: int = 1) -> dict[str, Array]:
    """Random weights of that layer."""
    rows = 3 * _GATES[operator]
    return {
        "w": numbers(directions, rows, 2), "r": numbers(directions, rows, 3, seed=1),
        "bias": numbers(directions, 2 * rows, seed=2),
    }  # fmt: skip


@pytest.mark.parametrize(("operator", "attributes"), _LAYERS)
def test_a_layer_computes_what_the_standard_says(operator: str, attributes: str) -> None:
    """Against ONNX's reference implementation."""
    require_lowered(model(with_attributes(operator, attributes), **weights(operator)), numbers(5, 2, 2))


@pytest.mark.parametrize(("operator", "attributes"), _LAYERS)
def test_time_stays_dynamic(operator: str, attributes: str) -> None:
    """nn.LSTM and nn.GRU cannot be exported with a dynamic number of steps; torch's scan can."""
    module = lower(model(with_attributes(operator, attributes), **weights(operator)))
    first, others = [numbers(5, 3, 2)], [[numbers(8, 2, 2)], [numbers(2, 4, 2)]]
    require_one_graph(module, first, *others, dynamic=[{0: Dim.DYNAMIC, 1: Dim.DYNAMIC}])


@pytest.mark.parametrize(("operator", "attributes"), _LAYERS)
def test_both_directions_are_one_each_way(operator: str, attributes: str) -> None:
    """The second direction is the first one over the series turned around."""
    both = weights(operator, 2)
    x = numbers(5, 2, 2)
    more = f", {attributes}" if attributes else ""
    y, h, *_ = run(lower(model(layer(operator, f'{more}, direction="bidirectional"', 2), **both)), x)
    ahead = {name: value[:1] for name, value in both.items()}
    back = {name: value[1:] for name, value in both.items()}
    y1, h1, *_ = run(lower(model(layer(operator, more), **ahead)), x)
    y2, h2, *_ = run(lower(model(layer(operator, more), **back)), np.ascontiguousarray(x[::-1]))
    np.testing.assert_allclose(y, np.concatenate([y1, y2[::-1]], 1), atol=1e-6)
    np.testing.assert_allclose(h, np.concatenate([h1, h2]), atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("operator", "attributes"), _LAYERS)
def test_short_rows_end_early(operator: str, attributes: str, direction: str) -> None:
    """A row's result is that of the row alone; what lies beyond its length is not looked at, and gives zeros."""
    count = 2 if direction == "bidirectional" else 1
    own, x, lengths = weights(operator, count), numbers(5, 4, 2), whole([5, 2, 3, 0])
    more = f', direction="{direction}"' + (f", {attributes}" if attributes else "")
    y, h, *_ = run(lower(model(layer(operator, more, count, lengths="lengths"), **own)), x, lengths)
    alone = lower(model(layer(operator, more, count), **own))
    assert not y[:, :, 3].any()
    assert not h[:, 3].any()
    for row, length in enumerate(lengths[:3]):
        y1, h1, *_ = run(alone, np.ascontiguousarray(x[:length, row : row + 1]))
        np.testing.assert_allclose(y[:length, :, row : row + 1], y1, atol=1e-6)
        np.testing.assert_allclose(h[:, row : row + 1], h1, atol=1e-6)
        assert not y[length:, :, row].any()


@pytest.mark.parametrize("attributes", ["", _AFTER])
def test_a_batch_first_layout_is_the_same_layer(attributes: str) -> None:
    """Layout 1 puts the batch first everywhere."""
    own, x = weights("GRU"), numbers(5, 2, 2)
    y, h = run(lower(model(with_attributes("GRU", attributes), **own)), x)
    turned = model(
        with_attributes("GRU", attributes).replace("t,b", "b,t").replace("t,1,b", "b,t,1").replace("1,b,3", "b,1,3"),
        **own,
    )
    turned.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    y1, h1 = run(lower(turned), np.ascontiguousarray(x.swapaxes(0, 1)))
    np.testing.assert_allclose(y1, y.transpose(2, 0, 1, 3), atol=1e-6)
    np.testing.assert_allclose(h1, h.swapaxes(0, 1), atol=1e-6)


def test_activations_may_be_named() -> None:
    """tf2onnx always names them, the default ones too."""
    own, x = weights("LSTM"), numbers(5, 2, 2)
    named = layer("LSTM", ', activations=["Sigmoid", "Tanh", "Tanh"]')
    np.testing.assert_array_equal(run(lower(model(named, **own)), x)[0], run(lower(model(layer("LSTM"), **own)), x)[0])


def cores(module: nn.Module) -> list[nn.Module]:
    """The recurrent layers of torch."""
    return [one for one in module.modules() if isinstance(one, nn.LSTM | nn.GRU)]


@pytest.mark.parametrize(
    ("operator", "attributes", "found"),
    [
        ("LSTM", "", 1), ("GRU", _AFTER, 1), ("GRU", "", 0), ("LSTM", "input_forget=1", 0), ("LSTM", "clip=0.5", 0),
        ("LSTM", 'activations=["Sigmoid", "Tanh", "Tanh"]', 1), ("LSTM", 'activations=["Sigmoid", "Relu", "Tanh"]', 0),
        ("GRU", f'{_AFTER}, activations=["HardSigmoid", "Tanh"]', 0), ("RNN", "", 0),
    ],
)  # fmt: skip
def test_what_torchs_layers_compute_becomes_one(operator: str, attributes: str, found: int) -> None:
    """And what they do not (another reset gate, clipping, other activations) is left to the operators."""
    module = lower(model(with_attributes(operator, attributes), **weights(operator)))
    assert len(cores(module)) == found


def test_states_before_the_first_step_are_given() -> None:
    """Keras gives its own, which are zero, and stateful models give others."""
    graph = """g (float[t,b,2] x, float[1,b,3] h0, float[1,b,3] c0)
        => (float[t,1,b,3] y, float[1,b,3] h, float[1,b,3] c) {
        y, h, c = LSTM<hidden_size=3>(x, w, r, bias, , h0, c0) }"""
    module = require_lowered(
        model(graph, **weights("LSTM")), numbers(5, 2, 2), numbers(1, 2, 3, seed=5), numbers(1, 2, 3, seed=6)
    )
    assert len(cores(module)) == 1


def test_peepholes_are_left_to_the_operator() -> None:
    """The layer of torch has none."""
    graph = """g (float[t,b,2] x) => (float[t,1,b,3] y) {
        y, h, c = LSTM<hidden_size=3>(x, w, r, bias, , , , peep) }"""
    assert not cores(require_lowered(model(graph, **weights("LSTM"), peep=numbers(1, 9)), numbers(5, 2, 2)))


def test_parameters_are_those_of_keras_by_name_and_number() -> None:
    """The exporter merges and reorders the variables of a cell; Keras's LSTM has one bias where torch has two."""
    own = weights("LSTM", 2)
    own["bias"][:, 12:] = 0
    sizes = {"kernel": 24, "recurrent_kernel": 36, "bias": 12}
    folded = [
        Variable(f"both/{way}_lstm/lstm_cell/{leaf}", elements=size)
        for way in ("backward", "forward")
        for leaf, size in sizes.items()
    ]
    graph = model(layer("LSTM", ', direction="bidirectional"', 2), **own)
    module = lower(graph, {}, folded)
    assert module.trainable_elements() == 2 * sum(sizes.values())
    names = {key: origin.variable for key, origin in module.origins.items()}
    place = "both.forward_lstm.core"
    assert names[f"{place}.weight_ih_l0"] == "both/forward_lstm/lstm_cell/kernel"
    assert names[f"{place}.weight_hh_l0_reverse"] == "both/backward_lstm/lstm_cell/recurrent_kernel"
    assert names[f"{place}.bias_ih_l0"] == "both/forward_lstm/lstm_cell/bias"
    assert names[f"{place}.bias_hh_l0"] == ""


def test_cells_that_nothing_tells_apart_have_no_names() -> None:
    """A wrong name would be worse; the weights are trained all the same."""
    folded = [
        Variable(f"{name}/cell/{leaf}", elements=size)
        for name in ("one", "other")
        for leaf, size in {"kernel": 18, "recurrent_kernel": 27, "bias": 18}.items()
    ]
    module = lower(model(with_attributes("GRU", _AFTER), **weights("GRU")), {}, folded)
    assert module.trainable_elements() == 63
    assert {origin.variable for origin in module.origins.values()} == {""}


def test_new_weights_are_seen_by_all_forms() -> None:
    """Loaded, copied or moved: the layer, and what is compiled of it, compute with the same parameters."""
    module = lower(model(layer("LSTM"), **weights("LSTM")))
    other = copy.deepcopy(module).to(torch.float64).to(torch.float32)
    other.load_state_dict({key: value * 2 for key, value in module.state_dict().items()}, assign=True)
    x = torch.from_numpy(numbers(5, 3, 2))
    torch.compiler.reset()
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), other(x))
    assert not torch.allclose(other(x)[0], module(x)[0])
