"""Which version of a model a label names. Pure; rules and texts are those of TensorFlow Serving's server_core.cc.

With one exception: at the start labels wait for their versions, where TensorFlow Serving does not start.
"""

from collections.abc import Collection, Mapping

from server.errors import InvalidRequest, LabelPending, LabelUnavailable
from server.lifecycle.plan import ModelPolicy

Labels = Mapping[str, Mapping[str, int]]
"""Model to label to version."""


def check(
    policies: Mapping[str, ModelPolicy], labels: Labels, available: Mapping[str, Collection[int]], *, early: bool
) -> None:
    """Refuse a new configuration that gives a label to a version that is not available.

    Args:
        policies: the new configuration.
        labels: those in force.
        available: the versions that serve, by model.
        early: allow a label that no other version has to be given before its version is there.

    Raises:
        LabelUnavailable: naming the first such version.
    """
    for name, policy in policies.items():
        for label, version in policy.labels.items():
            unused = labels.get(name, {}).get(label) in {None, version}
            if version not in available.get(name, ()) and not (early and unused):
                raise LabelUnavailable(
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference"
                )


def assign(
    policies: Mapping[str, ModelPolicy], labels: Labels, available: Mapping[str, Collection[int]], *, early: bool
) -> Labels:
    """The labels that are in force from now on; for the arguments see `check`.

    A label waits until its version is available for the first time, and then has it whatever becomes of it.
    """
    return {
        name: {
            label: version
            for label, version in policy.labels.items()
            if early or version in available.get(name, ()) or labels.get(name, {}).get(label) == version
        }
        for name, policy in policies.items()
        if policy.labels
    }


def pending(policies: Mapping[str, ModelPolicy], labels: Labels) -> list[tuple[str, str, int]]:
    """Model, label and version of what still waits."""
    return [
        (name, label, version)
        for name, policy in policies.items()
        for label, version in policy.labels.items()
        if label not in labels[name]
    ]


def version_of(
    name: str, label: str, labels: Labels, policies: Mapping[str, ModelPolicy], *, starting: bool = False
) -> int:
    """The version that a label names.

    Args:
        name: the model.
        label: what the client asks for.
        labels: those in force.
        policies: those configured.
        starting: the server has not loaded yet what it shall serve.

    Raises:
        LabelPending: the label waits for its version since the server has started, which was a moment ago.
        InvalidRequest: there is no such label.
    """
    version = labels.get(name, {}).get(label)
    if version is not None:
        return version
    if starting and name in policies and label in policies[name].labels:
        raise LabelPending(f"Model labels does not init yet.{label}")
    raise InvalidRequest(f"Unrecognized servable version label: {label}")
