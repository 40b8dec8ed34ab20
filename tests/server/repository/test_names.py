"""Tests of `server.repository.names`."""

import pytest

from server.errors import InvalidName
from server.repository.names import check_model_name, is_model_name, parse_version


@pytest.mark.parametrize("name", ["a", "basic-pitch", "Model_1.2", "x" * 128, "1"])
def test_ordinary_names_pass(name: str) -> None:
    """Names that TensorFlow Serving's users have are kept as they are."""
    assert check_model_name(name) == name
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "é", "a\n", "x" * 129, "a\0"])
def test_names_that_could_leave_the_repository_are_refused(name: str) -> None:
    """A name never becomes a path outside the repository or a hidden folder."""
    assert not is_model_name(name)
    with pytest.raises(InvalidName, match="cannot be a model's name"):
        check_model_name(name)


def test_versions_are_positive_int64_without_decoration() -> None:
    """Each version number has exactly one folder name."""
    assert parse_version("1") == 1
    assert parse_version(str(2**63 - 1)) == 2**63 - 1
    for folder in ("0", "-1", "01", "1.0", " 1", "1 ", "one", "", str(2**63), "\uff11"):
        assert parse_version(folder) is None
