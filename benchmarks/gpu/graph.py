"""ViT-Base as Segue converts it, without its weights, and weights made of a seed.

`vit.onnx.gz` is a package's ONNX file from which everything that holds a TensorFlow variable was taken; in its place
stands which variable it was. `python -m benchmarks.gpu.graph PACKAGE` writes it, PACKAGE being the folder
models/vit/1 that `python -m benchmarks.backends --model vit --folder FOLDER` leaves. Neither TensorFlow nor torch is
imported here.
"""

import argparse
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.backends.interface import GraphSpec, TensorPort

FILE: Final = Path(__file__).parent / "vit.onnx.gz"
LAYERS: Final = 12
PORTS: Final = (
    (TensorPort("pixel_values", tensor_pb2.DT_FLOAT),),
    (TensorPort("logits", tensor_pb2.DT_FLOAT),),
)
IMAGE: Final = (3, 224, 224)
_SCALE: Final = 0.02  # of ViT's own initialisation


def stripped(model: onnx.ModelProto, manifest: Mapping[str, Any]) -> onnx.ModelProto:
    """A model without the numbers of its variables.

    Args:
        model: What a package holds.
        manifest: The package's, as JSON.

    Raises:
        ValueError: a variable has no initializer of its own.
    """
    if manifest.get("unmapped_variables"):
        raise ValueError("not every variable has an initializer")
    held = {str(one["name"]): one for one in manifest["initializers"]}
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if (one := held.get(tensor.name)) is None:
            continue
        (variable,) = one["variables"]
        note = {**variable, "transposition": one.get("transposition", [])}
        tensor.doc_string = json.dumps(note)
        tensor.ClearField("raw_data")
    del bare.graph.value_info[:]
    return bare


def load(layers: int = LAYERS) -> onnx.ModelProto:
    """The model without numbers, perhaps with the first few of its twelve layers only."""
    model = onnx.ModelProto.FromString(gzip.decompress(FILE.read_bytes()))
    return model if layers == LAYERS else cut(model, layers)


def cut(model: onnx.ModelProto, layers: int) -> onnx.ModelProto:
    """The model with its first layers only: its last norm reads what the next layer would have read."""
    # Two in each layer, and the last.
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    norms[-1].input[0] = norms[2 * layers].input[0]
    wanted, nodes = {port.name for port in model.graph.output}, []
    for node in reversed(model.graph.node):  # in topological order, as every ONNX graph
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    del smaller.graph.node[:], smaller.graph.initializer[:]
    smaller.graph.node.extend(reversed(nodes))
    smaller.graph.initializer.extend(one for one in model.graph.initializer if one.name in wanted)
    return smaller


def variables(model: onnx.ModelProto) -> dict[str, str]:
    """Initializer -> the TensorFlow variable that it holds."""
    return {one.name: json.loads(one.doc_string)["name"] for one in model.graph.initializer if one.doc_string}


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    """Numbers for every variable, by TensorFlow's name and in its shape: the same wherever they are made."""
    notes = [json.loads(one.doc_string) for one in model.graph.initializer if one.doc_string]
    return {note["name"]: _numbers(note["name"], [int(size) for size in note["shape"]]) for note in notes}


def _numbers(name: str, shape: list[int]) -> Array:
    # None is zero or one exactly, as in a trained model, and each has a seed of its own.
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32) * np.float32(_SCALE)
    return noise + np.float32(1) if name.endswith("/gamma") else noise


def filled(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with numbers in the places of its variables."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    for tensor in full.graph.initializer:
        if not tensor.doc_string:
            continue
        note = json.loads(tensor.doc_string)
        array = values[note["name"]]
        if note["transposition"]:
            array = array.transpose(note["transposition"])
        array = np.ascontiguousarray(array.reshape(tuple(tensor.dims)))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return full


def images(count: int, seed: int = 0) -> Array:
    """Random images, float32 [count, 3, 224, 224]."""
    return np.random.default_rng(seed).standard_normal((count, *IMAGE), np.float32)


def spec(path: Path, digest: str = "") -> GraphSpec:
    """A filled model's file, as the server's backends take it."""
    return GraphSpec(path, *PORTS, digest)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="folder of a converted ViT-Base")
    folder = parser.parse_args().package
    model = stripped(onnx.load(folder / "model.onnx"), json.loads((folder / "manifest.json").read_text("utf-8")))
    FILE.write_bytes(gzip.compress(model.SerializeToString(deterministic=True), mtime=0))
    print(f"{FILE}: {FILE.stat().st_size} bytes, {len(variables(model))} variables")


if __name__ == "__main__":
    main()
