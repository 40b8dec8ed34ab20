"""Tests of `server.lifecycle.states`."""

import itertools

import pytest

from protos.serving import model_service_pb2
from server.errors import RunFailed
from server.lifecycle.states import TRANSITIONS, State, VersionStatus


def test_numbers_are_tensorflow_servings() -> None:
    """Clients compare states by number."""
    theirs = {v.name: v.number for v in model_service_pb2.ModelVersionStatus.State.DESCRIPTOR.values if v.number}
    assert {state.name: state.value for state in State} == theirs


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_only_the_table_moves_versions(old: State, new: State) -> None:
    """A version takes the transitions in the table and no other."""
    status = VersionStatus(1, old)
    if new in TRANSITIONS[old]:
        assert status.moved(new) == VersionStatus(1, new)
    else:
        with pytest.raises(ValueError, match=f"cannot go from {old.name} to {new.name}"):
            status.moved(new)


def test_starting_again_forgets_the_error() -> None:
    """A version that is tried again no longer reports why it failed before."""
    failed = VersionStatus(1, State.LOADING).moved(State.END, RunFailed("broken"))
    assert failed.error is not None
    assert failed.moved(State.START).error is None
