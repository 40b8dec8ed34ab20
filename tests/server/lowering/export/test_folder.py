"""Tests of `server.lowering.export.folder`: what is written stands on its own, or is not written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from server.errors import FolderTaken, GraphNotLowerable, ProofFailed, SignatureNotFound
from server.lowering.export import Written, to_torch
from server.lowering.export.folder import FILES
from server.repository.package import Package
from tests.packages import write_manifest
from tests.server.lowering.export.packages import package
from tests.server.lowering.graphs import model, numbers, whole

_MLP = "g (float[n,3] x) => (float[n,4] y) { a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v) }"
_NAMES = {"w": "net/dense_._1/kernel", "b": "net/dense_._1/bias", "v": "net/out/kernel"}
_USE = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
import torch
from model import Model, check
model = Model.load()
assert not {"server", "onnx", "onnx2torch", "tensorflow"} & set(sys.modules)
assert "net/out/kernel" in model.state_dict(), list(model.state_dict())
before = {name: one.detach().clone() for name, one in model.named_parameters()}
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
torch.manual_seed(0)
x, losses = torch.rand(8, 3), []
for _ in range(5):
    loss = model(X=x)["Y"].square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert not [name for name, one in model.named_parameters() if torch.equal(one, before[name])]
other = pathlib.Path(sys.argv[2])
model.save(other)
again = Model()
from safetensors.torch import load_file
assert again.load_state_dict(load_file(other)).missing_keys == []
outer = torch.nn.Sequential(again)
outer.load_state_dict(outer.state_dict())
torch.testing.assert_close(again(X=x)["Y"], model(X=x)["Y"])
assert check() < 1e-5
"""


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package of two dense layers."""
    proto = model(_MLP, w=numbers(3, 8), b=np.abs(numbers(8)), v=numbers(8, 4, seed=1))
    return package(tmp_path_factory.mktemp("repo") / "mlp" / "2", proto, {"x": numbers(2, 3)}, _NAMES)


@pytest.fixture(scope="module")
def written(mlp: Package, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What is written of it."""
    return to_torch(mlp, tmp_path_factory.mktemp("out") / "mlp")


def test_the_folder_holds_what_an_engineer_needs(written: Written) -> None:
    """Source, weights by TensorFlow's names, a check, a README; nothing else, and nothing pickled."""
    assert sorted(path.name for path in written.folder.iterdir()) == sorted(FILES)
    weights = load_file(written.folder / "model.safetensors")
    assert {name: array.shape for name, array in weights.items()} == {
        "net/dense_._1/kernel": (8, 3), "net/dense_._1/bias": (8,), "net/out/kernel": (4, 8),
    }  # fmt: skip
    assert (written.trainable, written.tensors) == (64, 3)
    readme = (written.folder / "README.md").read_text()
    for words in ("`X`", "`Y`", "float32", "[n, 3]", "net/dense_._1/kernel", "loss.backward()"):
        assert words in readme
    source = (written.folder / "model.py").read_text()
    assert "nn.Linear(in_features=3, out_features=8, bias=True)" in source
    assert not {"import server", "from server", "import onnx", "pickle.", "torch.load"} & set(source.split("\n"))


def test_the_module_is_trained_in_a_process_that_knows_nothing_of_us(written: Written, tmp_path: Path) -> None:
    """Loaded, fine-tuned, saved, loaded again: every parameter moves, the loss falls, names stay TensorFlow's."""
    command = [
        sys.executable,
        "-I",
        "-W",
        "error",
        "-c",
        _USE,
        str(written.folder),
        str(tmp_path / "tuned.safetensors"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_taken_folder_is_left_alone(mlp: Package, tmp_path: Path) -> None:
    """Not empty: only with `force`, and only if nothing but our own files is there."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(FolderTaken, match="notes.txt" if force else "not empty"):
            to_torch(mlp, out, force=force)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]
    with pytest.raises(FolderTaken, match="no folder"):
        to_torch(mlp, out / "notes.txt", force=True)


def test_force_replaces_an_earlier_result(mlp: Package, tmp_path: Path) -> None:
    """All of it at once."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.py").write_text("old")
    to_torch(mlp, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_does_not_answer_as_tensorflow_did_is_not_written(tmp_path: Path) -> None:
    """The check runs before the folder appears."""
    proto = model(_MLP, w=numbers(3, 8), b=np.abs(numbers(8)), v=numbers(8, 4, seed=1))
    own = package(tmp_path / "repo" / "mlp" / "1", proto, {"x": numbers(2, 3)}, _NAMES)
    arrays = dict(own.golden_arrays())
    arrays["answer/y"] = arrays["answer/y"] + np.float32(0.1)
    np.savez(own.path / "golden.npz", **arrays)  # type: ignore[arg-type] # numpy's stub takes them for an option
    write_manifest(own.path, own.manifest)
    with pytest.raises(ProofFailed, match="not TensorFlow's"):
        to_torch(own, tmp_path / "out" / "mlp")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_package_cannot_put_code_into_the_source(tmp_path: Path) -> None:
    """Names come from whoever made the package; they stand in strings and comments, and stay there."""
    proto = model(_MLP, w=numbers(3, 8), b=np.abs(numbers(8)), v=numbers(8, 4, seed=1))
    evil = '"""\nraise SystemExit(3)\n"""'
    own = package(tmp_path / "repo" / "mlp" / "1", proto, {"x": numbers(2, 3)}, {"w": evil, "v": "net/\n#"})
    own.manifest.source.label = evil
    write_manifest(own.path, own.manifest)
    written = to_torch(own, tmp_path / "out")
    assert not [line for line in (written.folder / "model.py").read_text().splitlines() if line.startswith("raise")]


def test_what_cannot_be_lowered_names_the_operator(tmp_path: Path) -> None:
    """And leaves nothing behind."""
    proto = model("g (float[n] x) => (float[n] y) { y = Identity(x) z = BlackmanWindow(size) }", size=whole(3))
    own = package(tmp_path / "repo" / "window" / "1", proto, {"x": numbers(2)})
    with pytest.raises(GraphNotLowerable, match="BlackmanWindow"):
        to_torch(own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_signature_is_refused_with_those_that_there_are(mlp: Package, tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(SignatureNotFound, match="it has serving_default"):
        to_torch(mlp, tmp_path / "out", signature="other")
