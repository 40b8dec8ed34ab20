"""`interface`: graph inputs and outputs get the signature's names and shapes, whatever was there before."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from converter.worker.interface import name_interface
from tests.converter.worker.describing import signature, spec


def _model(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["d", 3])

    constant = helper.make_tensor("const:0", TensorProto.FLOAT, [1], [2.0])
    graph = helper.make_graph(nodes, "g", [value(i) for i in inputs], [value(o) for o in outputs], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(model).run(None, feeds))


def test_inner_names_make_way() -> None:
    """An alias that is already the name of something inside, subgraphs included, is still the alias outside."""
    body = helper.make_graph(
        [helper.make_node("Add", ["in:0", "y"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Add", ["in:0", "const:0"], ["y"]),
        helper.make_node("ReduceMax", ["y"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "top"], ["flag"]),
        helper.make_node("If", ["flag"], ["out:0"], then_branch=body, else_branch=body),
    ]
    model = _model(nodes, ["in:0"], ["out:0"])
    described = signature(spec("y", np.float32, (None, 3)), outputs=(spec("z", np.float32, (None, 3)),))
    assert name_interface(model, described, ["in:0"], ["out:0"]) == ({"y": "y"}, {"z": "z"})
    onnx.checker.check_model(model)
    (got,) = _run(model, {"y": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(got, np.full((2, 3), 4.0))


def test_dropped_inputs_and_constant_outputs() -> None:
    """An input that the graph lost maps to None; an output that is an initializer gets a node that computes it."""
    model = _model([], ["in:0"], ["const:0"])
    described = signature(
        spec("kept", np.float32, (None, 3)), spec("lost", np.float32, (None,)), outputs=(spec("c", np.float32, (1,)),)
    )
    inputs, outputs = name_interface(model, described, ["in:0", "gone:0"], ["const:0"])
    assert inputs == {"kept": "kept", "lost": None}
    assert outputs == {"c": "c"}
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    onnx.checker.check_model(model)
    (got,) = _run(model, {"kept": np.zeros((1, 3), np.float32)})
    assert got.tolist() == [2.0]


def test_empty_and_equal_aliases() -> None:
    """Names are never empty, which ONNX reads as absent, and never twice."""
    model = _model([helper.make_node("Add", ["in:0", "const:0"], ["out:0"])], ["in:0"], ["out:0"])
    described = signature(spec("", np.float32, (None, 3)), outputs=(spec("unnamed", np.float32, None),))
    assert name_interface(model, described, ["in:0"], ["out:0"]) == ({"": "unnamed"}, {"unnamed": "unnamed_2"})
    assert not model.graph.output[0].type.tensor_type.HasField("shape")
