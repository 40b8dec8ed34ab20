"""Models that TensorFlow and Keras really wrote, exported by the worker and compared with TensorFlow's own answers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.export import SampleInputs
from converter.exported import ExportedSignature, ExportResult
from tests.conftest import ROOT
from tests.converter.conftest import Exporter
from tests.converter.running import answer, open_session, require_golden

_CORNERS = (
    "control.serving_default", "convolution.serving_default", "dtypes.serving_default", "gelu.serving_default",
    "linear.serving_default", "plumbing.serving_default", "positive.serving_default", "ranks.fixed", "ranks.second",
    "ranks.unknown", "shared.embed", "shared.serving_default", "string_table.serving_default", "tokens.serving_default",
)  # fmt: skip


@pytest.fixture(scope="module")
def corners(export: Exporter) -> dict[str, ExportedSignature]:
    """The signatures of the model that has them all."""
    return _by_name(export("corners"))


def _by_name(result: ExportResult) -> dict[str, ExportedSignature]:
    return {signature.name: signature for signature in result.signatures}


def _dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


@pytest.mark.slow
@pytest.mark.parametrize("name", _CORNERS)
def test_golden_answers_are_reproduced(corners: dict[str, ExportedSignature], name: str) -> None:
    """ONNX Runtime gives TensorFlow's answers, dtypes and shapes included, for every corner of the exporter."""
    require_golden(corners[name])


@pytest.mark.slow
def test_every_signature_is_exported(corners: dict[str, ExportedSignature]) -> None:
    """Without a choice of signatures, all are exported under their own names."""
    assert tuple(corners) == _CORNERS


@pytest.mark.slow
@pytest.mark.parametrize("name", _CORNERS)
def test_lean_and_large_models(export: Exporter, name: str) -> None:
    """Weights kept out of TensorFlow's optimizer, and stored in a file of their own, answer the same."""
    signature = _by_name(export("corners", lean_bytes=0, large_model_bytes=0))[name]
    require_golden(signature)
    if name == "convolution.serving_default":
        assert signature.onnx.with_name(f"{signature.onnx.name}.data").stat().st_size > 4 * 2 * 2 * 32 * 40


@pytest.mark.slow
def test_letters_change_as_in_tensorflow(export: Exporter) -> None:
    """Lower and upper case load without a locale of any language, and change the letters that TensorFlow changes."""
    signature = _by_name(export("letters"))["serving_default"]
    session = open_session(signature)
    assert signature.cases
    for case in signature.cases:
        for alias, got in answer(session, signature, case).items():
            expected = case.outputs[alias]
            assert got.shape == expected.shape
            assert [text.encode() for text in got.ravel().tolist()] == expected.ravel().tolist(), alias


@pytest.mark.slow
def test_interface_survives(corners: dict[str, ExportedSignature]) -> None:
    """Names, dtypes and dimensions of the graph's ends are the signature's, dynamic ones by names of their own."""
    graph = onnx.load(corners["dtypes.serving_default"].onnx, load_external_data=False).graph
    elements = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    assert elements == {
        "flag": onnx.TensorProto.BOOL, "half": onnx.TensorProto.FLOAT16, "image": onnx.TensorProto.UINT8,
        "number": onnx.TensorProto.INT64, "scale": onnx.TensorProto.FLOAT, "wide": onnx.TensorProto.DOUBLE,
    }  # fmt: skip
    shapes = {value.name: _dimensions(value) for value in graph.input}
    assert shapes["scale"] == []
    assert shapes["image"] == ["input2_dim0", 4, 4, 3]
    linear = onnx.load(corners["linear.serving_default"].onnx).graph
    assert _dimensions(linear.input[0]) == ["batch", 3]
    image = onnx.load(corners["convolution.serving_default"].onnx).graph
    assert _dimensions(image.input[0]) == ["batch", "input0_dim1", "input0_dim2", 3]


@pytest.mark.slow
def test_plumbing(corners: dict[str, ExportedSignature]) -> None:
    """An alias that is input and output at once gets another ONNX name, which is recorded; odd characters stay."""
    plumbing = corners["plumbing.serving_default"]
    assert plumbing.inputs == {"unused": "unused", "x": "x"}
    assert plumbing.outputs == {
        "constant": "constant", "once": "once", "passed": "passed", "twice": "twice", "x": "x_2", "y é/:0": "y é/:0",
    }  # fmt: skip
    assert {i.name for i in open_session(plumbing).get_inputs()} == {"unused", "x"}


@pytest.mark.slow
def test_random_inputs_are_sensible(corners: dict[str, ExportedSignature]) -> None:
    """Integers stay below what the model accepts, each input by its own range; strings meet the table; no NaN."""
    ids = np.concatenate([case.inputs["ids"].ravel() for case in corners["tokens.serving_default"].cases])
    types = np.concatenate([case.inputs["types"].ravel() for case in corners["tokens.serving_default"].cases])
    assert 10 < ids.max() < 50
    assert set(types.tolist()) == {0, 1}
    keys = {key for case in corners["string_table.serving_default"].cases for key in case.inputs["key"].tolist()}
    assert keys & {b"cat", b"dog", "naïve".encode()}
    assert all(np.isfinite(case.outputs["y"]).all() for case in corners["positive.serving_default"].cases)


@pytest.mark.slow
def test_batches_and_lengths(corners: dict[str, ExportedSignature]) -> None:
    """Batches 1, 2 and 5 where all inputs have a dynamic first dimension, else two cases; two lengths if dynamic."""
    tokens = corners["tokens.serving_default"].cases
    assert [case.batch for case in tokens] == [1, 2, 5]
    assert [case.inputs["ids"].shape[0] for case in tokens] == [1, 2, 5]
    assert len({case.inputs["ids"].shape[1] for case in tokens}) == 2
    fixed = corners["ranks.fixed"].cases
    assert [case.batch for case in fixed] == [None, None]
    assert not np.array_equal(fixed[0].inputs["x"], fixed[1].inputs["x"])
    assert len({case.inputs["x"].shape for case in corners["ranks.unknown"].cases}) == 2
    rows = corners["linear.serving_default"].cases[2].inputs["x"]
    assert len(np.unique(rows, axis=0)) == 5


@pytest.mark.slow
def test_variables_are_found(export: Exporter) -> None:
    """Kernels are found through transpositions, shared variables in each graph, equal ones by their names."""
    result = export("corners")
    names = [signature.name for signature in result.signatures]
    held = {(names[one.onnx], variable.name): one for one in result.initializers for variable in one.variables}
    kernel = held["convolution.serving_default", "last/kernel"]
    assert (kernel.transposition, kernel.reshaped) == ((3, 2, 0, 1), False)
    assert kernel.variables[0].shape == (2, 2, 32, 40)
    for name in ("shared.embed", "shared.serving_default"):
        assert held[name, "first/kernel"].transposition == ()
    biases = [held["shared.serving_default", f"{layer}/bias"] for layer in ("first", "second")]
    assert all(bias.variables[0].name.split("/")[0] in bias.initializer or len(bias.variables) == 2 for bias in biases)
    trainable = {variable.name: variable.trainable for one in result.initializers for variable in one.variables}
    assert trainable["first/bias"]
    assert not trainable["second/bias"]


@pytest.mark.slow
def test_no_variable_is_folded_away(export: Exporter) -> None:
    """Batch normalisation stays a layer of its own beside its convolution, so that both keep their variables."""
    assert export("corners").unmapped_variables == ()


@pytest.mark.slow
def test_initializers_equal_their_variables(export: Exporter) -> None:
    """What the map says is checkable: the initializer has the variable's shape after the transposition named."""
    result = export("corners")
    models = [onnx.load(signature.onnx) for signature in result.signatures]
    for one in result.initializers:
        shapes = {tensor.name: tuple(tensor.dims) for tensor in models[one.onnx].graph.initializer}
        for variable in one.variables:
            order = one.transposition or range(len(variable.shape))
            moved = tuple(variable.shape[axis] for axis in order)
            assert one.reshaped == (moved != shapes[one.initializer])


@pytest.mark.slow
@pytest.mark.parametrize("lean_bytes", [0, 1 << 30])
@pytest.mark.parametrize("name", ["gru.keras", "keras_2.h5"])
def test_keras_files(export: Exporter, name: str, lean_bytes: int) -> None:
    """Keras 3 and Keras 2 files are exported with dynamic batch and length, masking and recurrence included."""
    result = export(name, lean_bytes=lean_bytes)
    assert result.saved_model is not None
    assert (result.saved_model / "saved_model.pb").is_file()
    signature = _by_name(result)["serving_default"]
    require_golden(signature)
    (graph_input,) = onnx.load(signature.onnx).graph.input
    assert _dimensions(graph_input)[:2] == ["batch", "input0_dim1"]


@pytest.mark.slow
def test_masked_steps(export: Exporter) -> None:
    """Masked steps of a user's series are left out in the export as in Keras."""
    rng = np.random.default_rng(0)
    series = rng.standard_normal((4, 9, 6)).astype(np.float32)
    series[0, 5:] = 0.0
    series[1, 1:] = 0.0
    sample = SampleInputs("serving_default", "inputs file", {"series": series})
    signature = _by_name(export("gru.keras", samples=(sample,), signatures=("serving_default",)))["serving_default"]
    assert [case.origin for case in signature.cases] == ["inputs file"] * 4
    require_golden(signature)


@pytest.mark.slow
def test_version_1(export: Exporter) -> None:
    """A TensorFlow 1 SavedModel keeps its aliases; the other signature, which cannot be exported, does not matter."""
    (signature,) = export("version_1", signatures=("predict images",)).signatures
    assert signature.inputs == {"größe": "größe", "in put/a:0": "in put/a:0"}
    assert signature.outputs == {"in": "in", "out:0": "out:0"}
    require_golden(signature)
    mapped = [variable.name for one in export("version_1", signatures=("predict images",)).initializers
              for variable in one.variables]  # fmt: skip
    assert mapped == ["layer/kernel"]


@pytest.mark.slow
def test_users_samples_become_batches(export: Exporter) -> None:
    """Rows of the user's file make the golden batches, distinct as far as there are rows, going around after."""
    rows = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]], np.float32)
    samples = (
        SampleInputs("serving_default", "inputs file", {"x": rows}),
        SampleInputs("serving_default", "warm-up", {"x": np.zeros((1, 4), np.float32)}),
    )
    (signature,) = export("picky", samples=samples).signatures
    assert [(case.origin, case.batch) for case in signature.cases] == [("inputs file", size) for size in (1, 2, 5)]
    assert signature.cases[1].inputs["x"].tolist() == [rows[1].tolist(), rows[2].tolist()]
    require_golden(signature)


@pytest.mark.slow
def test_stale_warm_up_falls_back(export: Exporter) -> None:
    """Warm-up records that do not fit the signature any more do not stop a conversion."""
    samples = (SampleInputs("serving_default", "warm-up", {"old": np.zeros((1, 3), np.float32)}),)
    (signature,) = export("linear", samples=samples).signatures
    assert {case.origin for case in signature.cases} == {"random"}


@pytest.mark.slow
def test_same_seed_same_cases(export: Exporter) -> None:
    """Golden inputs depend on the seed and on nothing else."""
    first = export("linear").signatures[0].cases
    again = export("linear", opset=17).signatures[0].cases
    other = export("linear", seed=1).signatures[0].cases
    assert np.array_equal(first[2].inputs["x"], again[2].inputs["x"])
    assert not np.array_equal(first[2].inputs["x"], other[2].inputs["x"])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", pytest.param("gelu_new", marks=pytest.mark.prove)])
def test_small_vision_transformer(export: Exporter, tmp_path: Path, activation: str) -> None:
    """Transformers' ViT, small, with exact and with approximate GELU: same answers, and every parameter found."""
    config = (
        "hidden_size=96",
        "num_hidden_layers=2",
        "num_attention_heads=4",
        "intermediate_size=192",
        "image_size=64",
    )
    folder = tmp_path / activation
    command = [sys.executable, "-m", "tests.models.vit", str(folder), activation, *config]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for lean_bytes in (0, 1 << 30):
        result = export(str(folder), lean_bytes=lean_bytes)
        require_golden(result.signatures[0], 5e-6)
        assert result.unmapped_variables == ()
        operators = [node.op_type for node in onnx.load(result.signatures[0].onnx).graph.node]
        assert "GlobalAveragePool" not in operators


@pytest.mark.slow
def test_what_the_worker_imports() -> None:
    """The worker has neither the contracts, nor torch, nor gRPC, and nothing of the server but its arrays."""
    code = "import sys, converter.worker.run, converter.worker.keras_source; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "tensorflow" in modules
    assert not {"protos", "torch", "grpc", "onnxruntime"} & {module.partition(".")[0] for module in modules}
    assert {module for module in modules if module.startswith("server.")} == {"server.arrays"}
    assert {m for m in modules if m.startswith("converter.")} == {
        m for m in modules if m.startswith("converter.worker")
    }
