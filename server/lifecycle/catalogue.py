"""What requests are answered with: the versions that serve, and the labels in force.

Requests read a snapshot without a lock; whoever changes something replaces the snapshot as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.errors import ModelNotFound
from server.lifecycle.labels import Labels, assign, check, version_of
from server.lifecycle.plan import ModelPolicy
from server.lifecycle.servable import Servable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What holds at one moment."""

    available: Mapping[str, Mapping[int, Servable]] = field(default_factory=dict)
    labels: Labels = field(default_factory=dict)
    policies: Mapping[str, ModelPolicy] = field(default_factory=dict)


class Catalogue:
    """Finds the version that a request asks for."""

    def __init__(self, policies: Mapping[str, ModelPolicy], *, early_labels: bool) -> None:
        """Make a catalogue of nothing.

        Args:
            policies: those configured.
            early_labels: see `server.lifecycle.labels.assign`.
        """
        self._early_labels = early_labels
        self.now = Snapshot()
        self.replace({}, policies)
        self.starting = True
        """What shall be served at the start is not loaded yet."""

    def replace(self, available: Mapping[str, Mapping[int, Servable]], policies: Mapping[str, ModelPolicy]) -> None:
        """Put another snapshot in place. Not to be called by two threads at once.

        Args:
            available: the versions that serve, by model.
            policies: those configured.
        """
        in_force = assign(policies, self.now.labels, available, early=self._early_labels)
        self.now = Snapshot(available, in_force, policies)

    def check(self, policies: Mapping[str, ModelPolicy]) -> None:
        """See `server.lifecycle.labels.check`.

        Raises:
            LabelUnavailable: a label is given to a version that is not available.
        """
        check(policies, self.now.labels, self.now.available, early=self._early_labels)

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The version to answer with, leased: call its `release` when done.

        Args:
            name: the model.
            version: a version number, or None for the highest available.
            label: a version label, instead of a number.

        Raises:
            ModelNotFound: no such model or version is available; the texts are TensorFlow Serving's.
            InvalidRequest: the label is unknown.
            LabelPending: the label is known, but the server has only just begun to load.
        """
        while True:
            now = self.now
            wanted = version
            if label is not None:
                wanted = version_of(name, label, now.labels, now.policies, starting=self.starting)
            versions = now.available.get(name)
            chosen = wanted if wanted is not None else max(versions) if versions else None
            servable = versions.get(chosen) if versions and chosen is not None else None
            if servable is None:
                text = f"Latest({name})" if wanted is None else f"Specific({name}, {wanted})"
                raise ModelNotFound(f"Servable not found for request: {text}")
            if servable.lease():
                return servable
            # It began to close after the snapshot was read; the next snapshot lacks it already.
