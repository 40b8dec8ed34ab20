"""Tests of `benchmarks.casting`: why bfloat16 is autocast."""

import json

from benchmarks import casting

RESULT = json.loads(casting.RESULT.read_text("utf-8"))


def test_the_document_has_the_figures() -> None:
    """What docs/pytorch.md says was measured."""
    text = casting.DOCUMENT.read_text("utf-8")
    assert casting.render(text, RESULT) == text


def test_casting_everything_is_not_better() -> None:
    """It is less exact, and hardly faster at any batch size: were it otherwise, the server should do it."""
    assert RESULT["rms_error"]["autocast"] < RESULT["rms_error"]["cast"]
    assert all(figures["cast_gains"][0] < 1.05 for figures in RESULT["batches"].values())
