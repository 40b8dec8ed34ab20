"""The command line `segue-server`: our options, made from the settings, and TensorFlow Serving's flags translated."""

import dataclasses
import inspect
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, get_type_hints

import typer

from server import logs
from server.app import run
from server.config import SETTINGS, ServerConfig
from server.flags import FlagError, translate

logger = logging.getLogger("server")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _show_version(value: bool) -> None:
    if value:
        print(f"segue-server {metadata.version('segue-serving')}")
        raise typer.Exit


def _parameters() -> list[inspect.Parameter]:
    """One parameter for each setting, as typer reads them from a function's signature."""
    kinds = get_type_hints(ServerConfig)
    parameters = []
    for each in dataclasses.fields(ServerConfig):
        setting = SETTINGS[each.name]
        option = typer.Option(
            f"--{each.name.replace('_', '-')}",
            help=setting.help,
            metavar=setting.metavar,
            envvar=setting.environment,
            rich_help_panel=setting.panel or None,
        )
        annotation = Annotated[kinds[each.name], option]  # type: ignore[valid-type,name-defined]  # made at run time
        parameters.append(
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=annotation)
        )
    version = typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    parameters.append(
        inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, version])
    )
    parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    return parameters


def serve(*, context: typer.Context, version: bool, **settings: Any) -> None:  # noqa: ANN401 - typer has checked their types
    """Serve model packages over TensorFlow Serving's gRPC API.

    New versions appear without a restart. SIGTERM drains: requests under way are answered, then the process ends.
    TensorFlow Serving's own flags are understood too, as docs/serving.md lists them.
    """
    del version  # its callback has answered
    try:
        config = ServerConfig(**settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    logs.configure(config.log_format, config.log_level)
    for line in context.obj:
        logger.warning("%s", line)
    status = run(config)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)  # Python would wait for threads that still compute, for as long as they like


_signature = inspect.Signature(_parameters())
serve.__signature__ = _signature  # type: ignore[attr-defined]  # inspect.signature heeds it; the stubs know it not
serve.__annotations__ = {name: each.annotation for name, each in _signature.parameters.items()}
app.command()(serve)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `segue-server`."""
    try:
        translation = translate(sys.argv[1:] if arguments is None else arguments, os.environ)
    except FlagError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    app(args=list(translation.arguments), prog_name="segue-server", obj=translation.warnings)
