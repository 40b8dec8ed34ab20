"""Each rewrite on graphs that TensorFlow and Keras exported: it finds what it should, and answers stay TensorFlow's."""

from pathlib import Path

import onnx_ir as ir
import pytest

from converter.exported import ExportResult
from tests.converter.conftest import Exporter
from tests.converter.graph.conftest import Networks
from tests.converter.graph.simplifying import exported_operators, operators, rewritten

FOLDED = ("unused", "shapes", "reshapes", "transposes", "matmul")  # what layer norm and attention stand on


def test_layer_norm_by_hand(export: Exporter, tmp_path: Path) -> None:
    """tf.nn.moments and tf.nn.batch_normalization become LayerNormalization with their epsilon."""
    result = rewritten(export("gelu"), tmp_path, only=["layer-norm"])
    assert result.applied == {"layer-norm": 1}
    (node,) = (node for node in result.model.graph if node.op_type == "LayerNormalization")
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-6)
    assert operators(result.model)["ReduceMean"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("vit", 5), ("bert", 5), ("transformer.keras", 4)])
def test_layer_norm_in_networks(network: Networks, tmp_path: Path, name: str, count: int) -> None:
    """Every normalisation of transformers' and Keras 3's layers is found, its parameters of one dimension."""
    result = rewritten(network(name), tmp_path, only=["layer-norm"])
    nodes = [node for node in result.model.graph if node.op_type == "LayerNormalization"]
    assert len(nodes) == count
    assert {len(value.const_value.shape) for node in nodes for value in node.inputs[1:] if value} == {1}  # type: ignore[union-attr] # they are constants


def test_exact_gelu(export: Exporter, tmp_path: Path) -> None:
    """What TensorFlow lowers to Erfc becomes Gelu, and an Erfc that is none stays."""
    result = rewritten(export("gelu"), tmp_path, only=["gelu"])
    assert result.applied == {"gelu": 1}
    assert operators(result.model)["Erf"] == 1
    assert result.model.opset_imports[""] == 20


@pytest.mark.slow
def test_both_gelus(network: Networks, tmp_path: Path) -> None:
    """Keras's exact GELU and the one by tanh keep their kind."""
    result = rewritten(network("transformer.keras"), tmp_path, only=["gelu"])
    kinds = [node.attributes["approximate"].as_string() for node in result.model.graph if node.op_type == "Gelu"]
    assert sorted(kinds) == ["none", "tanh"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inputs"), [("vit", [3, 3]), ("bert", [4, 4]), ("transformer.keras", [4, 3])])
def test_attention(network: Networks, tmp_path: Path, name: str, inputs: list[int]) -> None:
    """Each attention is one operator with heads and scale, with a mask where there is one; no transpose around it."""
    result = rewritten(network(name), tmp_path)
    nodes = [node for node in result.model.graph if node.op_type == "Attention"]
    assert [len(node.inputs) for node in nodes] == inputs
    assert {node.attributes["q_num_heads"].as_int() for node in nodes} == {4}
    assert operators(result.model)["Softmax"] == 0
    assert result.model.opset_imports[""] == 23
    assert {node.op_type for node in _around(nodes)} & {"Transpose"} == set()


def _around(nodes: list[ir.Node]) -> set[ir.Node]:
    return {source for node in nodes for value in node.inputs if value and (source := value.producer())} | {
        use.node for node in nodes for use in node.outputs[0].uses()
    }


@pytest.mark.slow
def test_matmul_takes_tensors_as_they_are(network: Networks, tmp_path: Path) -> None:
    """Dense layers on sequences multiply without flattening, so their biased products are a MatMul and an Add."""
    result = rewritten(network("vit"), tmp_path, only=FOLDED)
    dense = [node for node in result.model.graph if node.op_type == "MatMul" and _is_weight(node.inputs[1])]
    assert len(dense) == 2 * 6 + 1
    assert all(use.node.op_type == "Add" for node in dense for use in node.outputs[0].uses())


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


@pytest.mark.slow
def test_shapes_are_constants(network: Networks, tmp_path: Path) -> None:
    """No shape is put together at run time but where the batch enters: for the class token, and for padding masks."""
    vit = rewritten(network("vit"), tmp_path, only=FOLDED).model
    assert (exported_operators(network("vit"))["Shape"], operators(vit)["Shape"]) == (9, 1)
    assert operators(vit)["Cast"] == 0
    bert = rewritten(network("bert"), tmp_path, only=FOLDED).model
    assert (exported_operators(network("bert"))["Reshape"], operators(bert)["Reshape"]) == (29, 9)


def test_recurrent_shapes(export: Exporter, tmp_path: Path) -> None:
    """A masked GRU of any length keeps its loops and loses the arithmetic around them."""
    result = rewritten(export("gru.keras"), tmp_path)
    before = exported_operators(export("gru.keras"))
    assert operators(result.model)["Loop"] == before["Loop"] == 2
    assert operators(result.model).total() < before.total() / 2


@pytest.mark.slow
def test_reshapes_and_transposes_cancel(network: Networks, tmp_path: Path) -> None:
    """Keras's Einsum merges batch and heads, transposes and splits; of all that one transpose for each head stays."""
    before = exported_operators(network("transformer.keras"))
    after = operators(rewritten(network("transformer.keras"), tmp_path, only=FOLDED).model)
    assert (before["Transpose"], after["Transpose"]) == (12, 8)
    assert after["Reshape"] + after["Squeeze"] + after["Unsqueeze"] < before["Reshape"]


@pytest.mark.slow
def test_unused_is_worth_its_place(network: Networks, tmp_path: Path) -> None:
    """Without it, each size is read and put together again wherever it is used."""
    with_it, without = _both(network("transformer.keras"), tmp_path, "unused")
    assert len(without.graph) > len(with_it.graph)
    assert operators(without)["Shape"] > operators(with_it)["Shape"]
    assert len(without.graph.initializers) > len(with_it.graph.initializers)


@pytest.mark.slow
def test_shapes_is_worth_its_place(network: Networks, tmp_path: Path) -> None:
    """Without it, shapes are put together at run time, and no attention is found among them."""
    with_it, without = _both(network("transformer.keras"), tmp_path, "shapes")
    assert len(without.graph) > 2 * len(with_it.graph)
    assert operators(without)["Shape"] > operators(with_it)["Shape"]
    assert (operators(with_it)["Attention"], operators(without)["Attention"]) == (2, 0)


@pytest.mark.slow
def test_matmul_is_worth_its_place(network: Networks, tmp_path: Path) -> None:
    """Without it, sequences are flattened before each dense layer and put in shape again behind it."""
    with_it, without = _both(network("vit"), tmp_path, "matmul")
    assert len(without.graph) > len(with_it.graph)
    assert operators(without)["Reshape"] > operators(with_it)["Reshape"]


@pytest.mark.slow
def test_reshapes_is_worth_its_place(network: Networks, tmp_path: Path) -> None:
    """Without it, reshapes of reshapes stay."""
    with_it, without = _both(network("transformer.keras"), tmp_path, "reshapes")
    assert len(without.graph) > len(with_it.graph)
    assert _reshaping(without) > _reshaping(with_it)


@pytest.mark.slow
def test_transposes_is_worth_its_place(network: Networks, tmp_path: Path) -> None:
    """Without it, transposes stay around products of heads."""
    with_it, without = _both(network("transformer.keras"), tmp_path, "transposes")
    assert len(without.graph) > len(with_it.graph)
    assert operators(without)["Transpose"] > operators(with_it)["Transpose"]


def _both(export: ExportResult, folder: Path, name: str) -> tuple[ir.Model, ir.Model]:
    """A graph with all rewrites, and with all but one."""
    return rewritten(export, folder).model, rewritten(export, folder, without=[name]).model


def _reshaping(model: ir.Model) -> int:
    found = operators(model)
    return sum(found[operator] for operator in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"))


@pytest.mark.prove
@pytest.mark.parametrize("name", ["resnet.keras", "efficientnet.keras"])
def test_convolutions_are_left_alone(network: Networks, tmp_path: Path, name: str) -> None:
    """Where there is nothing to bring back, opset and convolutions stay, and no node is added."""
    result = rewritten(network(name), tmp_path)
    before, after = exported_operators(network(name)), operators(result.model)
    assert after["Conv"] == before["Conv"]
    assert result.model.opset_imports[""] == 18
    assert after <= before


@pytest.mark.parametrize(("name", "signatures"), [("corners", ()), ("control", ()), ("version_1", ("predict images",))])
def test_every_corner_survives(export: Exporter, tmp_path: Path, name: str, signatures: tuple[str, ...]) -> None:
    """Dtypes, ranks, tables, control flow, odd names, pass-through outputs: all answers stay TensorFlow's."""
    exported = export(name, signatures=signatures)
    for index in range(len(exported.signatures)):
        rewritten(exported, tmp_path, index=index)
