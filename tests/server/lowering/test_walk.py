"""Tests of `server.lowering.walk`: the way from a graph to a module."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx2torch.node_converters import registry
from torch.export import Dim

from server.errors import GraphNotLowerable
from server.lowering import lower
from tests.server.lowering.graphs import model, numbers, real, require_lowered, require_one_graph, run, whole


def test_inputs_and_outputs_keep_their_order_and_names() -> None:
    """A caller binds tensors by ONNX's names, whatever the operators in between."""
    module = lower(model("g (float[n] b, float[n] a) => (float[n] d, float[n] c) { c = Sub(a, b) d = Neg(b) }"))
    assert [port.name for port in module.inputs] == ["b", "a"]
    assert [port.name for port in module.outputs] == ["d", "c"]
    d, c = run(module, real([1, 2]), real([5, 5]))
    assert (d.tolist(), c.tolist()) == ([-1, -2], [4, 3])
    assert module.inputs[0].shape == ("n",)


def test_an_output_may_be_an_input_a_constant_or_one_value_twice() -> None:
    """Exports do pass tensors through; onnx2torch's own walk fails on them."""
    graph = "g (float[2] x) => (float[2] x, float[2] w, float[2] y, float[2] y2) { y = Relu(x) y2 = Identity(y) }"
    require_lowered(model(graph, w=real([1, 2])), real([-3, 3]))


def test_one_output_of_several_is_the_right_one() -> None:
    """onnx2torch's own walk returns all outputs of a Split of which one is asked for."""
    graph = "g (float[4] x) => (float[2] second) { first, second = Split<num_outputs=2>(x) }"
    (second,) = run(lower(model(graph)), np.arange(4, dtype=np.float32))
    assert second.tolist() == [2, 3]


def test_an_optional_input_may_be_left_out() -> None:
    """An empty name is no value."""
    require_lowered(model("g (float[3] x) => (float[3] y) { y = Clip(x, , high) }", high=real(0.5)), numbers(3))


@pytest.mark.parametrize(
    ("graph", "operator", "reason"),
    [
        ("g (string[n] x) => (string[n] y) { name: y = StringNormalizer(x) }", "StringNormalizer", "no converter"),
        ("g (float[n] x) => (string[n] y) { y = Cast<to=8>(x) }", "Cast", "no such element type"),
        ("g (float[2,2] x) => (float[2,2] y) { y = BlackmanWindow(x) }", "BlackmanWindow", "no converter"),
    ],
)
def test_what_has_no_faithful_form_is_refused_by_name(graph: str, operator: str, reason: str) -> None:
    """Wrong numbers are worse than no backend; the text says what stands in the way and what serves instead."""
    graph = graph.replace("name: ", "")
    with pytest.raises(GraphNotLowerable, match=reason) as caught:
        lower(model(graph))
    assert caught.value.operator == operator
    assert "ONNX Runtime" in str(caught.value)


def test_an_unknown_attribute_is_refused() -> None:
    """An attribute that nobody reads could change the numbers."""
    proto = model("g (float[n] x) => (float[n] y) { y = LpNormalization(x) }")
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("epsilon", 1.0))
    with pytest.raises(GraphNotLowerable, match="attribute epsilon"):
        lower(proto)


def test_a_newer_operator_set_than_known_is_refused() -> None:
    """Nobody has read what it means."""
    proto = model("g (float[n] x) => (float[n] y) { y = Relu(x) }")
    proto.opset_import[0].version = 1000
    with pytest.raises(GraphNotLowerable, match="newer"):
        lower(proto)


def test_onnx2torchs_registry_is_only_read() -> None:
    """Another user of onnx2torch in the same process sees what it always saw."""
    before = dict(registry._CONVERTER_REGISTRY)
    lower(model("g (float[n] x) => (float[n] y) { a = Sigmoid(x) y = Max(a, x) }"))
    assert before == registry._CONVERTER_REGISTRY


def test_suppliers_say_whose_code_runs() -> None:
    """What is documented about an operator can be checked on a model."""
    module = lower(model("g (float[n] x) => (float[n] y) { a = Sigmoid(x) b = Sigmoid(a) y = Max(a, b) }"))
    assert module.suppliers == {("Sigmoid", "onnx2torch"): 2, ("Max", "segue"): 1}


def test_a_model_is_read_from_its_file(tmp_path: Path) -> None:
    """Weights beside the file come with it."""
    proto = model("g (float[n,3] x) => (float[n,4] y) { y = MatMul(x, w) }", w=numbers(3, 4))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = numbers(2, 3)
    np.testing.assert_allclose(run(lower(path), x)[0], x @ numbers(3, 4), rtol=1e-5)


def test_a_copy_is_a_module_of_its_own() -> None:
    """Fine-tuning keeps averages in copies."""
    module = lower(model("g (float[n,3] x) => (float[n,4] y) { y = MatMul(x, w) }", w=numbers(3, 4)))
    other = copy.deepcopy(module)
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert other.inputs == module.inputs
    assert run(module, numbers(2, 3))[0].any()
    assert not run(other, numbers(2, 3))[0].any()


def test_shapes_stay_numbers_in_one_dynamic_graph() -> None:
    """Arithmetic on shapes leaves nothing on the device, and nothing that pins a size."""
    graph = """g (float[b, t, 6] x) => (float[b, u, 3, 2] y, int64[2] sizes) {
        shape = Shape(x)
        batch = Gather(shape, zero)
        time = Slice(shape, one, two)
        long = Unsqueeze(batch, axes)
        target = Concat<axis=0>(long, time, rest)
        y = Reshape(x, target)
        twice = Mul(long, two)
        sizes = Concat<axis=0>(twice, time)
    }"""
    constants = {
        "zero": whole(0), "one": whole([1]), "two": whole([2]), "axes": whole([0]), "rest": whole([3, 2]),
    }  # fmt: skip
    module = require_lowered(model(graph, **constants), numbers(2, 5, 6))
    first, others = [numbers(3, 4, 6)], [[numbers(2, 7, 6)], [numbers(5, 3, 6)]]
    require_one_graph(module, first, *others, dynamic=[{0: Dim.DYNAMIC, 1: Dim.DYNAMIC}])


def test_a_shape_that_depends_on_data_still_runs() -> None:
    """Not every graph compiles, but every lowered one computes."""
    graph = "g (float[n] x, int64[2] target) => (float[r, c] y) { y = Reshape(x, target) }"
    require_lowered(model(graph), numbers(6), whole([2, 3]))


def test_sequences_are_put_together_and_joined() -> None:
    """SequenceEmpty and ConcatFromSequence, of which the standard has no test."""
    proto = model("""g (float[n,3] x) => (float[m,3] y, float[2,n,3] z) {
        e = SequenceEmpty() a = SequenceInsert(e, x) d = Add(x, x) s = SequenceInsert(a, d)
        y = ConcatFromSequence<axis=0>(s) z = ConcatFromSequence<axis=0, new_axis=1>(s) }""")
    require_lowered(proto, numbers(2, 3))
