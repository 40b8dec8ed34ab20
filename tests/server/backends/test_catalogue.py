"""Promises of server.backends.catalogue."""

from pathlib import Path

import pytest

from server.backends import catalogue
from server.backends.catalogue import FAMILIES, offered
from server.backends.interface import Precision
from server.errors import InvalidRequest


def names(words: str, precision: str = "fp32") -> list[str]:
    """Of the backends on offer."""
    offer = offered(words, precision, device="cpu", threads=1, cache=Path("/nowhere"))
    return [backend.name for backend in offer.backends]


def test_onnx_runtime_answers_first_unless_told_otherwise() -> None:
    """It is there at once; whoever names an order gets that."""
    assert names("auto")[0] == "onnxruntime-cpu"
    assert names("onnxruntime") == ["onnxruntime-cpu"]
    pytest.importorskip("openvino")
    assert names("openvino, onnxruntime") == ["openvino-cpu", "onnxruntime-cpu"]


def test_what_is_not_installed_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; where nothing is left that is an error."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    offer = offered("auto", "fp32", device="cpu", threads=0, cache=Path("/nowhere"))
    assert [backend.name for backend in offer.backends] == ["onnxruntime-cpu"]
    assert set(offer.absent) == set(FAMILIES) - {"onnxruntime", "tensorrt"}
    assert "pip install 'segue-serving[openvino]'" in offer.absent["openvino"]
    with pytest.raises(InvalidRequest, match="openvino is not installed"):
        names("openvino")


def test_a_precision_is_offered_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated arithmetic would only be slow; float32 is always there, and never alone replaced."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(catalogue, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    assert "openvino-cpu-bf16" in names("auto", "bf16")
    assert "openvino-cpu-bf16" in names("auto", "fastest")
    assert "openvino-cpu-bf16" not in names("auto", "fp32")
    assert "openvino-cpu" in names("auto", "bf16")
    monkeypatch.setattr(catalogue, "processor_flags", frozenset)
    offer = offered("auto", "fastest", device="cpu", threads=0, cache=Path("/nowhere"))
    assert "openvino-cpu-bf16" not in [backend.name for backend in offer.backends]
    assert offer.absent["openvino bf16"] == "this processor has no bf16 arithmetic"


@pytest.mark.parametrize("family", ["onnxruntime", "tensorrt"])
def test_tf32_is_offered_on_a_gpu_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """As a candidate beside float32, which stays exact; a processor has nothing like it."""
    monkeypatch.setattr(catalogue, "_is_there", lambda _library: True)
    offers = {
        precision: offered(family, precision, device="cuda", threads=1, cache=Path("/nowhere")).backends
        for precision in ("fp32", "tf32", "bf16", "fp16", "fastest")
    }
    allowing = {name for name, backends in offers.items() if any(b.precision is Precision.TF32 for b in backends)}
    assert allowing == {"tf32", "fastest"}
    assert [backend.precision for backend in offers["tf32"]] == [Precision.FP32, Precision.TF32]
    assert offers["tf32"][1].name == f"{offers['fp32'][0].name}-tf32"
    assert names("onnxruntime", "tf32") == ["onnxruntime-cpu"]


@pytest.mark.parametrize(
    ("words", "precision", "text"), [("tensorflow", "fp32", "onnxruntime"), ("auto", "int8", "bf16")]
)
def test_unknown_words_are_refused_with_the_known_ones(words: str, precision: str, text: str) -> None:
    """A typing error is no silent fallback."""
    with pytest.raises(InvalidRequest, match=text):
        names(words, precision)
