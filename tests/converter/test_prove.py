"""Tests of `converter.prove`, on real graphs in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from converter.errors import InvalidExport, OutputsDiffer
from converter.prove import check_graphs, prove
from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array, save_arrays
from server.backends.fake import FakeBackend
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.repository.package import Package
from tests.packages import Affine, write_manifest, write_package

BACKEND = OnnxRuntimeBackend("cpu", threads=1)


def write_node(
    folder: Path,
    operator: str,
    shape: list[int | str],
    cases: dict[int, tuple[Array, Array]],
    *,
    ranked: bool = True,
) -> Package:
    """A package of one operator, x to y, with golden cases by batch."""
    folder.mkdir()
    rank = [None] * len(shape) if ranked else None
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, rank) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"])
    if operator == "Softmax":
        node.attribute.append(helper.make_attribute("axis", 0))
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=1)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    for alias, infos in (("x", signature.signature_def.inputs), ("y", signature.signature_def.outputs)):
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        infos[alias].tensor_shape.SetInParent()
        for size in shape:
            infos[alias].tensor_shape.dim.add(size=-1 if isinstance(size, str) else size)
    signature.inputs.add(alias="x", onnx_name="x")
    signature.outputs.add(alias="y", onnx_name="y").tolerance.absolute = 1e-6
    arrays: dict[str, Array] = {}
    for batch, (x, y) in cases.items():
        arrays |= {f"{batch}/x": x, f"{batch}/y": y}
        signature.golden.add(batch=batch, inputs={"x": f"{batch}/x"}, outputs={"y": f"{batch}/y"})
    save_arrays(folder / "golden.npz", arrays)
    write_manifest(folder, manifest)
    return Package("m", 0, folder, manifest)


def test_a_sound_package_is_proved_and_batchable(tmp_path: Path) -> None:
    """The measured differences come back for each output, and rows that do not touch one another may be batched."""
    manifest = write_package(tmp_path / "package")
    proved = prove(Package("affine", 0, tmp_path / "package", manifest), BACKEND)
    assert [(p.output, p.difference.elements) for p in proved.proofs] == [("y", 16), ("z", 16)]
    batching = proved.batching["serving_default"]
    assert batching.batchable
    assert batching.derived
    assert batching.reason == (
        "the graph keeps rows apart whatever they hold, and 3 rows answered alone and in batches of up to 3 agree"
    )


def test_a_wrong_answer_is_named(tmp_path: Path) -> None:
    """A graph that computes something else than TensorFlow did is refused with the output and the size of the error."""
    manifest = write_package(tmp_path / "package", Affine(scale=2, claimed_scale=2.01))
    with pytest.raises(OutputsDiffer) as caught:
        prove(Package("affine", 0, tmp_path / "package", manifest), BACKEND)
    assert "output 'y' of signature 'serving_default'" in caught.value.cause
    assert "--atol" in caught.value.advice


def test_a_graph_that_no_runtime_takes_is_named(tmp_path: Path) -> None:
    """What ONNX Runtime does not load is an invalid export, in its own words."""
    package = write_node(tmp_path / "package", "MatrixInverse", ["n", 2], {})
    with pytest.raises(InvalidExport, match=r"onnxruntime-cpu.*MatrixInverse"):
        prove(package, BACKEND)
    with pytest.raises(InvalidExport, match=r"model\.onnx.*MatrixInverse"):
        check_graphs(package.path, ["model.onnx"])


def test_rows_that_depend_on_one_another_are_not_batchable(tmp_path: Path) -> None:
    """A softmax over the batch answers a row differently beside other rows, as its graph says."""
    x = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    y = (np.exp(x) / np.exp(x).sum(axis=0)).astype(np.float32)
    batching = prove(write_node(tmp_path / "package", "Softmax", ["n", 2], {2: (x, y)}), BACKEND).batching
    assert not batching["serving_default"].batchable
    assert "works along axis 0, where the rows are" in batching["serving_default"].reason


def test_a_runtime_that_mixes_rows_is_found_out(tmp_path: Path) -> None:
    """What the graph promises, the golden batches must show: here the backend does otherwise."""
    x = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    backend = FakeBackend(lambda feeds: {"y": feeds["x"].max(axis=0) - feeds["x"]})
    batching = prove(write_node(tmp_path / "package", "Neg", ["n", 2], {2: (x, x.max(axis=0) - x)}), backend).batching
    assert not batching["serving_default"].batchable
    assert not batching["serving_default"].derived
    assert "depends on the rows beside it" in batching["serving_default"].reason


def test_a_fixed_first_dimension_is_not_batchable(tmp_path: Path) -> None:
    """Without a dynamic first dimension there is nothing to join."""
    x = np.ones((2, 2), np.float32)
    batching = prove(write_node(tmp_path / "package", "Neg", [2, 2], {2: (x, -x)}), BACKEND).batching
    assert batching["serving_default"].reason == "the first dimension of input 'x' is not dynamic"


def test_batching_without_a_golden_batch_is_not_claimed(tmp_path: Path) -> None:
    """What was not tried is not promised."""
    x = np.ones((1, 2), np.float32)
    batching = prove(write_node(tmp_path / "package", "Neg", ["n", 2], {1: (x, -x)}), BACKEND).batching
    assert batching["serving_default"].reason == "no golden batch of two or more rows was accepted"


def test_unknown_rank_is_no_fault(tmp_path: Path) -> None:
    """The checker demands a rank that TensorFlow need not have; everything else is still checked."""
    package = write_node(tmp_path / "sound", "Neg", ["n"], {}, ranked=False)
    check_graphs(package.path, ["model.onnx"])
    package = write_node(tmp_path / "unsound", "MatrixInverse", ["n"], {}, ranked=False)
    with pytest.raises(InvalidExport, match="MatrixInverse"):
        check_graphs(package.path, ["model.onnx"])
