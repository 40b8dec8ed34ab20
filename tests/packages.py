"""Small model packages made without TensorFlow: y = scale * x + offset, for tests of everything behind a package.

What they answer is known by arithmetic, so the golden answers need no TensorFlow either.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf import json_format
from onnx import helper

from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array, save_arrays
from server.backends.interface import GraphSpec, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.repository.package import SCHEMA_VERSION, file_digest

WIDTH = 4

Arrays = dict[str, Array]


@dataclass
class Affine:
    """What the package shall be; `claimed_scale` differs from `scale` for a package whose proof must fail."""

    scale: float = 2.0
    offset: float = 1.0
    claimed_scale: float | None = None
    defaults: dict[str, Array] = field(default_factory=dict)


def write_package(folder: Path, affine: Affine | None = None) -> package_pb2.ModelPackage:
    """Write a whole package into a folder that does not exist yet: inputs "x" and "bias", outputs "y" and "z" = -y."""
    what = affine or Affine()
    folder.mkdir(parents=True)
    onnx.save(_graph(what), folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=SCHEMA_VERSION, opset=18)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    definition = signature.signature_def
    definition.method_name = "tensorflow/serving/predict"
    for alias, infos in (("x", definition.inputs), ("bias", definition.inputs), ("y", definition.outputs)):
        infos[alias].name = f"serving_default_{alias}:0"
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        for size in (-1, WIDTH):
            infos[alias].tensor_shape.dim.add(size=size)
    definition.outputs["z"].CopyFrom(definition.outputs["y"])
    for alias in ("bias", "x"):
        signature.inputs.add(alias=alias, onnx_name=f"{alias}_in")
    for alias in ("y", "z"):
        signature.outputs.add(alias=alias, onnx_name=f"{alias}_out").tolerance.absolute = 1e-5
    for alias, value in what.defaults.items():
        definition.defaults[alias].dtype = tensor_pb2.DT_FLOAT
        for size in value.shape:
            definition.defaults[alias].tensor_shape.dim.add(size=size)
        definition.defaults[alias].tensor_content = value.tobytes()
    signature.batching.batchable = signature.batching.derived = True
    _write_golden(folder, signature, what)
    write_manifest(folder, manifest)
    return manifest


def add_golden(signature: package_pb2.Signature, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Arrays:
    """Give a signature a golden case of no stated batch; returns the arrays by the keys that its package must hold."""
    case = signature.golden.add(origin="random")
    arrays = {}
    for side, values, keys in (("inputs", inputs, case.inputs), ("outputs", outputs, case.outputs)):
        for alias, value in values.items():
            keys[alias] = f"{signature.name}/{side}/{alias}"
            arrays[keys[alias]] = value
    return arrays


def write_manifest(folder: Path, manifest: package_pb2.ModelPackage) -> None:
    """List the folder's files with their digests and write the manifest."""
    del manifest.files[:]
    for path in sorted(folder.iterdir()):
        if path.name != "manifest.json":
            digest, size = file_digest(path)
            manifest.files.add(path=path.name, sha256=digest, bytes=size)
    (folder / "manifest.json").write_text(json_format.MessageToJson(manifest, preserving_proto_field_name=True))


def _graph(what: Affine) -> onnx.ModelProto:
    shape: list[str | int | None] = ["batch", WIDTH]
    float_type = onnx.TensorProto.FLOAT
    constants = [helper.make_tensor("scale", float_type, [], [what.scale])]
    constants.append(helper.make_tensor("offset", float_type, [], [what.offset]))
    nodes = [
        helper.make_node("Mul", ["x_in", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"]),
        helper.make_node("Add", ["shifted", "bias_in"], ["y_out"]),
        helper.make_node("Neg", ["y_out"], ["z_out"]),
    ]
    ins = [helper.make_tensor_value_info(name, float_type, shape) for name in ("x_in", "bias_in")]
    outs = [helper.make_tensor_value_info(name, float_type, shape) for name in ("y_out", "z_out")]
    graph = helper.make_graph(nodes, "affine", ins, outs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _write_golden(folder: Path, signature: package_pb2.Signature, what: Affine) -> None:
    arrays = {}
    scale = what.scale if what.claimed_scale is None else what.claimed_scale
    for batch in (1, 3):
        x = np.arange(batch * WIDTH, dtype=np.float32).reshape(batch, WIDTH)
        bias = np.full_like(x, 0.5)
        y = np.float32(scale) * x + np.float32(what.offset) + bias
        values = {"inputs/x": x, "inputs/bias": bias, "outputs/y": y, "outputs/z": -y}
        arrays.update({f"{batch}/{key}": value for key, value in values.items()})
        case = signature.golden.add(origin="random", batch=batch)
        for key in values:
            side, alias = key.split("/")
            getattr(case, side)[alias] = f"{batch}/{key}"
    save_arrays(folder / "golden.npz", arrays)


@contextmanager
def joined(*threads: threading.Thread) -> Iterator[None]:
    """Start threads, and wait for them at the end whatever happens."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive(), f"{thread.name} hangs"


_BREADTH = 1024


def write_slow_package(folder: Path, seconds: float) -> None:
    """Write a package of one input "x" and one output "y" whose run takes at least so long on one core of this machine.

    Its rows may not be joined.
    """
    random = np.random.default_rng(0)
    inner = (random.standard_normal((_BREADTH, _BREADTH)) / np.sqrt(_BREADTH)).astype(np.float32)
    outer = np.eye(WIDTH, _BREADTH, dtype=np.float32)
    layers = 8
    while seconds_of(model := _matmuls(layers, outer, inner)) < 1.2 * seconds:
        layers *= 2
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=SCHEMA_VERSION, opset=18)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    signature.signature_def.method_name = "tensorflow/serving/predict"
    for alias, infos in (("x", signature.signature_def.inputs), ("y", signature.signature_def.outputs)):
        infos[alias].name = f"{alias}:0"
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        for size in (-1, WIDTH):
            infos[alias].tensor_shape.dim.add(size=size)
    signature.inputs.add(alias="x", onnx_name="x_in")
    signature.outputs.add(alias="y", onnx_name="y_out").tolerance.absolute = 1e-3
    x = np.ones((1, WIDTH), np.float32)
    y = x @ outer
    for _ in range(layers):
        y = np.tanh(y @ inner)
    save_arrays(folder / "golden.npz", add_golden(signature, {"x": x}, {"y": (y @ outer.T).astype(np.float32)}))
    write_manifest(folder, manifest)


def _matmuls(layers: int, outer: Array, inner: Array) -> onnx.ModelProto:
    shape: list[str | int | None] = ["batch", WIDTH]
    values = {"outer": outer, "inner": inner, "back": np.ascontiguousarray(outer.T)}
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    nodes = [helper.make_node("MatMul", ["x_in", "outer"], ["h0"])]
    for n in range(layers):
        nodes.append(helper.make_node("MatMul", [f"h{n}", "inner"], [f"m{n}"]))
        nodes.append(helper.make_node("Tanh", [f"m{n}"], [f"h{n + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"h{layers}", "back"], ["y_out"]))
    ins = [helper.make_tensor_value_info("x_in", onnx.TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info("y_out", onnx.TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "slow", ins, outs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def seconds_of(model: onnx.ModelProto) -> float:
    """How long a run takes at the least, of several."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        onnx.save(model, path)
        spec = GraphSpec(path, (TensorPort("x_in", tensor_pb2.DT_FLOAT),), (TensorPort("y_out", tensor_pb2.DT_FLOAT),))
        loaded = OnnxRuntimeBackend("cpu", threads=1).load(spec)
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            loaded.run({"x_in": np.ones((1, WIDTH), np.float32)}, ["y_out"])
            times.append(time.perf_counter() - begin)
        loaded.close()
    return min(times)
