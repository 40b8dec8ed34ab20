"""What is made of measurements: tables, and whether they show what they must."""

from typing import Any

import pytest

from benchmarks.faster_path import __main__ as command
from benchmarks.faster_path.report import blind, losses, table, winners, wrong

BACKENDS = ("onnxruntime-cpu", "openvino-cpu", "torch-cpu")


def part(model: str, best: str, selected: str = "") -> dict[str, Any]:
    """A model in which one backend takes 10 ms and all others 20 ms."""
    alone = {name: [0.010 if name == best else 0.020] * 5 for name in BACKENDS}
    chosen = selected or best
    row = {"size": 4, "settled": True, "alone": alone, "chosen": alone[chosen], "selected": chosen}
    return {"model": model, "precision": "fp32", "absent": {}, "rows": [row]}


def all_three() -> dict[str, dict[str, Any]]:
    """A model for each backend, rightly chosen."""
    return {f"fp32/{name}": part(name, name) for name in BACKENDS}


def test_nothing_is_wrong_where_each_backend_wins_and_is_chosen() -> None:
    """Then every constant policy fails, and the table says by how much."""
    assert wrong(all_three()) == blind(all_three()) == []
    assert winners(all_three()) == {"onnxruntime", "openvino", "torch"}
    assert losses(all_three(), "fp32")["torch-cpu"] == [(2.0, "openvino-cpu, 4"), (2.0, "onnxruntime-cpu, 4")]
    text = table(all_three())
    assert "| onnxruntime-cpu | fp32 | 4 | **10** | 20 | 20 | onnxruntime-cpu | 10 | 1.00 (1.00-1.00) | yes |" in text
    assert "| fp32 | torch-cpu | 2 of 3 | 2.00 (openvino-cpu, 4); 2.00 (onnxruntime-cpu, 4) |" in text


def test_a_wrong_choice_is_told() -> None:
    """With what was selected, what is the fastest and what that costs."""
    (fault,) = wrong(all_three() | {"fp32/other": part("other", "torch-cpu", selected="openvino-cpu")})
    assert fault == (
        "fp32/other, 4: openvino-cpu was selected, torch-cpu is the fastest, served in 2.00 (2.00-2.00) times its time"
    )


def test_a_choice_that_has_not_settled_is_told() -> None:
    """In the table, beside the backend."""
    parts = {"fp32/one": part("one", "torch-cpu")}
    parts["fp32/one"]["rows"][0]["settled"] = False
    assert "| torch-cpu (not settled) |" in table(parts)


@pytest.mark.parametrize("best", BACKENDS)
def test_a_measurement_that_one_backend_wins_throughout_shows_nothing(best: str) -> None:
    """The policy that always answers by it is as good, and the others win nothing."""
    found = blind({"fp32/one": part("one", best), "fp32/two": part("two", best)})
    assert f"fp32: always answering by {best} is as good" in found
    assert len(found) == 3


def test_the_document_has_the_table_of_the_results() -> None:
    """Figures in the documents are those of a run, and of the last one."""
    text = command.DOCUMENT.read_text("utf-8")
    assert command.render(text, command.results()) == text
