"""Tests of control flow: If, Loop and Scan."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import Dim

from server.errors import GraphNotLowerable
from server.lowering import lower
from server.lowering.exporting import export
from server.lowering.precision import AtPrecision
from tests.server.lowering.graphs import (
    model,
    numbers,
    real,
    require_lowered,
    require_one_graph,
    require_same,
    run,
    whole,
)

_BRANCHES = """g (float[n] x) => (float[n] y) {
    total = ReduceSum<keepdims=0>(x) positive = Greater(total, zero)
    y = If(positive) <
        then_branch = yes () => (float[n] a) { a = Mul(x, w) },
        else_branch = no () => (float[n] b) { b = Neg(x) }
    >
}"""


@pytest.mark.parametrize("sign", [1, -1])
def test_a_branch_is_chosen_by_the_data(sign: int) -> None:
    """Both branches see the values of the graph around them."""
    x = np.abs(numbers(4)) * real(sign)
    require_lowered(model(_BRANCHES, zero=real(0), w=real(3)), x)


def test_branches_compile_into_one_graph() -> None:
    """The choice is made on the device, whatever the size."""
    module = lower(model(_BRANCHES, zero=real(0), w=real(3)))
    cases = [np.abs(numbers(4)), -np.abs(numbers(6)), np.abs(numbers(3))]
    require_one_graph(module, *[[case] for case in cases], dynamic=[{0: Dim.DYNAMIC}])


def test_a_branch_on_a_shape_is_taken_while_tracing() -> None:
    """A size is known then, so only one branch becomes part of the graph."""
    graph = """g (float[n,3] x) => (float[n,k] y) {
        s = Shape<start=1>(x) w = Squeeze(s) wide = Greater(w, two)
        y = If(wide) <
            then_branch = yes () => (float[n,3] a) { a = Neg(x) },
            else_branch = no () => (float[n,1] b) { b = ReduceSum<keepdims=1>(x, axes) }
        >
    }"""
    module = require_lowered(model(graph, two=whole(2), axes=whole([1])), numbers(2, 3))
    require_one_graph(module, [numbers(4, 3)], [numbers(5, 3)], dynamic=[{0: Dim.DYNAMIC}])


_WHILE = """g (float[n] x) => (float[n] y) {
    start = ReduceMax<keepdims=0>(x) going = Less(start, limit)
    y = Loop(, going, x) <
        body = step (int64 i, bool c, float[n] v) => (bool more, float[n] w) {
            w = Add(v, half) most = ReduceMax<keepdims=0>(w) more = Less(most, limit) }
    >
}"""


@pytest.mark.parametrize("limit", [5.0, -5.0])
def test_a_loop_ends_when_its_condition_says_so(limit: float) -> None:
    """After some steps, or before the first."""
    require_lowered(model(_WHILE, limit=real(limit), half=real(0.5)), numbers(4))


def test_a_loop_on_data_compiles_into_one_graph() -> None:
    """The number of steps is found out on the device."""
    module = lower(model(_WHILE, limit=real(5), half=real(0.5)))
    require_one_graph(module, [numbers(4)], [numbers(6) - 3], dynamic=[{0: Dim.DYNAMIC}])


_OVER_TIME = """g (float[t,n] x) => (float[n] last, float[t,n] all) {
    s = Shape(x) t = Gather(s, zero) some = Less(zero, t)
    count, last, same, all = Loop(t, some, zero, first, weight) <
        body = step (int64 i, bool c, int64 k, float[n] v, float[n] w)
            => (bool more, int64 k1, float[n] v1, float[n] w1, float[n] out) {
            row = Gather(x, k) both = Mul(v, w) v1 = Add(row, both) out = Tanh(v1) w1 = Identity(w)
            k1 = Add(k, one) a = Less(i, t) b = Less(k1, t) more = And(a, b) }
    >
}"""


def test_a_loop_over_time_collects_what_its_steps_put_out() -> None:
    """The form in which Keras writes a recurrent layer: a counter, a condition on it, and an output for each step."""
    constants = {"zero": whole(0), "one": whole(1), "first": numbers(3, seed=1), "weight": numbers(3, seed=2)}
    module = require_lowered(model(_OVER_TIME, **constants), numbers(5, 3))
    require_one_graph(module, [numbers(5, 3)], [numbers(7, 3)], [numbers(2, 3)], dynamic=[{0: Dim.DYNAMIC}])


def test_the_number_of_steps_stays_the_size_that_it_is() -> None:
    """Inductor must find a size itself in what a loop is given, also of a loop over what another one put out."""
    constants = {"zero": whole(0), "one": whole(1), "first": numbers(3, seed=1), "weight": numbers(3, seed=2)}
    module = lower(model(_OVER_TIME.replace("float[t,n] x", "float[t,3] x"), **constants))
    with torch.no_grad():
        exported = export(AtPrecision(module, "fp32", "cpu"), module.inputs, "cpu")
    (scan,) = (node for node in exported.graph.graph.nodes if str(node.target) == "scan")
    assert str(scan.meta["val"][-1].shape[0]).isidentifier()


def test_no_step_at_all_is_said_to_have_no_outputs() -> None:
    """Nothing says of which shape they would be, and a guess would be a wrong answer."""
    constants = {"zero": whole(0), "one": whole(1), "first": numbers(3, seed=1), "weight": numbers(3, seed=2)}
    with pytest.raises(GraphNotLowerable, match="without a single step"):
        lower(model(_OVER_TIME, **constants))(torch.empty(0, 3))


def test_a_scan_goes_both_ways() -> None:
    """A slice of the series each step, the outputs put together from the end."""
    graph = """g (float[t,n] x, float[n] first) => (float[n] last, float[t,n] sums) {
        last, sums = Scan<num_scan_inputs=1, scan_input_directions=[1], scan_output_directions=[1],
            body = step (float[n] v, float[n] row) => (float[n] w, float[n] out) { w = Add(v, row) out = Mul(w, w) }
        >(first, x)
    }"""
    module = lower(model(graph))
    x, start = numbers(4, 3), numbers(3, seed=1)
    sums = start + np.cumsum(x[::-1], 0)
    require_same(run(module, x, start), [sums[-1], (sums**2)[::-1]])
    first, other = [x, start], [numbers(6, 3), start]
    require_one_graph(module, first, other, dynamic=[{0: Dim.DYNAMIC}, {}])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's ahead-of-time compiler needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_a_loop_over_time_compiles_ahead_of_time(tmp_path: Path) -> None:
    """Inductor asks more of a loop than torch.export does; batch and time stay open all the same."""
    constants = {"zero": whole(0), "one": whole(1), "first": numbers(3, seed=1), "weight": numbers(3, seed=2)}
    module = lower(model(_OVER_TIME, **constants))
    with torch.no_grad():
        exported = torch.export.export(module, (torch.from_numpy(numbers(5, 3)),), dynamic_shapes=({0: Dim.DYNAMIC},))
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "model.pt2"))
    compiled = torch._inductor.aoti_load_package(path)
    for steps in (5, 8, 2):
        require_same(run(compiled, numbers(steps, 3)), run(module, numbers(steps, 3)))
