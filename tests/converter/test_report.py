"""Tests of `converter.report`."""

import ast
from pathlib import Path

import pytest

from converter.report import as_json, markdown, output_rows, shape_text, snippet
from protos.segue import package_pb2
from protos.tensorflow import signature_pb2
from server.parity import Difference
from server.repository.package import open_package
from tests.packages import write_package


@pytest.fixture
def manifest(tmp_path: Path) -> package_pb2.ModelPackage:
    """A manifest with a proof and a mapped variable."""
    made = write_package(tmp_path / "package")
    for binding in made.signatures[0].outputs:
        binding.proof.max_absolute, binding.proof.elements = 2e-7, 16
    variable = package_pb2.Variable(name="dense/kernel", shape=[3, 4], trainable=True)
    made.initializers.add(onnx_file="model.onnx", name="w", variables=[variable])
    made.unmapped_variables.add(name="norm/gamma", shape=[4])
    return made


def test_a_row_for_each_output(manifest: package_pb2.ModelPackage) -> None:
    """Proof, what the server gave, and what is allowed stand side by side."""
    rows = output_rows(manifest, {("serving_default", "y"): Difference(3e-7)})
    assert [(r.output, r.tensor, r.proof, r.served, r.allowed) for r in rows] == [
        ("y", "float [?,4]", 2e-7, 3e-7, "1.0e-05 + 0 %"),
        ("z", "float [?,4]", 2e-7, None, "1.0e-05 + 0 %"),
    ]


def test_the_report_counts_what_survived(manifest: package_pb2.ModelPackage) -> None:
    """Whoever opens report.md sees how many of TensorFlow's variables are still there, and which are not."""
    text = markdown("affine", manifest)
    assert "1 of 2 TensorFlow variables" in text
    assert "12 of 16 elements" in text
    assert "folded or regrouped: `norm/gamma` [4]" in text


def test_the_snippet_is_python_for_the_shapes_that_were_accepted(
    manifest: package_pb2.ModelPackage, tmp_path: Path
) -> None:
    """What is printed parses, names model and signature, and feeds golden shapes."""
    arrays = open_package("affine", 1, tmp_path / "package").golden_arrays()
    text = snippet("affine", manifest, arrays, "host:8500")
    ast.parse(text)
    assert "request.model_spec.name = 'affine'" in text
    assert "request.inputs['x'].CopyFrom(tf.make_tensor_proto(np.zeros((1, 4), np.float32)))" in text
    assert "grpc.insecure_channel('host:8500'" in text


def test_json_has_plain_values(manifest: package_pb2.ModelPackage) -> None:
    """Machines find inputs, outputs, differences and tolerances by name."""
    (signature,) = as_json(manifest, None)
    assert signature["inputs"]["x"] == {"dtype": "float", "shape": [-1, 4], "tensor": "serving_default_x:0"}
    assert signature["outputs"]["y"]["max_absolute_difference"] == 2e-7
    assert signature["outputs"]["y"]["served_max_absolute_difference"] is None


def test_shapes_are_written_as_people_write_them() -> None:
    """Unknown rank, scalars and dynamic dimensions are told apart."""
    info = signature_pb2.TensorInfo()
    assert shape_text(info) == "[]"
    info.tensor_shape.dim.add(size=-1)
    info.tensor_shape.dim.add(size=3)
    assert shape_text(info) == "[?,3]"
    info.tensor_shape.unknown_rank = True
    assert shape_text(info) == "?"
