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

# Each paragraph is a line of --help, or several.
EPILOG = """
Examples:

segue-server --repository models

segue-server --model_config_file=models.config --port=8500 --host 0.0.0.0

segue-server --host 0.0.0.0 --tls-certificate tls.crt --tls-key tls.key --token-file tokens

Then ask it: python -m server.services.probe localhost:8500

Exit codes: 0 after an orderly end; 1 if it could not start, the last line says why; 2 for a command line that cannot
be followed.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _show_version(value: bool) -> None:
    if value:
        print(f"segue-server {metadata.version('segue-serving')}")
        raise typer.Exit


def _paragraphs(text: str) -> str:
    """A text whose lines end where its paragraphs do, for terminals of any width."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


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

    A package is what convert-and-deploy makes of a TensorFlow model, in REPOSITORY/NAME/VERSION. New versions appear
    without a restart. SIGTERM drains: requests under way are answered, then the process ends. TensorFlow Serving's own
    flags are understood too, as docs/serving.md lists them. Without any option, the server serves the folder "models"
    to this machine alone.
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
app.command(help=_paragraphs(serve.__doc__ or ""), epilog=_paragraphs(EPILOG))(serve)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `segue-server`."""
    try:
        translation = translate(sys.argv[1:] if arguments is None else arguments, os.environ)
    except FlagError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    app(args=list(translation.arguments), prog_name="segue-server", obj=translation.warnings)
