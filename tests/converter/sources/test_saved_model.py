"""SavedModels: recognised, described, or refused with the reason and the way out."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import ConversionError, NotAModel, SignatureMissing, UnloadableModel
from converter.sources.saved_model import digest_folder, read_saved_model, select_signatures
from protos.tensorflow import saved_model_pb2, tensor_pb2

Copy = Callable[[str], Path]


def _refusal(path: Path, kind: type[ConversionError] = NotAModel) -> ConversionError:
    with pytest.raises(kind) as caught:
        read_saved_model(path)
    assert type(caught.value) is kind
    return caught.value


def test_a_tensorflow_2_model(saved_models: Path) -> None:
    """Signatures, operators inside functions, version and tags are read as TensorFlow wrote them."""
    source = read_saved_model(saved_models / "tf2")
    assert source.tags == ("serve",)
    assert list(source.signatures) == ["length", "serving_default"]
    x = source.signatures["serving_default"].inputs["x"]
    assert (x.name, x.dtype) == ("serving_default_x:0", tensor_pb2.DT_FLOAT)
    assert [dim.size for dim in x.tensor_shape.dim] == [-1, 2]
    assert {"Cosh", "MatMul", "StringLength", "StatefulPartitionedCall"} <= source.operators
    assert not any(name.startswith("__inference") for name in source.operators)
    assert source.tensorflow_version.startswith("2.")


def test_a_tensorflow_1_model(saved_models: Path) -> None:
    """A plain graph without functions is read too."""
    source = read_saved_model(saved_models / "tf1")
    assert list(source.signatures) == ["serving_default"]
    assert source.signatures["serving_default"].outputs["y"].name == "y:0"
    assert "Sinh" in source.operators


def test_bookkeeping_is_no_signature(saved_models: Path) -> None:
    """What TensorFlow itself calls when it loads a model is not offered for conversion."""
    raw = saved_model_pb2.SavedModel.FromString((saved_models / "tf2" / "saved_model.pb").read_bytes())
    assert "__saved_model_init_op" in raw.meta_graphs[0].signature_def
    assert "__saved_model_init_op" not in read_saved_model(saved_models / "tf2").signatures


def test_signatures_are_selected(saved_models: Path) -> None:
    """All signatures, or those asked for in the order asked for."""
    source = read_saved_model(saved_models / "tf2")
    assert list(select_signatures(source)) == ["length", "serving_default"]
    assert list(select_signatures(source, ["serving_default", "length"])) == ["serving_default", "length"]
    assert select_signatures(source, ["length"])["length"] == source.signatures["length"]


def test_an_unknown_signature_is_named_with_those_there_are(saved_models: Path) -> None:
    """A misspelt signature is told apart from those that exist."""
    with pytest.raises(SignatureMissing) as caught:
        select_signatures(read_saved_model(saved_models / "tf2"), ["serving_defualt"])
    assert '"serving_defualt"' in caught.value.cause
    assert "length, serving_default" in caught.value.advice


def test_a_model_without_signatures_says_so(saved_models: Path) -> None:
    """It is read, but there is nothing to choose from."""
    source = read_saved_model(saved_models / "without_signatures")
    with pytest.raises(SignatureMissing, match="has no signatures"):
        select_signatures(source)


def test_a_graph_is_chosen_by_all_of_its_tags(saved_models: Path) -> None:
    """A model that is not for serving names the tags it has; asked for by these, it is read."""
    error = _refusal(saved_models / "train_only")
    assert "no graph with the tag serve" in error.cause
    assert "gpu" in error.cause
    assert "train" in error.cause
    assert read_saved_model(saved_models / "train_only", ("train", "gpu")).tags == ("gpu", "train")
    with pytest.raises(NotAModel):
        read_saved_model(saved_models / "train_only", ("train",))


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    """Each kind of wrong path is told apart."""
    assert "does not exist" in _refusal(tmp_path / "nowhere").cause
    assert "is empty" in _refusal(tmp_path).cause
    (tmp_path / "model.bin").write_bytes(b"")
    assert "is a file" in _refusal(tmp_path / "model.bin").cause
    assert "only model.bin" in _refusal(tmp_path).cause
    (tmp_path / "variables").mkdir()
    assert "the variables of a SavedModel" in _refusal(tmp_path).cause
    (tmp_path / "saved_model.pbtxt").write_text("")
    assert "in text form" in _refusal(tmp_path).cause


def test_the_file_inside_a_model_leads_to_its_folder(saved_models: Path) -> None:
    """Who names saved_model.pb is told to name its folder."""
    assert str(saved_models / "tf2") in _refusal(saved_models / "tf2" / "saved_model.pb").advice


def test_a_folder_of_versions_leads_to_the_newest(tmp_path: Path, copy: Copy) -> None:
    """TensorFlow Serving's base path is no model; the advice names the newest version by number, not by text."""
    model = copy("tf1")
    base = tmp_path / "base"
    for version in ("9", "10"):
        (base / version).mkdir(parents=True)
        (base / version / "saved_model.pb").write_bytes((model / "saved_model.pb").read_bytes())
    (base / "11").mkdir()
    error = _refusal(base)
    assert "2 version(s)" in error.cause
    assert error.advice.endswith(f"{base / '10'}.")


@pytest.mark.parametrize(("content", "cause"), [(b"\xff\xff", "damaged"), (b"", "holds no graph")])
def test_a_damaged_model_is_told_apart(tmp_path: Path, content: bytes, cause: str) -> None:
    """Bytes that are no SavedModel are damage, not a wrong path."""
    (tmp_path / "saved_model.pb").write_bytes(content)
    kind = UnloadableModel
    assert cause in _refusal(tmp_path, kind).cause


def test_a_truncated_model_is_refused(copy: Copy) -> None:
    """A copy that stopped half-way is recognised as such."""
    file = copy("tf2") / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-7])
    assert "damaged" in _refusal(file.parent, UnloadableModel).cause


def test_the_digest_tells_any_change(copy: Copy, saved_models: Path) -> None:
    """A copy has the same digest; another name, another byte or another file gives another."""
    model = copy("tf2")
    original = digest_folder(saved_models / "tf2")
    assert digest_folder(model) == original
    assert original[1] == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    seen = {original[0]}
    (model / "extra").write_bytes(b"")
    seen.add(digest_folder(model)[0])
    (model / "extra").rename(model / "assets" / "extra")
    seen.add(digest_folder(model)[0])
    (model / "assets" / "extra").write_bytes(b"x")
    seen.add(digest_folder(model)[0])
    assert len(seen) == 4
    (model / "assets" / "extra").unlink()
    (model / "empty folder").mkdir()
    assert digest_folder(model) == original


def test_links_inside_a_model_are_followed(copy: Copy) -> None:
    """A file moved aside and linked to, inside the model, reads as the file itself."""
    model = copy("tf2")
    (model / "variables").rename(model / "assets" / "data")
    linked = model / "variables"
    linked.symlink_to("assets/data")
    digest, _ = digest_folder(model)
    linked.unlink()
    linked.mkdir()
    for file in (model / "assets" / "data").iterdir():
        (linked / file.name).symlink_to(f"../assets/data/{file.name}")
    assert digest_folder(model)[0] == digest


def test_links_that_lead_astray_are_refused(copy: Copy, tmp_path: Path) -> None:
    """A link out of the model, to nothing, to itself or in a circle is refused by name."""
    model = copy("tf1")
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    link = model / "link"
    (model / "a").mkdir()
    (model / "a" / "back").symlink_to(model / "b")
    (model / "b").mkdir()
    for target, cause in {
        secret: "outside of the model",
        tmp_path: "outside of the model",
        model / "nothing": "cannot be read",
        link: "cannot be read",
        model: "a folder that it is in",
    }.items():
        link.symlink_to(target)
        assert cause in _refusal(model, UnloadableModel).cause
        link.unlink()
    (model / "b" / "back").symlink_to(model / "a")
    assert "a folder that it is in" in _refusal(model, UnloadableModel).cause


def test_what_is_no_file_is_refused(copy: Copy) -> None:
    """A pipe in a model, which would never end, is not read."""
    model = copy("tf1")
    os.mkfifo(model / "pipe")
    assert "neither a file nor a folder" in _refusal(model, UnloadableModel).cause
