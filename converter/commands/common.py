"""What all commands have in common: options, and how a server is called."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from converter import errors
from converter.exits import failure_of, say
from server.errors import SegueError
from server.services.dial import DialRefused, Keys

PROTECTED = "A server with TLS or a token"
_ENDLESS = 10_000  # columns


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


def keys_for(address: str, **given: Any) -> Keys:  # noqa: ANN401 - the fields of Keys
    """What the server is called with; what cannot work is said before anything is converted."""
    try:
        keys = Keys(**given)
        keys.metadata(address)
        keys.channel(address).close()
    except DialRefused as error:
        raise typer.BadParameter(str(error)) from error
    return keys


def page() -> Console:
    """Standard output for people: as wide as the terminal, or as the text where there is none to fit."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fits else _ENDLESS)


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """For short commands: an error of ours is said, and ends the command with its exit code."""
    try:
        yield
    except (errors.ConversionError, SegueError) as error:
        raise typer.Exit(say(failure_of(error), Console(stderr=True, highlight=False), as_json=as_json)) from error
