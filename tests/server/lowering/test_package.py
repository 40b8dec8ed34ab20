"""Tests of `server.lowering.package`."""

from protos.segue.package_pb2 import ModelPackage
from server.lowering import Variable, lower
from server.lowering.package import variables_of
from tests.server.lowering.graphs import model, numbers


def test_a_packages_manifest_says_what_trains() -> None:
    """The manifest's map from initializers to variables, for the one file that is lowered."""
    manifest = ModelPackage()
    for file, initializer, name, trainable in (
        ("model.onnx", "w", "dense/kernel", True),
        ("model.onnx", "m", "mean", False),
        ("other.onnx", "v", "other", True),
    ):
        one = manifest.initializers.add(onnx_file=file, name=initializer)
        one.variables.add(name=name, shape=[3, 4], trainable=trainable)
    manifest.initializers.add(onnx_file="model.onnx", name="epsilon")
    manifest.unmapped_variables.add(name="gamma", shape=[4], trainable=True)

    variables, folded = variables_of(manifest, "model.onnx")
    assert variables == {
        "w": Variable("dense/kernel", trainable=True, elements=12),
        "m": Variable("mean", trainable=False, elements=12),
    }
    assert folded == (Variable("gamma", trainable=True, elements=4),)
    graph = "g (float[n,3] x) => (float[n,4] y) { a = MatMul(x, w) y = Mul(a, scale) }"
    module = lower(model(graph, w=numbers(3, 4), scale=numbers(4)), variables, folded)
    assert module.trainable_elements() == 16
    assert "dense.weight" in dict(module.named_parameters())
