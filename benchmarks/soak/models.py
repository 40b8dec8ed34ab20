"""The models of the soak: small ones whose answers tell which version gave them, and large ones that take time to load.

Made without TensorFlow; the Vision Transformer is made by `vit`, with it.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import save_arrays
from server.repository.package import SCHEMA_VERSION
from tests.packages import Affine, write_manifest, write_package

MODEL = "affine"
LARGE_ROWS = 2**15
"""Rows of a request whose two tensors take 1 MiB together."""
WIDTH = 2048
"""Of a row of the heavy model."""


def publish(repository: Path, version: int, model: str = MODEL) -> None:
    """Put a version into a repository with one rename: it answers (1000 V + 1) x."""
    staged = repository / ".staged"
    staged.mkdir(parents=True, exist_ok=True)
    folder = staged / f"{model}-{version}"
    write_package(folder, Affine(scale=1000.0 * version + 1.0, offset=0.0))
    (repository / model).mkdir(exist_ok=True)
    folder.rename(repository / model / str(version))


def write_heavy_package(folder: Path, layers: int) -> None:
    """A package of 16 MiB a layer: each averages the row, so the answer is the mean of x in every place."""
    folder.mkdir(parents=True)
    float_type = onnx.TensorProto.FLOAT
    matrix = np.full((WIDTH, WIDTH), 1 / WIDTH, np.float32)
    names = ["x_in", *(f"h{i}" for i in range(1, layers)), "y_out"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)]
    weights = [helper.make_tensor(f"w{i}", float_type, matrix.shape, matrix.tobytes(), raw=True) for i in range(layers)]
    ports = [helper.make_tensor_value_info(name, float_type, ["batch", WIDTH]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "heavy", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    x = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH) / WIDTH
    y = np.repeat(x.mean(axis=1, keepdims=True), WIDTH, axis=1)
    save_arrays(folder / "golden.npz", {"x": x, "y": y})
    manifest = package_pb2.ModelPackage(schema_version=SCHEMA_VERSION, opset=18)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    definition = signature.signature_def
    for alias, infos in (("x", definition.inputs), ("y", definition.outputs)):
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        for size in (-1, WIDTH):
            infos[alias].tensor_shape.dim.add(size=size)
    signature.inputs.add(alias="x", onnx_name="x_in")
    signature.outputs.add(alias="y", onnx_name="y_out").tolerance.absolute = 1e-3
    case = signature.golden.add(origin="random", batch=2)
    case.inputs["x"], case.outputs["y"] = "x", "y"
    write_manifest(folder, manifest)


def convert_vit(repository: Path, scratch: Path) -> None:
    """Make ViT-Base with random weights and convert it into a repository, as "vit"; takes more than a minute."""
    source = scratch / "saved_model"
    make = [sys.executable, "-m", "tests.models.vit", str(source), "gelu_new"]
    subprocess.run(make, check=True, capture_output=True)
    convert = [sys.executable, "-m", "converter.cli", str(source), "--name", "vit", "--repository", str(repository)]
    subprocess.run(convert, check=True, capture_output=True)
