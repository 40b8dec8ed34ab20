"""The tree of errors."""

import pytest

from server.errors import InvalidRequest, MalformedRequest, MalformedResponse, MalformedTensor, SegueError


def test_the_root_names_no_situation() -> None:
    """Nobody can raise the root itself: every error says what the user's situation is."""
    with pytest.raises(TypeError, match="names no situation"):
        SegueError("something went wrong")


def test_the_tree() -> None:
    """A server answers both kinds of bad request alike by catching one class; a client's trouble is apart."""
    assert issubclass(MalformedRequest, InvalidRequest)
    assert issubclass(MalformedTensor, InvalidRequest)
    assert not issubclass(MalformedResponse, InvalidRequest)
    assert issubclass(InvalidRequest, SegueError)


def test_errors_carry_their_facts() -> None:
    """What the status text at the edge needs is there as attributes, not only inside a sentence."""
    error = MalformedTensor("x", "a dimension of size -1")
    assert (error.alias, error.reason) == ("x", "a dimension of size -1")
    assert str(error) == "tensor 'x': a dimension of size -1"
    assert str(MalformedRequest("it ends within a field")) == "not a PredictRequest: it ends within a field"
