"""The states of a model version, as a table. Whatever changes a version's state goes through `VersionStatus.moved`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from server.errors import SegueError


class State(IntEnum):
    """The numbers are those of tensorflow.serving.ModelVersionStatus.State."""

    START = 10
    """Found in the repository; nothing has been read yet."""
    LOADING = 20
    """Being verified, loaded and proved."""
    AVAILABLE = 30
    """Answers requests."""
    UNLOADING = 40
    """Takes no new requests; those under way are being finished."""
    END = 50
    """Gone, or failed: then the status carries the error."""


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.START: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.AVAILABLE, State.END}),
    State.AVAILABLE: frozenset({State.UNLOADING}),
    State.UNLOADING: frozenset({State.END}),
    State.END: frozenset({State.START}),
}


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """Where a version stands; `error` is set only in END, if that is where a failure has led."""

    version: int
    state: State = State.START
    error: SegueError | None = None

    def moved(self, state: State, error: SegueError | None = None) -> "VersionStatus":
        """The status after a transition.

        Raises:
            ValueError: the table has no such transition.
        """
        if state not in TRANSITIONS[self.state]:
            msg = f"version {self.version} cannot go from {self.state.name} to {state.name}"
            raise ValueError(msg)
        return replace(self, state=state, error=error)
