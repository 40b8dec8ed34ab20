"""Tests of `benchmarks.readme`: what README says was measured."""

import pytest

from benchmarks import readme


def test_readme_says_what_was_measured() -> None:
    """Every figure is that of the newest result."""
    text = readme.DOCUMENT.read_text("utf-8")
    assert readme.render(text) == text


def test_a_figure_needs_a_place() -> None:
    """A document that lost a place is not silently left without its figure."""
    with pytest.raises(ValueError, match="no place for conversion"):
        readme.render("# Segue")
