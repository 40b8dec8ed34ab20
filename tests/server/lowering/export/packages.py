"""Model packages made of small graphs, with the answers of ONNX's reference implementation as golden ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from protos.segue.package_pb2 import ModelPackage
from server.arrays import save_arrays
from server.repository.package import SCHEMA_VERSION, Package, open_package
from tests.packages import write_manifest
from tests.server.lowering.graphs import Array


def package(
    folder: Path, proto: onnx.ModelProto, inputs: Mapping[str, Array], variables: Mapping[str, str] | None = None
) -> Package:
    """Write a package with one golden case; aliases are the graph's names in capitals.

    Args:
        folder: REPOSITORY/NAME/VERSION, which does not exist yet.
        proto: The graph.
        inputs: By the graph's names.
        variables: Initializer -> TensorFlow variable.
    """
    folder.mkdir(parents=True)
    onnx.save(proto, folder / "model.onnx")
    manifest = ModelPackage(schema_version=SCHEMA_VERSION, opset=18)
    manifest.source.label = "small"
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    answers: Any = ReferenceEvaluator(proto).run(None, dict(inputs))
    arrays = dict(inputs)
    case = signature.golden.add(origin="random")
    for name in inputs:
        signature.inputs.add(alias=name.upper(), onnx_name=name)
        case.inputs[name.upper()] = name
    for value, answer in zip(proto.graph.output, answers, strict=True):
        tolerance = signature.outputs.add(alias=value.name.upper(), onnx_name=value.name).tolerance
        tolerance.absolute = tolerance.relative = 1e-5
        case.outputs[value.name.upper()] = f"answer/{value.name}"
        arrays[f"answer/{value.name}"] = answer
    for tensor in proto.graph.initializer:
        one = manifest.initializers.add(onnx_file="model.onnx", name=tensor.name)
        if variable := (variables or {}).get(tensor.name):
            one.variables.add(name=variable, shape=list(tensor.dims), trainable=True)
    save_arrays(folder / "golden.npz", arrays)
    write_manifest(folder, manifest)
    return open_package(folder.parent.name, int(folder.name), folder)
