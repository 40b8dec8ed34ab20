"""Tests of `server.lifecycle.labels`."""

import pytest

from server.errors import InvalidRequest, LabelPending, LabelUnavailable
from server.lifecycle import labels
from server.lifecycle.plan import ModelPolicy

STABLE_2 = {"m": ModelPolicy(labels={"stable": 2})}
TEXT = "^Request to assign label to version 2 of model m, which is not currently available for inference$"


def test_a_label_goes_to_an_available_version_only() -> None:
    """The text is TensorFlow Serving's."""
    labels.check(STABLE_2, {}, {"m": {1, 2}}, early=False)
    for available in ({}, {"m": {1}}, {"other": {2}}):
        with pytest.raises(LabelUnavailable, match=TEXT):
            labels.check(STABLE_2, {}, available, early=False)


def test_early_labels_are_for_labels_that_no_other_version_has() -> None:
    """Traffic is never moved to a version that cannot take it, whatever the flag says."""
    labels.check(STABLE_2, {}, {}, early=True)
    labels.check(STABLE_2, {"m": {"stable": 2}}, {}, early=True)
    with pytest.raises(LabelUnavailable, match=TEXT):
        labels.check(STABLE_2, {"m": {"stable": 1}}, {}, early=True)


def test_a_label_waits_for_its_version_and_then_keeps_it() -> None:
    """At the start nothing is available; later a version that goes does not take its label with it."""
    none = labels.assign(STABLE_2, {}, {}, early=False)
    assert none == {"m": {}}
    assert labels.pending(STABLE_2, none) == [("m", "stable", 2)]
    assigned = labels.assign(STABLE_2, none, {"m": {2}}, early=False)
    assert assigned == {"m": {"stable": 2}}
    assert labels.pending(STABLE_2, assigned) == []
    assert labels.assign(STABLE_2, assigned, {}, early=False) == assigned
    assert labels.assign(STABLE_2, {}, {}, early=True) == assigned


def test_a_label_that_is_configured_no_more_is_forgotten() -> None:
    """A configuration supersedes the one before."""
    assert labels.assign({"m": ModelPolicy()}, {"m": {"stable": 2}}, {"m": {2}}, early=False) == {}


def test_texts_of_labels_that_name_nothing() -> None:
    """Unknown labels are the client's error; one that is being loaded at the start is worth another try."""
    assert labels.version_of("m", "stable", {"m": {"stable": 2}}, STABLE_2) == 2
    for name, label in (("m", "nope"), ("nope", "stable")):
        with pytest.raises(InvalidRequest, match=f"^Unrecognized servable version label: {label}$"):
            labels.version_of(name, label, {"m": {}}, STABLE_2, starting=True)
    with pytest.raises(LabelPending, match=r"^Model labels does not init yet\.stable$"):
        labels.version_of("m", "stable", {"m": {}}, STABLE_2, starting=True)
    with pytest.raises(InvalidRequest, match=r"^Unrecognized servable version label: stable$"):
        labels.version_of("m", "stable", {"m": {}}, STABLE_2)
