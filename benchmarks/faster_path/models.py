"""The models: two real ones, and small ones of our own in which one or another backend is at its best.

Ours are written as ONNX files without TensorFlow, with answers by ONNX's reference implementation for the proofs.
Weights are random and change nothing about the time that a run takes.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.backends.models import ROOT
from benchmarks.soak.models import convert_vit
from examples.published_models import fetch
from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array, save_arrays
from server.repository.package import SCHEMA_VERSION
from tests.packages import write_manifest

_GOLDEN_ROWS = (1, 3)
_OPSET = 18


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph with one input "x" and one output "y", both of floats, whose rows keep apart.

    Attributes:
        text: In ONNX's text form; the batch axis is B.
        constants: By name.
        row: The shape of a row of x.
        spread: Standard deviation of the rows' numbers.
    """

    text: str
    constants: Mapping[str, Array]
    row: tuple[int, ...]
    spread: float = 1.0


def track(points: int = 2048) -> Graph:
    """Way features of GPS tracks, as taxi models begin with: distance, its logarithm and heading of each leg, averaged.

    A row is so many legs with latitude and longitude of both ends, in degrees. Some forty pointwise operators.
    """
    text = f"""track (float[B,{points},4] x) => (float[B,4] y) {{
        angles = Mul(x, degree)
        lat1, lon1, lat2, lon2 = Split <axis = 2, num_outputs = 4> (angles)
        dlat = Sub(lat2, lat1)
        dlon = Sub(lon2, lon1)
        half_lat = Mul(dlat, half)
        half_lon = Mul(dlon, half)
        sin_half_lat = Sin(half_lat)
        sin_half_lon = Sin(half_lon)
        square_lat = Mul(sin_half_lat, sin_half_lat)
        square_lon = Mul(sin_half_lon, sin_half_lon)
        cos1 = Cos(lat1)
        cos2 = Cos(lat2)
        cosines = Mul(cos1, cos2)
        across = Mul(cosines, square_lon)
        haversine = Add(square_lat, across)
        root = Sqrt(haversine)
        arc = Asin(root)
        distance = Mul(arc, diameter)
        above = Add(distance, tiny)
        logarithm = Log(above)
        bounded = Clip(logarithm, low, high)
        sin_dlon = Sin(dlon)
        east = Mul(sin_dlon, cos2)
        sin1 = Sin(lat1)
        sin2 = Sin(lat2)
        cos_dlon = Cos(dlon)
        forward = Mul(cos1, sin2)
        inward = Mul(sin1, cos2)
        turned = Mul(inward, cos_dlon)
        north = Sub(forward, turned)
        east_square = Mul(east, east)
        north_square = Mul(north, north)
        squares = Add(east_square, north_square)
        positive = Add(squares, tiny)
        length = Sqrt(positive)
        heading_east = Div(east, length)
        heading_north = Div(north, length)
        features = Concat <axis = 2> (distance, bounded, heading_east, heading_north)
        y = ReduceMean <keepdims = 0> (features, along)
    }}"""
    constants = {
        "degree": np.float32(np.pi / 180), "half": np.float32(0.5), "diameter": np.float32(12742),
        "tiny": np.float32(1e-6), "low": np.float32(-6), "high": np.float32(9), "along": np.array([1]),
    }  # fmt: skip
    return Graph(text, {name: np.asarray(value) for name, value in constants.items()}, (points, 4), spread=10.0)


def gestures(steps: int = 256, channels: int = 8, hidden: int = 32) -> Graph:
    """Two GRU layers over what a motion sensor tells, as Keras writes them, and a dense layer over the last state."""
    text = f"""gestures (float[B,{steps},{channels}] x) => (float[B,6] y) {{
        by_time = Transpose <perm = [1, 0, 2]> (x)
        all1, last1 = GRU <hidden_size = {hidden}, linear_before_reset = 1> (by_time, w1, r1, b1)
        states = Squeeze(all1, directions)
        all2, last2 = GRU <hidden_size = {hidden}, linear_before_reset = 1> (states, w2, r2, b2)
        state = Squeeze(last2, layers)
        scores = Gemm(state, w3, b3)
        y = Softmax(scores)
    }}"""
    rng = np.random.default_rng(1)
    constants = {"directions": np.array([1]), "layers": np.array([0])}
    for layer, width in ((1, channels), (2, hidden)):
        constants[f"w{layer}"] = _weights(rng, 1, 3 * hidden, width)
        constants[f"r{layer}"] = _weights(rng, 1, 3 * hidden, hidden)
        constants[f"b{layer}"] = _weights(rng, 1, 6 * hidden)
    constants |= {"w3": _weights(rng, hidden, 6), "b3": _weights(rng, 6)}
    return Graph(text, constants, (steps, channels))


def sensors(width: int = 16384) -> Graph:
    """A reading of many sensors, standardised, bounded, squashed and gated, and averaged: pointwise operators."""
    text = f"""sensors (float[B,{width}] x) => (float[B,1] y) {{
        centred = Sub(x, mean)
        z = Div(centred, deviation)
        bounded = Clip(z, low, high)
        exponential = Exp(bounded)
        more = Add(exponential, one)
        softplus = Log(more)
        saturated = Tanh(softplus)
        mish = Mul(bounded, saturated)
        weighed = Mul(z, gate_weight)
        shifted = Add(weighed, gate_bias)
        gate = Sigmoid(shifted)
        gated = Mul(mish, gate)
        square = Mul(gated, gated)
        cube = Mul(square, gated)
        small_cube = Mul(cube, cubic)
        mixed = Add(gated, small_cube)
        squashed = Tanh(mixed)
        magnitude = Abs(squashed)
        root = Sqrt(magnitude)
        sign = Sign(squashed)
        features = Mul(root, sign)
        y = ReduceMean <keepdims = 1> (features, along)
    }}"""
    rng = np.random.default_rng(2)
    constants = {
        "mean": _weights(rng, width), "deviation": 1 + np.abs(_weights(rng, width)), "low": np.float32(-4),
        "high": np.float32(4), "one": np.float32(1), "gate_weight": _weights(rng, width),
        "gate_bias": _weights(rng, width), "cubic": np.float32(0.044715), "along": np.array([1]),
    }  # fmt: skip
    return Graph(text, {name: np.asarray(value) for name, value in constants.items()}, (width,))


def perceptron(widths: tuple[int, ...] = (32, 64, 64, 8)) -> Graph:
    """A table's row into a few dense layers: next to nothing to compute."""
    constants: dict[str, Array] = {}
    rng, steps, value = np.random.default_rng(3), [], "x"
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        constants |= {f"w{number}": _weights(rng, before, after), f"b{number}": _weights(rng, after)}
        is_last = number == len(widths) - 2
        steps.append(f"sum{number} = Gemm({value}, w{number}, b{number})")
        value = "y" if is_last else f"h{number}"
        steps.append(f"{value} = {'Softmax' if is_last else 'Relu'}(sum{number})")
    text = f"perceptron (float[B,{widths[0]}] x) => (float[B,{widths[-1]}] y) {{ {' '.join(steps)} }}"
    return Graph(text, constants, (widths[0],))


OURS: Final[Mapping[str, Callable[[], Graph]]] = {
    "track": track, "gestures": gestures, "sensors": sensors, "perceptron": perceptron,
}  # fmt: skip
MODELS: Final = ("vit", "basic-pitch", "track", "gestures", "perceptron")
"""Those of the long run; the short form in the tests has others of ours too."""


def make(name: str, folder: Path) -> Path:
    """The repository with a model's package as version 1, below a folder; made if it is not there.

    ViT-Base takes more than a minute and basic-pitch half of one; basic-pitch is downloaded the first time.
    """
    repository = folder / name / "models"
    if (repository / name / "1" / "manifest.json").exists():
        return repository
    (folder / name).mkdir(parents=True, exist_ok=True)
    if name == "vit":
        convert_vit(repository, folder / name)
    elif name == "basic-pitch":
        source = fetch(name) / "nmp"
        command = [sys.executable, "-m", "converter.cli", str(source), "--name", name, "--repository", str(repository)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    else:
        write(OURS[name](), repository / name / "1")
    return repository


def write(graph: Graph, folder: Path) -> None:
    """Write a graph's package into a folder that does not exist yet."""
    folder.mkdir(parents=True)
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {_OPSET}]>\n{graph.text}')
    for name, value in graph.constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=SCHEMA_VERSION, opset=_OPSET)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    signature.signature_def.method_name = "tensorflow/serving/predict"
    signature.batching.batchable = signature.batching.derived = True
    rng, reference = np.random.default_rng(4), ReferenceEvaluator(model)
    arrays: dict[str, Array] = {}
    for rows in _GOLDEN_ROWS:
        x = rng.standard_normal((rows, *graph.row)).astype(np.float32) * np.float32(graph.spread)
        (y,) = reference.run(None, {"x": x})
        case = signature.golden.add(origin="random", batch=rows)
        case.inputs["x"], case.outputs["y"] = f"x{rows}", f"y{rows}"
        arrays |= {f"x{rows}": x, f"y{rows}": np.asarray(y)}
    signature.inputs.add(alias="x", onnx_name="x")
    signature.outputs.add(alias="y", onnx_name="y").tolerance.absolute = 1e-4 * float(np.abs(arrays["y3"]).max())
    for alias, infos in (("x", signature.signature_def.inputs), ("y", signature.signature_def.outputs)):
        infos[alias].name, infos[alias].dtype = f"{alias}:0", tensor_pb2.DT_FLOAT
        for size in (-1, *arrays[f"{alias}1"].shape[1:]):
            infos[alias].tensor_shape.dim.add(size=size)
    save_arrays(folder / "golden.npz", arrays)
    write_manifest(folder, manifest)


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))
