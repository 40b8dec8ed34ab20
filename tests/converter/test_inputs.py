"""Tests of `converter.inputs`."""

from pathlib import Path

import numpy as np
import pytest

from converter.errors import InputsRejected
from converter.inputs import read_inputs
from server.arrays import save_arrays

ONE = {"serving_default": {"x", "y"}}
TWO = {"a": {"x"}, "b": {"x", "y"}}


def test_arrays_go_to_the_inputs_of_their_names(tmp_path: Path) -> None:
    """One array per alias, for every signature that has it."""
    np.savez(tmp_path / "i.npz", x=np.ones(2), y=np.zeros(2))
    (sample,) = read_inputs(tmp_path / "i.npz", ONE)
    assert (sample.signature, sample.origin, sorted(sample.inputs)) == ("serving_default", "inputs file", ["x", "y"])
    assert [sorted(s.inputs) for s in read_inputs(tmp_path / "i.npz", TWO)] == [["x"], ["x", "y"]]


def test_a_signatures_own_array_wins(tmp_path: Path) -> None:
    """SIGNATURE:ALIAS gives one signature another array than the others get."""
    save_arrays(tmp_path / "i.npz", {"x": np.ones(1), "y": np.ones(1), "b:x": np.zeros(3)})
    first, second = read_inputs(tmp_path / "i.npz", TWO)
    assert first.inputs["x"].shape == (1,)
    assert second.inputs["x"].shape == (3,)


def test_texts_become_tensorflows_strings(tmp_path: Path) -> None:
    """Numpy's fixed-width texts arrive as bytes, in UTF-8."""
    np.savez(tmp_path / "i.npz", x=np.array(["größe", "a"]), y=np.array([b"b\xff"]))
    (sample,) = read_inputs(tmp_path / "i.npz", ONE)
    assert sample.inputs["x"].tolist() == ["größe".encode(), b"a"]
    assert sample.inputs["y"].tolist() == [b"b\xff"]


def test_an_array_that_nothing_takes_is_named(tmp_path: Path) -> None:
    """A misspelt alias is not silently left out."""
    np.savez(tmp_path / "i.npz", x=np.ones(1), z=np.ones(1))
    with pytest.raises(InputsRejected, match=r"has z, which no signature takes \(serving_default: x, y\)"):
        read_inputs(tmp_path / "i.npz", ONE)


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04broken"])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A missing or damaged file is the user's to mend; the advice says how to write one."""
    if content is not None:
        (tmp_path / "i.npz").write_bytes(content)
    with pytest.raises(InputsRejected) as caught:
        read_inputs(tmp_path / "i.npz", ONE)
    assert "i.npz" in caught.value.cause
    assert "numpy.savez" in caught.value.advice
