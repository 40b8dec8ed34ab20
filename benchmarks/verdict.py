"""What a benchmark must show: claims that hold or do not, in words and as an exit code. Pure but for the printing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, with the figure that decides it."""

    claim: str
    holds: bool

    def __str__(self) -> str:
        """As it is printed."""
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.claim}"


def tell(verdicts: Sequence[Verdict]) -> int:
    """Print every verdict; returns the exit code, 1 if one does not hold."""
    for verdict in verdicts:
        print(verdict)
    return 0 if all(verdict.holds for verdict in verdicts) else 1
