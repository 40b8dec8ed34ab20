"""Tests of `server.lifecycle.plan`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RunFailed
from server.lifecycle.plan import DEFAULT_POLICY, ModelPolicy, Step, next_step
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


def test_several_latest_versions_are_the_highest_that_load() -> None:
    """A damaged version is passed over however many are wanted; the surplus goes last."""
    two = ModelPolicy.latest(2)
    assert next_step({1, 2, 3}, {}, lambda _: True, two) == Step(load=3)
    assert next_step({1, 2, 3}, available(3), lambda _: True, two) == Step(load=2)
    assert next_step({1, 2, 3}, available(2, 3), lambda _: True, two) is None
    assert next_step({1, 2, 3}, available(3) | failed(2), lambda _: True, two) == Step(load=1)
    assert next_step({1, 2, 3, 4}, available(2, 3), lambda _: True, two) == Step(load=4)
    assert next_step({1, 2, 3, 4}, available(2, 3, 4), lambda _: True, two) == Step(retire=(2,))


def test_latest_without_a_number_is_one() -> None:
    """TensorFlow Serving reads an empty latest{} as one version, and so is the default."""
    assert ModelPolicy.latest(0) == ModelPolicy.latest(1) == DEFAULT_POLICY


def test_all_serves_whatever_is_there() -> None:
    """Every version is loaded; one that is damaged costs nothing but itself; one whose folder is gone is let go."""
    policy = ModelPolicy.all()
    assert next_step({1, 2, 3}, available(3), lambda _: True, policy) == Step(load=2)
    assert next_step({1, 2, 3}, available(1, 3) | failed(2), lambda _: True, policy) is None
    assert next_step({3}, available(1, 3), lambda _: True, policy) == Step(retire=(1,))


def test_another_package_under_a_serving_number_is_loaded_in_its_place() -> None:
    """It is loaded beside the one that serves, also if a lower version serves too."""
    assert next_step({1, 2}, available(1, 2), lambda _: True, ModelPolicy.all(), {2}) == Step(load=2)
    assert next_step({1, 2}, available(2), lambda _: True, DEFAULT_POLICY, {2}) == Step(load=2)


def test_a_number_that_still_unloads_is_waited_for() -> None:
    """Its folder came back before the last request on the old version has ended."""
    unloading = {2: VersionStatus(2, State.UNLOADING)}
    assert next_step({2}, unloading, lambda _: True) is None
    assert next_step({1, 2}, available(1) | unloading, lambda _: True) is None


def test_specific_serves_these_and_no_others() -> None:
    """A newer version waits until the policy names it."""
    assert next_step({1, 2, 3}, {}, lambda _: True, ModelPolicy.specific([1, 2])) == Step(load=2)
    assert next_step({1, 2, 3}, available(1, 2), lambda _: True, ModelPolicy.specific([1, 2])) is None
    assert next_step({1, 2, 3}, available(1, 2), lambda _: True, ModelPolicy.specific([2])) == Step(retire=(1,))


def test_a_switch_between_specific_versions_has_no_gap() -> None:
    """The old version goes after the new one serves, and stays if the new one is missing or damaged."""
    policy = ModelPolicy.specific([2])
    assert next_step({1, 2}, available(1), lambda _: True, policy) == Step(load=2)
    assert next_step({1, 2}, available(1, 2), lambda _: True, policy) == Step(retire=(1,))
    assert next_step({1, 2}, available(1) | failed(2), lambda _: True, policy) is None
    assert next_step({1}, available(1), lambda _: True, policy) is None


def test_a_policy_that_names_no_version_ends_the_model() -> None:
    """An empty list of versions is an order, not an accident."""
    assert next_step({1}, available(1), lambda _: True, ModelPolicy.specific([])) == Step(retire=(1,))
    assert next_step({1}, {}, lambda _: True, ModelPolicy.specific([])) is None


VERSIONS = st.sets(st.integers(1, 8))
POLICIES = st.one_of(
    st.integers(0, 4).map(ModelPolicy.latest),
    st.just(ModelPolicy.all()),
    VERSIONS.map(ModelPolicy.specific),
)


def expected(policy: ModelPolicy, folders: set[int], broken: set[int]) -> set[int]:
    """The versions that shall serve in the end, if any can."""
    sound = sorted(folders - broken, reverse=True)
    wanted = [version for version in sound if policy.only is None or version in policy.only]
    return set(wanted[: policy.count])


@given(VERSIONS, VERSIONS, VERSIONS, POLICIES)
def test_steps_end_at_what_the_policy_wants_without_a_gap(
    serving: set[int], folders: set[int], broken: set[int], policy: ModelPolicy
) -> None:
    """From any start the steps end, with the sound versions wanted, and something serves all the time if it can."""
    broken -= serving
    statuses = available(*serving)
    for _ in range(30):
        step = next_step(folders, statuses, lambda _: True, policy)
        if step is None:
            break
        if step.load is not None:
            assert step.load in folders
            statuses |= failed(step.load) if step.load in broken else available(step.load)
        for version in step.retire:
            statuses[version] = VersionStatus(version, State.END)
        now = {v for v, status in statuses.items() if status.state is State.AVAILABLE}
        assert now or not serving or not folders or policy.wants_nothing(), "a gap"
    else:
        raise AssertionError("the steps do not end")
    in_the_end = {v for v, status in statuses.items() if status.state is State.AVAILABLE}
    kept = serving if folders and not policy.wants_nothing() else set()
    assert in_the_end == (expected(policy, folders, broken) or kept)


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (ModelPolicy(), ModelPolicy.all(), True),
        (ModelPolicy(), ModelPolicy.specific([3]), True),
        (ModelPolicy.specific([1, 2]), ModelPolicy.specific([2, 3]), True),
        (ModelPolicy.specific([1]), ModelPolicy.specific([2]), False),
        (ModelPolicy.specific([]), ModelPolicy.specific([]), True),
    ],
)
def test_policies_that_one_version_can_satisfy(one: ModelPolicy, other: ModelPolicy, *, agree: bool) -> None:
    """Nobody waits on for a version that the other policy rules out; equal policies never rule each other out."""
    assert one.may_agree_with(other) is other.may_agree_with(one) is agree
