"""Tests of `converter.weights`."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from converter.weights import DATA_FILE, store_graphs
from server.arrays import Array

RNG = np.random.default_rng(0)
SHARED = RNG.standard_normal((64, 64)).astype(np.float32)


def write_graph(path: Path, weights: dict[str, Array], *, external: bool = False, name: str = "g") -> Path:
    """Y = x @ W1 @ W2 ... as an ONNX file, its weights inside or beside it."""
    float_type = onnx.TensorProto.FLOAT
    nodes = []
    last = "x"
    for number, weight in enumerate(weights):
        nodes.append(helper.make_node("MatMul", [last, weight], [f"h{number}"]))
        last = f"h{number}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", float_type, ["n", 64])],
        [helper.make_tensor_value_info("y", float_type, ["n", 64])],
        [numpy_helper.from_array(value, weight) for weight, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


def run(path: Path) -> Array:
    """The graph's answer to ones."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.ones((1, 64), np.float32)})
    return np.asarray(answer)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An empty package folder."""
    folder = tmp_path / "package"
    folder.mkdir()
    return folder


def test_one_graph_is_one_file(tmp_path: Path, package: Path) -> None:
    """The common case: model.onnx with its weights inside, and nothing beside it."""
    source = write_graph(tmp_path / "in" / "0.onnx", {"w": SHARED})
    assert store_graphs([source], package) == ["model.onnx"]
    assert [path.name for path in package.iterdir()] == ["model.onnx"]
    assert np.array_equal(run(package / "model.onnx"), run(source))


def test_the_same_graph_is_stored_once(tmp_path: Path, package: Path) -> None:
    """Two signatures that are one function share a file, whatever the exporter called the graphs."""
    sources = [write_graph(tmp_path / "in" / f"{i}.onnx", {"w": SHARED}, name=f"tf2onnx_{i}") for i in range(2)]
    assert store_graphs(sources, package) == ["model.onnx", "model.onnx"]
    assert [path.name for path in package.iterdir()] == ["model.onnx"]


def test_shared_weights_are_stored_once(tmp_path: Path, package: Path) -> None:
    """Graphs that differ but hold the same weights refer to one copy; each computes what it did before."""
    own = RNG.standard_normal((64, 64)).astype(np.float32)
    sources = [
        write_graph(tmp_path / "in" / "0.onnx", {"a": SHARED}),
        write_graph(tmp_path / "in" / "1.onnx", {"b": SHARED, "c": own}),
    ]
    assert store_graphs(sources, package) == ["model-0.onnx", "model-1.onnx"]
    assert (package / DATA_FILE).stat().st_size == SHARED.nbytes
    assert (package / "model-0.onnx").stat().st_size < SHARED.nbytes < (package / "model-1.onnx").stat().st_size
    for number, source in enumerate(sources):
        onnx.checker.check_model(package / f"model-{number}.onnx", full_check=True)
        assert np.array_equal(run(package / f"model-{number}.onnx"), run(source))


def test_the_weights_of_a_large_graph_stay_outside(tmp_path: Path, package: Path) -> None:
    """What the exporter put beside a graph too large for one message ends in the package's own data file."""
    source = write_graph(tmp_path / "in" / "0.onnx", {"w": SHARED, "again": SHARED}, external=True)
    assert store_graphs([source], package) == ["model.onnx"]
    assert (package / DATA_FILE).stat().st_size == SHARED.nbytes
    assert np.array_equal(run(package / "model.onnx"), run(source))


def test_graphs_with_outside_weights_are_not_confused(tmp_path: Path, package: Path) -> None:
    """Two large graphs of the same form but with other weights stay two graphs."""
    sources = []
    for number in range(2):
        folder = tmp_path / str(number)
        sources.append(write_graph(folder / "0.onnx", {"w": SHARED + number}, external=True))
    assert store_graphs(sources, package) == ["model-0.onnx", "model-1.onnx"]
    for number, source in enumerate(sources):
        assert np.array_equal(run(package / f"model-{number}.onnx"), run(source))
