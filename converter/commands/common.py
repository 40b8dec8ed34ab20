"""What all commands have in common: exit codes, how an error is said, and how a server is called."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from converter import errors
from server.errors import InvalidName, PackageError, SegueError
from server.services.dial import DialRefused, Keys


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
    errors.NotDeployed: ExitCode.NOT_DEPLOYED,
    errors.NothingPublished: ExitCode.REPOSITORY,
    errors.ServerRefused: ExitCode.SERVER,
    errors.ConversionError: ExitCode.CONVERSION,
    InvalidName: ExitCode.USAGE,
    PackageError: ExitCode.REPOSITORY,
    SegueError: ExitCode.CONVERSION,  # what the proof meets in the backend, beyond what it names
}

PROTECTED = "A server with TLS or a token"


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
RepositoryFolder = Annotated[Path, typer.Option(help="Folder of published packages.")]
Server = Annotated[str | None, typer.Option(help="Server to ask.", show_default="$SEGUE_SERVER, else localhost:8500")]
Tls = Annotated[bool, typer.Option("--tls", help="Call the server with TLS.", rich_help_panel=PROTECTED)]
TlsCa = Annotated[
    Path | None,
    typer.Option(help="PEM file of the authorities to trust.", envvar="SEGUE_TLS_CA", rich_help_panel=PROTECTED),
]
TlsCertificate = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of this client's certificate.", envvar="SEGUE_TLS_CERTIFICATE", rich_help_panel=PROTECTED
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option(help="PEM file of its key.", envvar="SEGUE_TLS_KEY", rich_help_panel=PROTECTED)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File of the bearer token.", envvar="SEGUE_TOKEN_FILE", rich_help_panel=PROTECTED),
]


def address_of(server: str | None) -> str:
    """HOST:PORT of the server that is meant."""
    return server or os.environ.get("SEGUE_SERVER") or "localhost:8500"


@dataclass(frozen=True, slots=True)
class Failure:
    """What is said of an end without success."""

    kind: str
    cause: str
    advice: str
    code: ExitCode


def failure_of(error: errors.ConversionError | SegueError) -> Failure:
    """What an error means for the person at the terminal."""
    code = next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    if isinstance(error, errors.ConversionError):
        return Failure(type(error).__name__, error.cause, error.advice, code)
    advice = error.advice if isinstance(error, PackageError) else ""
    return Failure(type(error).__name__, error.message, advice, code)


def say(failure: Failure, console: Console, *, as_json: bool) -> int:
    """Say why there is no success; returns the exit code."""
    if as_json:
        error = {"kind": failure.kind, "cause": failure.cause, "advice": failure.advice}
        print(json.dumps({"error": error, "exit_code": failure.code}, indent=2))
    console.print(f"[bold red]Error:[/bold red] {escape(failure.cause)}", soft_wrap=True)
    if failure.advice:
        console.print(f"[bold]What to do:[/bold] {escape(failure.advice)}", soft_wrap=True)
    return failure.code


def keys_for(address: str, **given: Any) -> Keys:  # noqa: ANN401 - the fields of Keys
    """What the server is called with; what cannot work is said before anything is converted."""
    try:
        keys = Keys(**given)
        keys.metadata(address)
        keys.channel(address).close()
    except DialRefused as error:
        raise typer.BadParameter(str(error)) from error
    return keys


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """For short commands: an error of ours is said, and ends the command with its exit code."""
    try:
        yield
    except (errors.ConversionError, SegueError) as error:
        raise typer.Exit(say(failure_of(error), Console(stderr=True, highlight=False), as_json=as_json)) from error
