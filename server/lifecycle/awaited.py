"""What whoever puts a configuration into force waits for. The manager holds its lock around every use."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.errors import ReloadSuperseded
from server.lifecycle.plan import ModelPolicy
from server.lifecycle.record import ModelRecord
from server.lifecycle.states import State, VersionStatus


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration that was put into force: its number, and the models that nothing served before."""

    number: int
    new: Mapping[str, ModelPolicy]


def left_out(
    reload: Reload, policies: Mapping[str, ModelPolicy], models: Mapping[str, ModelRecord]
) -> dict[str, VersionStatus]:
    """The awaited models that will not come, since a newer configuration wants other versions of them, or none.

    Args:
        reload: What is waited for.
        policies: Those in force.
        models: What is known of each.

    Returns:
        What to say of each: the highest version that was seen, or 0.
    """
    gone = {}
    for name, wanted in reload.new.items():
        policy = policies.get(name)
        if policy is None or not policy.may_agree_with(wanted):
            seen = models[name].statuses if name in models else {}
            error = ReloadSuperseded("another configuration has left it out")
            gone[name] = VersionStatus(max(seen, default=0), State.END, error)
    return gone
