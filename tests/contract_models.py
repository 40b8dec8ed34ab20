"""Model packages made without TensorFlow, for tests of the whole contract: each answer is known by looking at it.

affine   y = 2 x + 1 + bias and z = -y; version 1, and a version 2 that does not load
defaults the same, but a bias that is left out is zero
batched  the same as affine, with parameters of its own: 4 rows at most, filled up to 2 or 4
split    the same with other parameters: 8 rows at most, run in pieces of 2, of which 2 may wait
dropping "y" has those rows of "x" of which no element is below zero, though it is said to keep rows apart
echo     one signature per element type, named as TensorFlow names the type; "y" is "x", of any shape
forest   features age [?,1], size [?,2] and kind [?,1] under signatures for Classify and Regress, good and bad ones

and, for servers of their own, models whose runs take a while: zeros are answered with zeros

slow     runs one row at a time, and one may wait
late     the same, and four may wait
endless  takes minutes to load
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array, save_arrays
from server.wire.dtypes import SERVED
from tests.packages import WIDTH, Affine, Arrays, add_golden, seconds_of, write_manifest, write_package

OPSETS = [helper.make_opsetid("", 18)]

# TensorFlow's name of an element type, its number there, and ONNX's.
ECHOED = {
    "float": (tensor_pb2.DT_FLOAT, onnx.TensorProto.FLOAT),
    "double": (tensor_pb2.DT_DOUBLE, onnx.TensorProto.DOUBLE),
    "half": (tensor_pb2.DT_HALF, onnx.TensorProto.FLOAT16),
    "bfloat16": (tensor_pb2.DT_BFLOAT16, onnx.TensorProto.BFLOAT16),
    "int8": (tensor_pb2.DT_INT8, onnx.TensorProto.INT8),
    "int16": (tensor_pb2.DT_INT16, onnx.TensorProto.INT16),
    "int32": (tensor_pb2.DT_INT32, onnx.TensorProto.INT32),
    "int64": (tensor_pb2.DT_INT64, onnx.TensorProto.INT64),
    "uint8": (tensor_pb2.DT_UINT8, onnx.TensorProto.UINT8),
    "uint16": (tensor_pb2.DT_UINT16, onnx.TensorProto.UINT16),
    "uint32": (tensor_pb2.DT_UINT32, onnx.TensorProto.UINT32),
    "uint64": (tensor_pb2.DT_UINT64, onnx.TensorProto.UINT64),
    "bool": (tensor_pb2.DT_BOOL, onnx.TensorProto.BOOL),
    "string": (tensor_pb2.DT_STRING, onnx.TensorProto.STRING),
}

# The forest's signatures: the method that each is exported for, and what answers for its output aliases.
FOREST: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "serving_default": ("classify", {"classes": "classes", "scores": "scores"}),
    "scores": ("classify", {"scores": "scores"}),
    "labels": ("classify", {"classes": "classes"}),
    "value": ("regress", {"outputs": "sum"}),
    "vector": ("regress", {"outputs": "vector"}),
    "matrix": ("regress", {"outputs": "scores"}),
    "unnamed": ("regress", {"sum": "sum"}),
    "predict": ("predict", {"scores": "scores"}),
    "three": ("classify", {"classes": "classes", "scores": "scores", "sum": "sum"}),
    "uneven": ("classify", {"classes": "classes", "scores": "sum"}),
    "double scores": ("classify", {"scores": "scores_double"}),
    "flat scores": ("classify", {"scores": "vector"}),
    "short scores": ("classify", {"scores": "first"}),
    "number classes": ("classify", {"classes": "scores"}),
    "short classes": ("classify", {"classes": "first_class"}),
    "two outputs": ("regress", {"outputs": "sum", "scores": "scores"}),
    "double value": ("regress", {"outputs": "sum_double"}),
    "short value": ("regress", {"outputs": "first_sum"}),
}
_SLOW_SECONDS = 0.5
_BREADTH = 1024
_STRINGS = {"classes", "first_class"}
_DOUBLES = {"scores_double", "sum_double"}


def write_contract_models(root: Path) -> None:
    """Write all of them into a repository."""
    write_package(root / "affine" / "1")
    write_package(root / "affine" / "2")
    (root / "affine" / "2" / "model.onnx").write_bytes(b"damaged")
    write_package(root / "defaults" / "1", Affine(defaults={"bias": np.zeros((1, 4), np.float32)}))
    write_batched(root / "batched" / "1", "max_batch_size { value: 4 } allowed_batch_sizes: [2, 4]")
    write_batched(
        root / "split" / "1",
        "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 2 } max_enqueued_batches { value: 2 }",
    )
    write_dropping(root / "dropping" / "1")
    write_echo(root / "echo" / "1")
    write_forest(root / "forest" / "1")


def write_slow_models(root: Path) -> None:
    """Write those whose runs take a while into a repository."""
    manifest = write_slow(root / "slow" / "1")
    for name, waiting in (("late", 4), ("slow", 1)):
        folder = root / name / "1"
        if name != "slow":
            shutil.copytree(root / "slow" / "1", folder)
        text = f"max_batch_size {{ value: 1 }} max_enqueued_batches {{ value: {waiting} }}"
        (folder / "batching_params.pbtxt").write_text(text)
        write_manifest(folder, manifest)


def write_endless(root: Path) -> None:
    """Write the one that takes minutes to load into a repository: it has more to prove than anybody waits for."""
    manifest = write_slow(root / "endless" / "1")
    (signature,) = manifest.signatures
    for _ in range(1000):
        signature.golden.add().CopyFrom(signature.golden[0])
    write_manifest(root / "endless" / "1", manifest)


def write_slow(folder: Path) -> package_pb2.ModelPackage:
    """A model that makes a large matrix of each row and multiplies that again and again."""
    folder.mkdir(parents=True)
    products = 4
    while seconds_of(model := _products(products)) < _SLOW_SECONDS:
        products *= 2
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=1, opset=18)
    signature = _rows_to_rows(manifest, "x_in", "y_out")
    zeros = np.zeros((1, WIDTH), np.float32)
    save_arrays(folder / "golden.npz", add_golden(signature, {"x": zeros}, {"y": zeros}))
    signature.golden[0].batch = len(zeros)
    write_manifest(folder, manifest)
    return manifest


def _products(count: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    inner = (random.standard_normal((_BREADTH, _BREADTH)) / np.sqrt(_BREADTH)).astype(np.float32)
    outer = np.eye(WIDTH, _BREADTH, dtype=np.float32)
    arrays = {"inner": inner, "outer": outer, "back": np.ascontiguousarray(outer.T)}
    arrays |= {"first": np.array([1]), "last": np.array([2])}
    nodes = [
        helper.make_node("MatMul", ["x_in", "outer"], ["wide"]),
        helper.make_node("Unsqueeze", ["wide", "last"], ["column"]),
        helper.make_node("Unsqueeze", ["wide", "first"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{n}", "inner"], [f"m{n + 1}"]) for n in range(count)),
        helper.make_node("ReduceMean", [f"m{count}", "first"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "back"], ["y_out"]),
    ]
    ins = [helper.make_tensor_value_info("x_in", onnx.TensorProto.FLOAT, ["n", WIDTH])]
    outs = [helper.make_tensor_value_info("y_out", onnx.TensorProto.FLOAT, ["n", WIDTH])]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "slow", ins, outs, constants)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def _rows_to_rows(manifest: package_pb2.ModelPackage, x: str, y: str) -> package_pb2.Signature:
    """A signature whose requests may be joined, from rows "x" to rows "y", which have these names in the graph."""
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    definition = signature.signature_def
    definition.method_name = "tensorflow/serving/predict"
    for alias, infos in (("x", definition.inputs), ("y", definition.outputs)):
        infos[alias].name = f"{alias}:0"
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        for size in (-1, WIDTH):
            infos[alias].tensor_shape.dim.add(size=size)
    signature.inputs.add(alias="x", onnx_name=x)
    signature.outputs.add(alias="y", onnx_name=y)
    signature.batching.batchable = signature.batching.derived = True
    return signature


def write_batched(folder: Path, parameters: str) -> None:
    """A model that brings TensorFlow Serving's batching parameters."""
    manifest = write_package(folder)
    (folder / "batching_params.pbtxt").write_text(parameters)
    write_manifest(folder, manifest)


def write_dropping(folder: Path) -> None:
    """A model whose manifest errs: how many rows it answers with depends on what is in them."""
    folder.mkdir(parents=True)
    single = onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMin", ["x", "one"], ["least"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["least", "zero"], ["kept"]),
        helper.make_node("Compress", ["x", "kept"], ["y"], axis=0),
    ]
    ins = [helper.make_tensor_value_info("x", single, ["n", WIDTH])]
    outs = [helper.make_tensor_value_info("y", single, ["m", WIDTH])]
    constants = [
        helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1]),
        helper.make_tensor("zero", single, [], [0.0]),
    ]
    graph = helper.make_graph(nodes, "dropping", ins, outs, constants)
    onnx.save(helper.make_model(graph, opset_imports=OPSETS, ir_version=8), folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=1, opset=18)
    signature = _rows_to_rows(manifest, "x", "y")
    x = np.ones((2, WIDTH), np.float32)
    save_arrays(folder / "golden.npz", add_golden(signature, {"x": x}, {"y": x}))
    signature.golden[0].batch = len(x)
    (folder / "batching_params.pbtxt").write_text("max_batch_size { value: 4 } allowed_batch_sizes: [2, 4]")
    write_manifest(folder, manifest)


def write_echo(folder: Path) -> None:
    """A model that answers with what it is asked, of unknown rank."""
    folder.mkdir(parents=True)
    manifest = package_pb2.ModelPackage(schema_version=1, opset=18)
    golden: Arrays = {}
    for name, (dtype, onnx_type) in ECHOED.items():
        ports = [helper.make_tensor_value_info(port, onnx_type, None) for port in ("x_in", "y_out")]
        node = helper.make_node("Identity", ["x_in"], ["y_out"])
        graph = helper.make_graph([node], name, ports[:1], ports[1:])
        onnx.save(helper.make_model(graph, opset_imports=OPSETS, ir_version=8), folder / f"{name}.onnx")
        signature = manifest.signatures.add(name=name, onnx_file=f"{name}.onnx")
        definition = signature.signature_def
        definition.method_name = "tensorflow/serving/predict"
        for alias, infos in (("x", definition.inputs), ("y", definition.outputs)):
            infos[alias].name = f"{name}_{alias}:0"
            infos[alias].dtype = dtype
            infos[alias].tensor_shape.unknown_rank = True
        signature.inputs.add(alias="x", onnx_name="x_in")
        signature.outputs.add(alias="y", onnx_name="y_out")
        values = np.array([b"", b"oak"], object) if name == "string" else np.array([0, 1]).astype(SERVED[dtype].dtype)
        golden |= add_golden(signature, {"x": values}, {"y": values})
    save_arrays(folder / "golden.npz", golden)
    write_manifest(folder, manifest)


def write_forest(folder: Path) -> None:
    """A model of features: one graph under signatures of several methods."""
    folder.mkdir(parents=True)
    onnx.save(_forest_graph(), folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=1, opset=18)
    features, answers = _forest_golden()
    golden: Arrays = {}
    for name, (method, outputs) in FOREST.items():
        signature = manifest.signatures.add(name=name, onnx_file="model.onnx")
        _describe(signature, method, outputs)
        golden |= add_golden(signature, features, {alias: answers[output] for alias, output in outputs.items()})
    save_arrays(folder / "golden.npz", golden)
    write_manifest(folder, manifest)


def _forest_graph() -> onnx.ModelProto:
    single, text, double = onnx.TensorProto.FLOAT, onnx.TensorProto.STRING, onnx.TensorProto.DOUBLE
    nodes = [
        helper.make_node("Cast", ["size"], ["size_f"], to=single),
        helper.make_node("Mul", ["size_f", "age"], ["scores"]),
        helper.make_node("Concat", ["kind", "kind"], ["classes"], axis=1),
        helper.make_node("ReduceSum", ["scores", "one"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["scores", "one"], ["vector"], keepdims=0),
        helper.make_node("Cast", ["scores"], ["scores_double"], to=double),
        helper.make_node("Cast", ["sum"], ["sum_double"], to=double),
        helper.make_node("Gather", ["scores", "zero"], ["first"], axis=0),
        helper.make_node("Gather", ["sum", "zero"], ["first_sum"], axis=0),
        # Not Gather: ONNX Runtime's leaves all but the first string of a gathered row empty.
        helper.make_node("Slice", ["classes", "zero", "one", "zero"], ["first_class"]),
    ]
    types = {"age": (single, 1), "size": (onnx.TensorProto.INT64, 2), "kind": (text, 1)}
    ins = [helper.make_tensor_value_info(alias, dtype, ["n", width]) for alias, (dtype, width) in types.items()]
    names = sorted({name for _, outputs in FOREST.values() for name in outputs.values()})
    outs = [
        helper.make_tensor_value_info(name, text if name in _STRINGS else double if name in _DOUBLES else single, None)
        for name in names
    ]
    constants = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], [n]) for n, name in enumerate(("zero", "one"))]
    graph = helper.make_graph(nodes, "forest", ins, outs, constants)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def _forest_golden() -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Two rows of features, and every output of the graph for them."""
    age = np.array([[2.0], [0.5]], np.float32)
    size = np.array([[3, 4], [5, 6]], np.int64)
    kind = np.array([[b"oak"], [b"elm"]], object)
    scores = (size * age).astype(np.float32)
    total = scores.sum(axis=1, keepdims=True)
    classes = np.concatenate([kind, kind], axis=1)
    answers = {
        "scores": scores,
        "classes": classes,
        "sum": total,
        "vector": total[:, 0],
        "scores_double": scores.astype(np.float64),
        "sum_double": total.astype(np.float64),
        "first": scores[:1],
        "first_sum": total[:1],
        "first_class": classes[:1],
    }
    return {"age": age, "size": size, "kind": kind}, answers


def _describe(signature: package_pb2.Signature, method: str, outputs: Mapping[str, str]) -> None:
    """Fill a signature over the graph's three features."""
    definition = signature.signature_def
    definition.method_name = f"tensorflow/serving/{method}"
    types = {"age": tensor_pb2.DT_FLOAT, "size": tensor_pb2.DT_INT64, "kind": tensor_pb2.DT_STRING}
    for alias, dtype in types.items():
        signature.inputs.add(alias=alias, onnx_name=alias)
        definition.inputs[alias].dtype = dtype
        for size in (-1, 2 if alias == "size" else 1):
            definition.inputs[alias].tensor_shape.dim.add(size=size)
    for alias, name in outputs.items():
        signature.outputs.add(alias=alias, onnx_name=name)
        strings, doubles = name in _STRINGS, name in _DOUBLES
        definition.outputs[alias].dtype = (
            tensor_pb2.DT_STRING if strings else tensor_pb2.DT_DOUBLE if doubles else tensor_pb2.DT_FLOAT
        )
