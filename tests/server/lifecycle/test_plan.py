"""Tests of `server.lifecycle.plan`."""

from hypothesis import given
from hypothesis import strategies as st

from server.errors import RunFailed
from server.lifecycle.plan import Step, next_step
from server.lifecycle.states import State, VersionStatus

BROKEN = RunFailed("broken")


def available(*versions: int) -> dict[int, VersionStatus]:
    """Versions that serve."""
    return {version: VersionStatus(version, State.AVAILABLE) for version in versions}


def failed(*versions: int) -> dict[int, VersionStatus]:
    """Versions that did not load."""
    return {version: VersionStatus(version, State.END, BROKEN) for version in versions}


def test_the_latest_version_is_loaded_first() -> None:
    """A new server loads one version per model, the highest."""
    assert next_step({1, 2, 10}, {}, lambda _: True) == Step(load=10)


def test_the_old_version_goes_after_the_new_one_serves() -> None:
    """There is no moment without a version."""
    assert next_step({1, 2}, available(1), lambda _: True) == Step(load=2)
    assert next_step({1, 2}, available(1, 2), lambda _: True) == Step(retire=(1,))
    assert next_step({1, 2}, available(2) | {1: VersionStatus(1, State.END)}, lambda _: True) is None


def test_a_failed_version_leaves_the_old_one_serving() -> None:
    """A failed load changes nothing for clients, even if the old folder is gone."""
    assert next_step({1, 2}, available(1) | failed(2), lambda _: True) is None
    assert next_step({2}, available(1) | failed(2), lambda _: True) is None


def test_a_failed_version_is_tried_again_when_its_files_change() -> None:
    """A copy that was under way when it was first read is loaded once it is whole."""
    assert next_step({1, 2}, available(1) | failed(2), lambda _: False) == Step(load=2)


def test_beside_a_damaged_version_the_next_lower_is_loaded() -> None:
    """A server that restarts beside a damaged version serves what it served before."""
    assert next_step({1, 2}, failed(2), lambda _: True) == Step(load=1)


def test_removing_the_folders_ends_the_model() -> None:
    """A model whose versions are all removed is unloaded."""
    assert next_step(set(), available(1), lambda _: True) == Step(retire=(1,))
    assert next_step(set(), {}, lambda _: True) is None


def test_removing_the_latest_goes_back() -> None:
    """Deleting a bad version is a rollback: the one below is loaded before the bad one is let go."""
    ended = available(2) | {1: VersionStatus(1, State.END)}
    assert next_step({1}, ended, lambda _: True) == Step(load=1)
    assert next_step({1}, available(1, 2), lambda _: True) == Step(retire=(2,))


@given(st.sets(st.integers(1, 8)), st.sets(st.integers(1, 8)))
def test_steps_end_at_one_version_without_a_gap(folders: set[int], broken: set[int]) -> None:
    """From any start the steps end, with the highest sound version alone, and never unload the last before that."""
    statuses: dict[int, VersionStatus] = {}
    for _ in range(20):
        step = next_step(folders, statuses, lambda _: True)
        if step is None:
            break
        if step.load is not None:
            statuses |= failed(step.load) if step.load in broken else available(step.load)
        for version in step.retire:
            statuses[version] = VersionStatus(version, State.END)
    serving = {v for v, status in statuses.items() if status.state is State.AVAILABLE}
    assert serving == ({max(folders - broken)} if folders - broken else set())
