"""How the start from a cache is told, and what must hold of it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cold_start import (
    DOCUMENT,
    NOT_MEASURED,
    artefacts,
    first_answer_seconds,
    measured,
    rejected,
    render,
    seconds_of,
    table,
    verdicts,
)

METRICS = """\
# TYPE segue_model_load_seconds gauge
segue_model_load_seconds{backend="torch-cpu",model="vit",version="1"} 5.0
# TYPE segue_model_prepare_seconds gauge
segue_model_prepare_seconds{backend="torch-cpu",model="vit",version="1"} 0.5
# TYPE segue_model_prove_seconds gauge
segue_model_prove_seconds{backend="torch-cpu",model="vit",version="1"} 4.0
# TYPE segue_requests gauge
segue_requests{backend="onnxruntime-cpu"} 4.0
"""
_EMPTY = {
    "backends": {"torch-cpu": {"prepare": 90.0, "load": 0.5, "prove": 4.0}},
    "answers": 88, "failures": [], "longest_answer_ms": 1321.4, "serving_seconds": 3.0,
}  # fmt: skip
_FILLED = {
    "backends": {"torch-cpu": {"prepare": 0.25, "load": 0.5, "prove": 4.0}},
    "answers": 6, "failures": [], "longest_answer_ms": 321.4, "serving_seconds": 3.0,
}  # fmt: skip
_SECONDS = {"read": 0.25, "prepare": 0.26, "load": 0.3, "first_run": 0.5, "next_run": 0.2}
RESULT: dict[str, Any] = {
    "machine": {"processor": "a processor", "cores": "2", "memory": "24 GiB"},
    "measured": "2026-01-02 03:04:05 UTC",
    "starts": {"empty": _EMPTY, "filled": _FILLED},
    "compiled": {"torch-cpu": {"bytes": 345_000_000, "torch": "2.0", "seconds": _SECONDS}},
}


def changed(*path: str, to: object) -> dict[str, Any]:
    """RESULT with another figure."""
    result = copy.deepcopy(RESULT)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return result


def test_the_sum_is_taken_apart() -> None:
    """Loading is what is left of the sum when preparing and proving are taken off; other metrics are not looked at."""
    assert seconds_of(METRICS) == {"torch-cpu": {"prepare": 0.5, "load": pytest.approx(0.5), "prove": 4.0}}


def test_the_first_answer_is_of_the_server_and_a_first_run() -> None:
    """Proving is not part of it, nor what another process took to prepare and load."""
    assert first_answer_seconds(RESULT, "torch-cpu") == pytest.approx(0.25 + 0.5 + 0.5)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RESULT, [True, True, True]),
        (changed("starts", "empty", "backends", "torch-cpu", "prepare", to=90.1), [False, True, True]),
        (changed("starts", "empty", "failures", to=["UNAVAILABLE"]), [True, False, True]),
        (changed("starts", "empty", "answers", to=0), [True, False, True]),
        (changed("starts", "filled", "backends", "torch-cpu", "load", to=0.51), [True, True, False]),
        (changed("compiled", "torch-cpu", "seconds", "first_run", to=0.51), [True, True, False]),
        (changed("compiled", "torch-cpu", "seconds", "read", to=0.24), [True, True, False]),
    ],
)
def test_each_limit_can_be_missed(result: dict[str, Any], expected: list[bool]) -> None:
    """The build's 90 s, answers without failures meanwhile, and 1 s besides reading the file."""
    told = verdicts(result)
    assert [verdict.holds for verdict in told] == expected
    assert table(result).count("**Missed.**") == expected.count(False)


def test_each_backend_and_compiled_form_has_a_line() -> None:
    """A start's backends with what was answered meanwhile; a file with its bytes and times; torch and the day."""
    lines = table(RESULT).splitlines()
    assert lines[2:4] == [
        "| empty | torch-cpu | 90.00 | 0.50 | 4.00 | 88 | 0 | 1321 |",
        "| filled | torch-cpu | 0.25 | 0.50 | 4.00 | 6 | 0 | 321 |",
    ]
    assert "| torch-cpu | 345 MB | 0.25 | 0.26 | 0.30 | 0.50 | 0.20 | 1.25 |" in lines
    assert lines[-1].startswith("a processor, 2 cores, 24 GiB, torch 2.0, 2026-01-02 03:04:05 UTC.")


def test_a_rejected_backend_is_told_with_its_reason() -> None:
    """Only one that is waited for, and only once it is rejected; a version without details has none."""
    backends = [
        {"name": "onnxruntime-cpu", "stage": "eligible", "reason": ""},
        {"name": "torch-cpu", "stage": "rejected", "reason": "there is no C++ compiler"},
        {"name": "openvino-cpu", "stage": "rejected", "reason": "refused"},
    ]
    assert rejected({"backends": backends}, {"onnxruntime-cpu", "torch-cpu"}) == ["torch-cpu: there is no C++ compiler"]
    assert rejected({}, {"torch-cpu"}) == []


@pytest.mark.parametrize(("precision", "name"), [("fp32", "torch-cpu"), ("bf16", "torch-cpu-bf16")])
def test_compiled_files_are_found_by_backend(tmp_path: Path, precision: str, name: str) -> None:
    """With the size of the file and the version of torch that made it."""
    folder = tmp_path / "torch" / "key"
    folder.mkdir(parents=True)
    (folder / "model.so").write_bytes(b"code")
    recipe = {"device": "cpu", "precision": precision, "torch": "2.0"}
    (folder / "artefact.json").write_text(json.dumps({"content": {"recipe": recipe}}))
    assert artefacts(tmp_path) == {name: {"library": folder / "model.so", "bytes": 4, "torch": "2.0"}}


def test_the_document_is_made_of_the_result() -> None:
    """The published tables are those of the JSON; without one the document says that nothing was measured."""
    text = DOCUMENT.read_text("utf-8")
    assert render(text, measured()) == text
    assert NOT_MEASURED in render(text, None)
    assert table(RESULT) in render(text, RESULT)


@pytest.mark.skipif(measured() is None, reason="benchmarks.cold_start has not been run on a quiet machine yet")
def test_what_was_measured_holds() -> None:
    """Both precisions were built and started, and every claim holds of the published result."""
    result = measured()
    assert result is not None
    assert {"torch-cpu", "torch-cpu-bf16"} <= set(result["compiled"])
    assert [verdict.claim for verdict in verdicts(result) if not verdict.holds] == []
