"""How a command ends: its exit code, and what it says when it ends without success."""

import json
from dataclasses import dataclass
from enum import IntEnum

from rich.console import Console
from rich.markup import escape

from converter import errors
from server.errors import InvalidName, PackageError, ProofFailed, SegueError, SignatureNotFound


class ExitCode(IntEnum):
    """What a script can rely on."""

    DONE = 0
    BUG = 1
    USAGE = 2
    SOURCE = 3
    CONVERSION = 4
    INPUTS = 5
    DIFFERENT = 6
    REPOSITORY = 7
    NOT_DEPLOYED = 8
    SERVER = 9
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


# The nearest class in an error's ancestry decides.
EXIT_CODES: dict[type[Exception], ExitCode] = {
    errors.NotAModel: ExitCode.SOURCE,
    errors.UnloadableModel: ExitCode.SOURCE,
    errors.SignatureMissing: ExitCode.SOURCE,
    errors.InputsRejected: ExitCode.INPUTS,
    errors.OutputsDiffer: ExitCode.DIFFERENT,
    errors.NondeterministicModel: ExitCode.DIFFERENT,
    errors.DiskFull: ExitCode.REPOSITORY,
    errors.PackageMissing: ExitCode.REPOSITORY,
    errors.NotDeployed: ExitCode.NOT_DEPLOYED,
    errors.ServerRefused: ExitCode.SERVER,
    errors.ConversionError: ExitCode.CONVERSION,
    InvalidName: ExitCode.USAGE,
    PackageError: ExitCode.REPOSITORY,
    ProofFailed: ExitCode.DIFFERENT,
    SignatureNotFound: ExitCode.SOURCE,
    SegueError: ExitCode.CONVERSION,  # what the proof meets in the backend, beyond what it names
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is said of an end without success."""

    kind: str
    cause: str
    advice: str
    code: ExitCode


def failure_of(error: errors.ConversionError | SegueError) -> Failure:
    """What is said of an error."""
    code = next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    if isinstance(error, errors.ConversionError):
        return Failure(type(error).__name__, error.cause, error.advice, code)
    advice = error.advice if isinstance(error, PackageError) else ""
    return Failure(type(error).__name__, error.message, advice, code)


def say(failure: Failure, console: Console, *, as_json: bool) -> int:
    """Say it, for people and for programs; returns the exit code."""
    if as_json:
        error = {"kind": failure.kind, "cause": failure.cause, "advice": failure.advice}
        print(json.dumps({"error": error, "exit_code": failure.code}, indent=2))
    console.print(f"[bold red]Error:[/bold red] {escape(failure.cause)}", soft_wrap=True)
    if failure.advice:
        console.print(f"[bold]What to do:[/bold] {escape(failure.advice)}", soft_wrap=True)
    return failure.code
