"""Tests of `server.errors`."""

import re

import pytest

from server import errors
from server.services.statuses import STATUS_CODES, status_code, status_text

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SegueError)]
LEAVES = [kind for kind in CLASSES if not kind.__subclasses__()]


def test_the_docstring_draws_the_whole_tree() -> None:
    """Whoever reads the module's first lines knows every error there is."""
    drawn = set(re.findall(r"[A-Z]\w+(?=  |\n)", errors.__doc__ or ""))
    assert {kind.__name__ for kind in CLASSES} <= drawn


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_code(kind: type[errors.SegueError]) -> None:
    """No error of ours reaches a client as an unmapped failure."""
    assert any(ancestor in STATUS_CODES for ancestor in kind.__mro__[: kind.__mro__.index(errors.SegueError)])


ABSTRACT = [
    errors.SegueError,
    errors.Overloaded,
    errors.NotServed,
    errors.ReloadIncomplete,
    errors.PackageError,
    errors.BackendError,
]


@pytest.mark.parametrize("kind", ABSTRACT)
def test_abstract_errors_are_refused(kind: type[errors.SegueError]) -> None:
    """An error always names a situation."""
    with pytest.raises(TypeError, match="abstract"):
        kind("something")


def test_the_nearest_class_decides() -> None:
    """A subclass with its own code does not get its parent's."""
    assert status_code(errors.OutOfMemory("no memory")).name == "RESOURCE_EXHAUSTED"
    assert status_code(errors.RunFailed("broken")).name == "INTERNAL"
    assert status_code(errors.WrongRows("too few")).name == "FAILED_PRECONDITION"


def test_long_messages_are_cut_as_tensorflow_serving_cuts_them() -> None:
    """Messages travel in HTTP/2 headers, which have limits; 1,024 characters is TensorFlow Serving's."""
    assert status_text("a" * 1024) == "a" * 1024
    assert status_text("a" * 1025) == "a" * 1024 + "...TRUNCATED"
    assert status_text("ä" * 512) == "ä" * 512
    assert status_text("aä" * 512) == "aä" * 341 + "a...TRUNCATED"
