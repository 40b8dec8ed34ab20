"""What a lane asks of a policy, beyond choosing. No policy here."""

from collections.abc import Sequence
from typing import Any, Protocol

from server.selection.interface import Policy
from server.selection.states import State


class Chooser(Policy, Protocol):
    """A policy that operators can overrule, and that remembers."""

    def stage(self, backend: str, state: State, reason: str = "") -> None:
        """A backend takes no part yet, or never will."""

    def pin(self, order: Sequence[str] | None) -> None:
        """Prefer these backends, in this order; None chooses freely again."""

    def export(self, now: float) -> dict[str, Any]:
        """What is known, for `restore`: plain JSON."""

    def restore(self, data: object, now: float) -> None:
        """Begin with what was known before; raises ValueError if that is not what `export` gives."""

    def snapshot(self, now: float) -> dict[str, Any]:
        """What is known, for people: plain data."""

    def has_no_inputs(self, bucket: int) -> None:
        """There are no golden inputs for what `idle` wanted."""

    def disturbed(self, seconds: float) -> None:
        """What `idle` wanted was run, but beside a request."""
