"""The published comparison of backends is the one that was measured, and shows what it is said to show."""

import json
from typing import Any

import pytest

from benchmarks.backends.__main__ import RESULT, compare, surroundings
from benchmarks.backends.documents import render, short, show
from benchmarks.backends.judge import missed, verdicts

MEASURED: dict[str, Any] = json.loads(RESULT.read_text("utf-8"))
STATED = "batch 16: the best in fp32, "
"""What is known not to hold, and said in docs/backends.md."""


def result(rms: float = 1.0, **speeds: float) -> dict[str, Any]:
    """A result of one batch, from times as fast as TensorFlow; the native models are as fast as TensorFlow."""
    like_it = ("native_compiled", "native_compiled_bf16", "native_compiled_autocast_bf16")
    seconds = dict.fromkeys(["tensorflow", *like_it], 1.0)
    seconds |= {name: 1 / times for name, times in speeds.items()}
    samples = {name.replace("_", "-"): [value, 2 * value, 3 * value] for name, value in seconds.items()}
    errors = {"native-eager-bf16": {"largest": 1.0, "rms": 1.0}, "torch-cpu-bf16": {"largest": 1.0, "rms": rms}}
    return {"rounds": 3, "rows": [{"batch": 4, "contenders": compare(samples)}], "errors": errors, "absent": {}}


def test_the_documents_are_made_of_the_result() -> None:
    """docs/backends.md and README.md have the tables of the committed JSON, to the digit."""
    for path, text in render(MEASURED).items():
        assert text == path.read_text("utf-8"), path.name


def test_what_was_measured_holds_but_for_what_is_said() -> None:
    """Compiled modules as fast as native ones, bfloat16 as fast and as exact as promised; the one miss is published."""
    names = set(MEASURED["rows"][0]["contenders"])
    assert [row["batch"] for row in MEASURED["rows"]] == [1, 4, 16]
    assert {"tensorflow", "torch-cpu", "torch-cpu-bf16", "native-compiled", "native-compiled-bf16"} <= names
    assert {"openvino-cpu-bf16", "torch-cpu-bf16", "native-eager-bf16"} <= set(MEASURED["errors"])
    # for each batch: our two modules beside the native ones, bfloat16 alone, and the best of each precision
    assert len(verdicts(MEASURED)) >= 3 * 5 + 2
    misses = missed(MEASURED)
    assert all(claim.startswith(STATED) for claim in misses)
    text = show(MEASURED)
    assert text.count("**Missed.**") == len(misses)
    assert all(claim[1:] in text for claim in misses)


@pytest.mark.parametrize(
    ("missing", "speeds", "rms"),
    [
        ("", {"torch_cpu": 1.2, "torch_cpu_bf16": 2.0}, 1.25),
        ("torch-cpu is 0.97", {"torch_cpu": 0.97, "openvino_cpu": 1.2, "torch_cpu_bf16": 2.0}, 1.0),
        ("torch-cpu is 0.99", {"torch_cpu": 0.99, "openvino_cpu": 1.2, "torch_cpu_bf16": 2.0}, 1.0),
        ("torch-cpu-bf16 is 1.59", {"torch_cpu": 1.2, "torch_cpu_bf16": 1.59, "openvino_cpu_bf16": 2.0}, 1.0),
        ("the best in fp32, torch-cpu, is 1.09", {"torch_cpu": 1.09, "torch_cpu_bf16": 2.0}, 1.0),
        ("the best in bf16, torch-cpu-bf16, is 1.89", {"torch_cpu": 1.2, "torch_cpu_bf16": 1.89}, 1.0),
        ("torch-cpu-bf16 is 1.26", {"torch_cpu": 1.2, "torch_cpu_bf16": 2.0}, 1.26),
    ],
)
def test_each_aim_can_be_missed(missing: str, speeds: dict[str, float], rms: float) -> None:
    """A figure below its aim is the one claim that does not hold; an interval that stays below 1 is a miss, too."""
    misses = missed(result(rms, **speeds))
    assert len(misses) == bool(missing)
    assert all(missing in claim for claim in misses)


def test_what_ours_is_compared_with() -> None:
    """In bfloat16 with the native model both of cast weights and of autocast, each with a line of its own."""
    lines = show(result(torch_cpu=1.25, torch_cpu_bf16=2.0)).splitlines()
    assert "| torch-cpu / native-compiled | 1.25 (1.25-1.25) |" in lines
    assert "| torch-cpu-bf16 / native-compiled-bf16 | 2.00 (2.00-2.00) |" in lines
    assert "| torch-cpu-bf16 / native-compiled-autocast-bf16 | 2.00 (2.00-2.00) |" in lines


def test_the_short_table_has_the_fastest_in_bold() -> None:
    """One of each precision, and only backends that took part."""
    text = short(result(onnxruntime_cpu=1.1, openvino_cpu=1.3, torch_cpu_bf16=2.0))
    times = "\N{MULTIPLICATION SIGN}"
    assert text.splitlines() == [
        "| batch | TensorFlow | ONNX Runtime | OpenVINO | PyTorch, compiled, bf16 |",
        "|---|---|---|---|---|",
        f"| 4 | 2000 | 1818, 1.10{times} | **1538, 1.30{times}** | **1000, 2.00{times}** |",
    ]


def test_a_result_says_when_and_with_what() -> None:
    """The day, the libraries and the processor's flags are in a new result, and in the document's first line of it."""
    versions = {"torch": "2.0", "openvino": "1.0"}
    said = {"measured": "2026-01-02 03:04:05 UTC", "versions": versions, "flags": ["amx_bf16"]}
    first = show({**result(torch_cpu=1.2), **said}).splitlines()[0]
    assert first == (
        "Medians of 3 rounds, 2026-01-02 03:04:05 UTC, torch 2.0, openvino 1.0. Of the processor's flags: amx_bf16."
    )
    assert {"onnxruntime", "onnxruntime-gpu"} & set(surroundings()["versions"])
