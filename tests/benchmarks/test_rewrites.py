"""What the rewrites gain is told as it was measured, and each of them gains something."""

from typing import Any

import pytest

from benchmarks.rewrites import DOCUMENT, MODELS, NOT_MEASURED, measured, nodes_saved, render, table, times_faster
from converter.graph.pipeline import REWRITES

NAMES = [one.name for one in REWRITES]
NOISE = 1.02
"""Times faster that a rewrite must be, if it saves no node: medians of the same graph differ by less."""
MARKED = "before\n<!-- rewrites: begin -->\n{}\n<!-- rewrites: end -->\nafter\n"


def row(model: str, *, without_gelu: tuple[int, float], compiled: bool = False) -> dict[str, Any]:
    """A model of 90 nodes, 50 of them left by all rewrites, which make it twice as fast."""
    nodes, times = without_gelu
    figures = {
        key: {"milliseconds": 100 / gain, "times_exported": gain}
        for key, gain in {"exported": 1.0, "all": 2.0, "gelu": times}.items()
    }
    times_by = {"onnxruntime": figures} | ({"pytorch": figures} if compiled else {})
    counts = {"exported": 90, "all": 50, "gelu": nodes}
    return {"model": model, "batch": 4, "applied": {"gelu": 1}, "nodes": counts, **times_by}


def test_a_gain_is_that_of_all_rewrites_beside_all_but_one() -> None:
    """Nodes are counted against the graph without the one; so is time; the model that gains most is first."""
    rows = [row("small", without_gelu=(57, 1.6)), row("large", without_gelu=(74, 1.9))]
    assert nodes_saved(rows, "gelu") == [(24, "large"), (7, "small")]
    gains = {model: gain for gain, model in times_faster(rows, "gelu", "onnxruntime")}
    assert list(gains) == ["small", "large"]
    assert gains == pytest.approx({"small": 1.25, "large": 2 / 1.9})
    assert nodes_saved(rows, "attention") == times_faster(rows, "gelu", "pytorch") == []


def test_each_rewrite_has_a_line_and_each_model_too() -> None:
    """One table by rewrite, with the model where it gains most, then one by model for each runtime."""
    rows = [row("small", without_gelu=(57, 1.6)), row("large", without_gelu=(74, 1.9), compiled=True)]
    lines = table(rows).splitlines()
    assert "| `gelu` | 24 (large) | 1.25x (small) | 1.05x (large) |" in lines
    assert "| `attention` |  |  |  |" in lines
    assert sum(line.startswith("| `") for line in lines) == len(NAMES)
    assert sum(line.startswith("| small (4) | 90 nodes, 100.0 ms | 50, 2.00x |") for line in lines) == 1
    assert sum(line.startswith("| large (4) | 90 nodes, 100.0 ms | 50, 2.00x |") for line in lines) == 2


def test_the_tables_take_the_place_of_those_before() -> None:
    """Rendering twice is rendering once, and nothing else of the document is touched."""
    rows = [row("small", without_gelu=(57, 1.6))]
    once = render(MARKED.format("an older table"), rows)
    assert once == MARKED.format(table(rows)) == render(once, rows)
    assert render(once, []) == MARKED.format(NOT_MEASURED)


def test_the_document_is_made_of_the_results() -> None:
    """The published tables are those of the JSON; without one the document says that nothing was measured."""
    text = DOCUMENT.read_text("utf-8")
    assert render(text, measured()) == text


@pytest.mark.skipif(not measured(), reason="benchmarks.rewrites has not been run on a quiet machine yet")
def test_every_model_was_measured() -> None:
    """No model is left out of the results, and none is there twice."""
    assert sorted(one["model"] for one in measured()) == sorted(name.removesuffix(".keras") for name in MODELS)


@pytest.mark.skipif(not measured(), reason="benchmarks.rewrites has not been run on a quiet machine yet")
@pytest.mark.parametrize("name", NAMES)
def test_each_rewrite_gains_nodes_or_time(name: str) -> None:
    """A rewrite that saves no node and no time on any model has no place in the list."""
    rows = measured()
    times = [*times_faster(rows, name, "onnxruntime"), *times_faster(rows, name, "pytorch")]
    assert any(count > 0 for count, _ in nodes_saved(rows, name)) or any(gain > NOISE for gain, _ in times)
