"""Bad input at the command line: a cause, an advice, an exit code, and everything left exactly as it was."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from converter.exits import ExitCode
from examples.published_models import fetch
from protos.tensorflow import saved_model_pb2, tensor_pb2
from tests.e2e.processes import convert, tree
from tests.e2e.refusals import Refusal, assert_says, new_place, refused


@dataclass(frozen=True)
class Case:
    """A source, options, and what must be said of them."""

    source: str
    options: tuple[str, ...]
    code: ExitCode
    kind: str
    cause: tuple[str, ...]
    advice: tuple[str, ...]


def write_saved_model(folder: Path) -> None:
    """A SavedModel as far as anyone can tell without TensorFlow, with the signatures "first" and "second"."""
    model = saved_model_pb2.SavedModel()
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    for name in ("first", "second"):
        info = graph.signature_def[name].inputs["x"]
        info.name, info.dtype = "x:0", tensor_pb2.DT_FLOAT
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not what they should be; made without TensorFlow."""
    folder = tmp_path_factory.mktemp("sources")
    write_saved_model(folder / "model")
    write_saved_model(folder / "base" / "2")
    write_saved_model(folder / "base" / "10")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("Twas brillig, and the slithy toves\n")
    (folder / "text.h5").write_text("Twas brillig, and the slithy toves\n")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "saved_model.pb").write_bytes((folder / "model" / "saved_model.pb").read_bytes()[:-3])
    with zipfile.ZipFile(folder / "whole.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (folder / "damaged.keras").write_bytes((folder / "whole.keras").read_bytes()[:-30])
    np.savez(folder / "alias.npz", z=np.zeros((2, 3), np.float32))
    np.savez(folder / "dtype.npz", x=np.array([["a", "b", "c"]]))
    np.savez(folder / "shape.npz", x=np.zeros((2, 4), np.float32))
    return folder


SOURCE, INPUTS, USAGE = ExitCode.SOURCE, ExitCode.INPUTS, ExitCode.USAGE
AT_ONCE = {
    "nothing there": Case("nowhere", (), SOURCE, "NotAModel", ("nowhere does not exist",), ("current folder",)),
    "a text file": Case("text.txt", (), SOURCE, "NotAModel", ("text.txt is no model",), ("saved_model.pb", ".keras")),
    "an empty folder": Case("empty", (), SOURCE, "NotAModel", ("empty is empty",), ("saved_model.pb",)),
    "a base folder": Case("base", (), SOURCE, "NotAModel", ("2 version(s)",), ("base/10.",)),
    "a part": Case("model/saved_model.pb", (), SOURCE, "NotAModel", ("part of a SavedModel",), ("folder", "/model.")),
    "a damaged SavedModel": Case("damaged", (), SOURCE, "UnloadableModel", ("damaged",), ("Copy",)),
    "a damaged archive": Case("damaged.keras", (), SOURCE, "NotAModel", ("damaged .keras",), ("copy", "save")),
    "text called .h5": Case("text.h5", (), SOURCE, "NotAModel", ("neither", "HDF5"), ("copy", "model.save")),
    "an unknown signature": Case(
        "model", ("--signature", "third"), SOURCE, "SignatureMissing", ('"third"',), ("--signature", "first, second")
    ),
    "an unknown tag": Case("model", ("--tag", "gpu"), SOURCE, "NotAModel", ("tag gpu", "serve"), ("--tag",)),
    "a bad name": Case("model", ("--name", "a/b"), USAGE, "InvalidName", ("'a/b'",), ("characters A-Z",)),
    "no inputs file": Case("model", ("--inputs", "nowhere.npz"), INPUTS, "InputsRejected", ("exist",), ("--inputs",)),
    "inputs of another kind": Case(
        "model", ("--inputs", "text.txt"), INPUTS, "InputsRejected", ("text.txt", "zip"), ("numpy.savez",)
    ),
    "inputs by another name": Case(
        "model", ("--inputs", "alias.npz"), INPUTS, "InputsRejected", ("has z", "first: x"), ("numpy.savez", "ALIAS")
    ),
}


@pytest.mark.parametrize("case", AT_ONCE.values(), ids=AT_ONCE)
def test_what_can_be_seen_at_once_is_refused_at_once(sources: Path, tmp_path: Path, case: Case) -> None:
    """No TensorFlow is started for what its files already tell; a missing repository stays missing."""
    refusal = refused(new_place(tmp_path), sources / case.source, *_options(case, sources))
    assert_says(refusal, case.code, case.kind, case.cause, case.advice)


@pytest.mark.parametrize("repository", ["text.txt", "text.txt/models"])
def test_a_file_is_no_repository(sources: Path, tmp_path: Path, repository: str) -> None:
    """Publishing into a file, or below one, is refused before anything is converted."""
    place = new_place(tmp_path)
    (tmp_path / "text.txt").write_text("not a folder")
    refusal = refused(place, sources / "model", "--repository", tmp_path / repository)
    assert_says(refusal, ExitCode.REPOSITORY, "RepositoryUnwritable", ("text.txt",), ("--repository",))


CONVERSION, DIFFERENT = ExitCode.CONVERSION, ExitCode.DIFFERENT
BY_TENSORFLOW = {
    "a damaged .h5": Case("damaged.h5", (), SOURCE, "UnloadableModel", ("damaged.h5", "truncated"), (".keras",)),
    "weights only": Case(
        "only.weights.h5", (), SOURCE, "WeightsOnly", ("only.weights.h5", "not the model"), ("load_weights", "save")
    ),
    "a Lambda layer": Case("lambda.keras", (), SOURCE, "UntrustedCode", ("Lambda", "Python code"), ("Replace",)),
    "no ONNX form": Case(
        "inverse",
        (),
        CONVERSION,
        "UnsupportedOperator",
        ("'serving_default'", "MatrixInverse", "solver/MatrixInverse"),
        ("without these operators",),
    ),
    "one of two signatures": Case(
        "partial", (), CONVERSION, "UnsupportedOperator", ("'invert'", "MatrixInverse"), ("name them with --signature",)
    ),
    "guesslang": Case(
        "guesslang", (), CONVERSION, "UnsupportedOperator", ("StringNGrams", "StringSplit"), ("into the client",)
    ),
    "inputs of another dtype": Case(
        "linear", ("--inputs", "dtype.npz"), INPUTS, "InputsRejected", ("'x'", "string", "float32"), ("--inputs",)
    ),
    "inputs of another shape": Case(
        "linear", ("--inputs", "shape.npz"), INPUTS, "InputsRejected", ("[2, 4]", "[?, 3]"), ("--inputs",)
    ),
    "inputs that it refuses": Case(
        "picky", (), INPUTS, "InputsRejected", ("refuses every input", "no distribution"), ("--inputs FILE.npz",)
    ),
    "other answers": Case(
        "bicubic", (), DIFFERENT, "OutputsDiffer", ("'large'", "largest difference is 1."), ("--atol", "--rtol")
    ),
    "new answers each time": Case("noise", (), DIFFERENT, "NondeterministicModel", ("'y'", "two runs"), ("random",)),
    "a crash": Case("abort", (), CONVERSION, "WorkerCrashed", ("SIGABRT", "the model aborts"), ("report",)),
    "no end": Case(
        "endless", ("--time-limit", "10"), CONVERSION, "WorkerTimedOut", ("longer than 10 seconds",), ("--time-limit",)
    ),
    "too much memory": Case("hungry", (), CONVERSION, "WorkerOutOfMemory", ("memory",), ("more memory",)),
}


@pytest.fixture(scope="module")
def refusals(
    sources: Path, zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Refusal]]]:
    """All conversions that need TensorFlow to fail, two at a time."""
    root = tmp_path_factory.mktemp("refusals")
    (root / "damaged.h5").write_bytes((zoo / "keras_2.h5").read_bytes()[:5000])
    elsewhere = {"damaged.h5": root / "damaged.h5", "guesslang": fetch("guesslang")}
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(
                partial(refused, new_place(root / case.kind / name)),
                elsewhere.get(case.source, zoo / case.source),
                *_options(case, sources),
            )
            for name, case in BY_TENSORFLOW.items()
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TENSORFLOW)
def test_what_tensorflow_finds_is_told_without_its_traceback(
    refusals: Mapping[str, Future[Refusal]], name: str
) -> None:
    """Each way in which a conversion can fail in its own process has its error, cause and advice."""
    case = BY_TENSORFLOW[name]
    assert_says(refusals[name].result(), case.code, case.kind, case.cause, case.advice)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options"), [("partial", ("--signature", "serving_default")), ("bicubic", ("--atol", "5e-3"))]
)
def test_following_the_advice_helps(zoo: Path, tmp_path: Path, source: str, options: tuple[str, ...]) -> None:
    """What is refused as a whole is published with the option that the refusal advised."""
    place = new_place(tmp_path)
    done = place.convert(zoo / source, *options, "--json")
    assert done.returncode == 0, done.stderr
    (signature,) = json.loads(done.stdout)["signatures"]
    assert signature["name"] == "serving_default"
    assert set(tree(place.repository)) >= {"m/1/manifest.json", "m/1/model.onnx"}
    assert list(place.temporary.iterdir()) == []


def test_without_json_the_same_is_said(sources: Path, tmp_path: Path) -> None:
    """People see cause and advice on standard error, and nothing on standard output."""
    done = convert(sources / "empty", "--name", "m", "--repository", tmp_path / "models")
    assert done.returncode == ExitCode.SOURCE
    assert done.stdout == ""
    assert "Error: The folder" in done.stderr
    assert "What to do: Give" in done.stderr


def _options(case: Case, sources: Path) -> list[str]:
    """Options of a case, files among them made absolute."""
    return [str(sources / option) if option.endswith((".npz", ".txt")) else option for option in case.options]
