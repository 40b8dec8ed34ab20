"""Tests of `server.lowering.layers`: layers come back as what they were."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from server.arrays import Array
from server.lowering import LoweredModule, Variable, lower
from tests.server.lowering.graphs import model, numbers, require_lowered, run, whole


def layers(module: LoweredModule) -> Counter[str]:
    """How many of torch's own layers a module has."""
    known = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.Embedding, nn.BatchNorm2d)
    return Counter(type(one).__name__ for one in module.modules() if isinstance(one, known))


def test_a_product_and_the_bias_behind_it_are_a_linear_layer() -> None:
    """TensorFlow writes a dense layer as two operators."""
    graph = "g (float[n,3] x) => (float[n,4] y) { a = MatMul(x, w) y = Add(b, a) }"
    module = require_lowered(model(graph, w=numbers(3, 4), b=numbers(4)), numbers(2, 3))
    assert layers(module) == {"Linear": 1}
    assert module.trainable_elements() == 16


def test_a_bias_behind_a_reshape_belongs_to_the_layer() -> None:
    """TensorFlow flattens the batch and time of a dense layer, and adds the bias after it has undone that."""
    graph = """g (float[2,5,3] x) => (float[2,5,4] y) {
        flat = Reshape(x, rows) a = MatMul(flat, w) back = Reshape(a, shape) y = Add(back, b) }"""
    constants = {"rows": whole([-1, 3]), "shape": whole([2, 5, 4]), "w": numbers(3, 4), "b": numbers(4)}
    module = require_lowered(model(graph, **constants), numbers(2, 5, 3))
    assert layers(module) == {"Linear": 1}
    assert next(one for one in module.modules() if isinstance(one, nn.Linear)).bias is not None


def test_a_product_that_is_used_elsewhere_keeps_its_bias_apart() -> None:
    """The value before the addition is a result too."""
    graph = "g (float[n,3] x) => (float[n,4] a, float[n,4] y) { a = MatMul(x, w) y = Add(a, b) }"
    module = require_lowered(model(graph, w=numbers(3, 4), b=numbers(4)), numbers(2, 3))
    assert next(one for one in module.modules() if isinstance(one, nn.Linear)).bias is None


@pytest.mark.parametrize("attributes", ["", "<transB=1>", "<alpha=0.5>", "<beta=2.0>", "<transA=1, transB=1>"])
def test_gemm_is_a_linear_layer_where_it_is_one(attributes: str) -> None:
    """Factors and a transposed input are none of a layer's business."""
    x = numbers(3, 3) if "transA" in attributes else numbers(2, 3)
    weight = numbers(4, 3) if "transB" in attributes else numbers(3, 4)
    graph = f"g (float[n,3] x) => (float[n,4] y) {{ y = Gemm{attributes}(x, w, b) }}"
    module = require_lowered(model(graph, w=weight, b=numbers(4)), x)
    assert layers(module)["Linear"] == (attributes in {"", "<transB=1>"})


@pytest.mark.parametrize(
    "attributes",
    [
        "", "<strides=[2,2]>", "<dilations=[2,2], pads=[2,2,2,2]>", "<pads=[0,1,2,0]>", "<auto_pad=\"SAME_UPPER\">",
        "<auto_pad=\"SAME_UPPER\", strides=[2,3]>", "<auto_pad=\"SAME_LOWER\", strides=[2,2]>", "<auto_pad=\"VALID\">",
    ],
)  # fmt: skip
def test_convolutions_are_layers_whatever_their_padding(attributes: str) -> None:
    """TensorFlow pads unequally with strides; torch's layers do not."""
    graph = f"g (float[n,4,h,w] x) => (float[n,6,p,q] y) {{ y = Conv{attributes}(x, kernel, bias) }}"
    module = require_lowered(model(graph, kernel=numbers(6, 4, 3, 2), bias=numbers(6)), numbers(2, 4, 9, 8))
    assert layers(module) == {"Conv2d": 1}


def test_grouped_and_one_dimensional_convolutions() -> None:
    """Depthwise convolutions are groups of one channel."""
    graph = "g (float[n,4,h] x) => (float[n,4,p] y) { y = Conv<group=4>(x, kernel) }"
    assert layers(require_lowered(model(graph, kernel=numbers(4, 1, 3)), numbers(2, 4, 9))) == {"Conv1d": 1}


def test_layer_normalisation_is_a_layer() -> None:
    """The rewrites of the converter bring it back as one operator."""
    graph = "g (float[n,5,8] x) => (float[n,5,8] y) { y = LayerNormalization<axis=2, epsilon=0.01>(x, g, b) }"
    module = require_lowered(model(graph, g=numbers(8), b=numbers(8, seed=1)), numbers(2, 5, 8))
    assert layers(module) == {"LayerNorm": 1}


def test_batch_normalisation_keeps_its_statistics_out_of_training() -> None:
    """Scale and bias are parameters, mean and variance are not."""
    graph = "g (float[n,3,4,4] x) => (float[n,3,4,4] y) { y = BatchNormalization(x, s, b, m, v) }"
    constants = {"s": numbers(3), "b": numbers(3, seed=1), "m": numbers(3, seed=2), "v": np.abs(numbers(3, seed=3))}
    module = require_lowered(model(graph, **constants), numbers(2, 3, 4, 4))
    assert layers(module) == {"BatchNorm2d": 1}
    assert module.trainable_elements() == 6


def test_an_embedding_reads_rows_from_the_end_too() -> None:
    """ONNX counts positions below 0 from the end, which torch's layer does not."""
    graph = "g (int64[n,m] x) => (float[n,m,4] y) { y = Gather(table, x) }"
    module = require_lowered(model(graph, table=numbers(7, 4)), whole([[0, 6, -1], [-7, 2, 3]]))
    assert layers(module) == {"Embedding": 1}


def test_a_shared_constant_is_one_parameter() -> None:
    """Tied weights stay tied when they are trained; onnx2torch makes copies of them."""
    graph = "g (float[n,3] x, float[n,3] z) => (float[n,3] y) { a = MatMul(x, w) c = MatMul(z, w) y = Add(a, c) }"
    module = require_lowered(model(graph, w=numbers(3, 3)), numbers(2, 3), numbers(2, 3, seed=1))
    assert module.trainable_elements() == 9
    assert layers(module) == {"Linear": 1}


def test_a_constant_that_is_used_in_two_layouts_is_one_parameter() -> None:
    """An embedding that is also the output layer, as in BERT's language models."""
    graph = """g (int64[n] x) => (float[n,7] y) {
        rows = Gather(table, x) turned = Transpose(table) y = MatMul(rows, turned) }"""
    module = require_lowered(model(graph, table=numbers(7, 4)), whole([1, 5]))
    assert module.trainable_elements() == 28


def test_parameters_bear_the_names_of_tensorflows_variables() -> None:
    """Whoever fine-tunes the module finds the layers of the model that it was."""
    graph = "g (float[n,3] x) => (float[n,4] y) { a = MatMul(x, w) y = Add(a, b) }"
    names = {"w": "net/layer_._0/dense/kernel", "b": "net/layer_._0/dense/bias"}
    module = require_lowered(model(graph, w=numbers(3, 4), b=numbers(4)), numbers(2, 3), variables=names)
    assert dict(module.named_parameters()).keys() == {"net.layer_0.dense.weight", "net.layer_0.dense.bias"}
    origin = module.origins["net.layer_0.dense.weight"]
    assert (origin.variable, origin.initializer, origin.permutation) == (names["w"], "w", (1, 0))


_SCALED = "y = LayerNormalization<axis=-1>(x, w)"


@pytest.mark.parametrize(
    ("step", "weight", "variable", "bias"),
    [
        ("y = MatMul(x, w)", numbers(3, 4), "dense/kernel", "dense/bias"),
        ("y = Gemm<beta=0.0>(x, w)", numbers(3, 4), "dense/kernel", "dense/bias"),
        (_SCALED, numbers(3), "norm/gamma", "norm/beta"),
    ],
)
def test_a_bias_of_zeros_comes_back_to_be_trained(step: str, weight: Array, variable: str, bias: str) -> None:
    """The exporter leaves it out, since adding zeros changes nothing; TensorFlow would train it."""
    graph, width = f"g (float[n,3] x) => (float[n,k] y) {{ {step} }}", weight.shape[-1]
    module = require_lowered(model(graph, w=weight), numbers(2, 3), variables={"w": variable})
    assert module.trainable_elements() == weight.size
    full = lower(model(graph, w=weight), {"w": variable}, [Variable(bias, elements=width)])
    assert full.trainable_elements() == weight.size + width
    assert full.origins[bias.replace("/", ".").replace("beta", "bias")].variable == bias
    np.testing.assert_array_equal(run(full, numbers(2, 3))[0], run(module, numbers(2, 3))[0])


def test_a_constant_that_is_only_measured_is_no_parameter() -> None:
    """Raw exports keep kernels a second time, whose shapes alone are read."""
    graph = """g (float[n,3] x) => (float[n,3] y) {
        s = Shape(copy) t = Gather(s, zero) k = Unsqueeze(t, zeros) e = Shape(x) b = Slice(e, zeros, ones)
        z = Concat<axis=0>(b, k) y = Reshape(x, z) }"""
    constants = {"zero": whole(0), "zeros": whole([0]), "ones": whole([1])}
    proto = model(graph, copy=numbers(3, 5), **constants)
    module = require_lowered(proto, numbers(2, 3))
    assert not dict(module.named_parameters())
    assert not module.origins


def test_constants_that_are_no_variables_are_not_trained() -> None:
    """With the map to TensorFlow's variables, what trains is what TensorFlow trained."""
    graph = """g (float[n,3] x) => (float[n,4] y) {
        a = MatMul(x, fixed) b = MatMul(a, frozen) c = MatMul(b, w) y = Mul(c, scale) }"""
    constants = {"fixed": numbers(3, 3), "frozen": numbers(3, 3), "w": numbers(3, 4), "scale": numbers(4)}
    variables: dict[str, str | Variable] = {"w": "w", "frozen": Variable("frozen", trainable=False)}
    module = lower(model(graph, **constants), variables)
    assert module.trainable_elements() == 12
    folded = lower(model(graph, **constants), variables, folded=[Variable("gamma", elements=4)])
    assert folded.trainable_elements() == 16


def test_training_reaches_every_parameter() -> None:
    """The module can be fine-tuned: a step changes all of its weights."""
    graph = """g (float[n,3] x) => (float[n,2] y) {
        a = MatMul(x, w) b = Add(a, c) d = Relu(b) y = MatMul(d, v) }"""
    module = lower(model(graph, w=numbers(3, 8), c=np.abs(numbers(8)), v=numbers(8, 2)))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    losses = []
    for _ in range(3):
        (answer,) = module(torch.from_numpy(numbers(5, 3)))
        loss = answer.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[-1]
    assert all(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    assert run(module, numbers(5, 3))
