"""The command line: `convert-and-deploy SOURCE --name NAME`. What people type and see, exit codes, and nothing else."""

import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.syntax import Syntax
from rich.table import Table

from converter import errors, report
from converter.commands.common import (
    AsJson,
    Tls,
    TlsCa,
    TlsCertificate,
    TlsKey,
    TokenFile,
    address_of,
    keys_for,
)
from converter.commands.compare import compare_backends
from converter.commands.status import status
from converter.commands.steering import pin, unpin
from converter.commands.to_torch import to_torch
from converter.commands.versions import list_versions, rollback
from converter.exits import ExitCode, Failure, failure_of, say
from converter.interruption import SIGNALS
from converter.package import REPORT
from converter.pipeline import Outcome, Request, convert_and_deploy
from server.errors import SegueError
from server.parity import Tolerance
from server.repository.names import check_model_name
from server.repository.package import Package

INTERRUPTIONS = {number: ExitCode(128 + number) for number in SIGNALS}  # as shells report them
_PATIENCE_SECONDS = 5.0

HELP = """Convert a TensorFlow model to ONNX once, prove that nothing changed, publish it, and see it served.

Exit codes: 0 done; 2 wrong usage; 3 the source cannot be read as a model, or lacks the signature; 4 it cannot be
converted; 5 the inputs do not fit; 6 outputs differ from TensorFlow's; 7 the repository, or the disk, cannot be used;
8 published, but not served as it should be; 9 the server that `pin`, `unpin` or `status` asks does not do it;
130 interrupted (129 by SIGHUP, 143 by SIGTERM); 1 a bug of ours.
With 2 to 7 the repository is as it was.
"""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def group() -> None:
    """The way out of TensorFlow Serving; without a subcommand's name, `convert` is meant."""


@app.command(help=HELP)
def convert(
    source: Annotated[Path, typer.Argument(help="A SavedModel folder, a .keras file, or a whole model in .h5.")],
    name: Annotated[str, typer.Option(help="The model's name for clients.")],
    repository: Annotated[Path, typer.Option(help="Folder to publish to; created if missing.")] = Path("models"),
    server: Annotated[
        str | None, typer.Option(help="Server that should serve it.", show_default="$SEGUE_SERVER, else localhost:8500")
    ] = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    signature: Annotated[list[str] | None, typer.Option(help="Convert only this signature; may be repeated.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="Representative inputs: an .npz of arrays by alias.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag of the SavedModel's graph.", show_default="serve")] = None,
    atol: Annotated[float | None, typer.Option(help="Allowed absolute difference, instead of the default.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Allowed relative difference, instead of the default.")] = None,
    seed: Annotated[int, typer.Option(help="Of random inputs.")] = 0,
    wait: Annotated[float, typer.Option(help="Seconds that the server may take to load it.", min=0)] = 120.0,
    time_limit: Annotated[float, typer.Option(help="Seconds that the conversion may take.", min=0)] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Convert, prove, publish, wait until served, ask the golden questions."""
    address = address_of(server)
    request = Request(
        source=source,
        name=name,
        repository=repository,
        server=address,
        keys=keys_for(address, tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, token_file=token_file),
        server_required=server is not None,
        signatures=tuple(dict.fromkeys(signature)) if signature else None,
        tags=tuple(tag) if tag else ("serve",),
        inputs=inputs,
        tolerance=_tolerance(atol, rtol),
        seed=seed,
        wait_seconds=wait,
        wall_seconds=time_limit,
    )
    console = Console(stderr=True, highlight=False)
    raise typer.Exit(_run(request, console, as_json=as_json))


app.command(name="compare")(compare_backends)
app.command(name="list")(list_versions)
app.command()(rollback)
app.command()(status)
app.command()(pin)
app.command()(unpin)
app.command(name="to-torch")(to_torch)


class Interrupted(KeyboardInterrupt):
    """A signal asks us to stop: what Ctrl-C cleans up is cleaned up for each of them."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def _run(request: Request, console: Console, *, as_json: bool) -> int:
    listener = None
    try:
        check_model_name(request.name)
        with _progress(console) as listener:
            outcome = convert_and_deploy(request, listener)
    except (errors.ConversionError, SegueError) as error:
        return say(failure_of(error), console, as_json=as_json)
    except Interrupted as interruption:
        return say(_interruption(interruption.signal, listener), console, as_json=as_json)
    if as_json:
        print(json.dumps(_outcome_json(outcome), indent=2))
    else:
        _show(outcome, Console(highlight=False))
    return ExitCode.DONE


def _interruption(by: signal.Signals, listener: "_Listener | None") -> Failure:
    if listener is None or listener.version is None:
        cause = f"Interrupted by {by.name}. Nothing was published, and the repository is as it was."
        advice = "Run the same command again to start over."
    else:
        cause = (
            f"Interrupted by {by.name}. Version {listener.version} was already published, in {listener.folder}, but "
            "whether it is served was not waited for."
        )
        advice = "Run the same command again to see it served (nothing is converted twice), or remove that folder."
    return Failure("Interrupted", cause, advice, INTERRUPTIONS[by])


@dataclass(slots=True)
class _Listener:
    """Says each step on the terminal: a spinner while it runs, a line when it is done."""

    console: Console
    status: Status
    version: int | None = None  # published
    folder: Path | None = None

    def step(self, name: str, message: str) -> None:
        if self.console.is_terminal:
            self.status.update(f"[bold]{name:<8}[/bold] {escape(message)}")
        else:
            self.console.print(f"  {name:<8} {escape(message)} ...", soft_wrap=True)

    def done(self, name: str, message: str, seconds: float) -> None:
        took = f" [dim]({seconds:.1f} s)[/dim]" if seconds else ""
        self.console.print(f"[green]✓[/green] [bold]{name:<8}[/bold] {escape(message)}{took}", soft_wrap=True)

    def published(self, version: int, folder: Path) -> None:
        self.version, self.folder = version, folder


@contextmanager
def _progress(console: Console) -> Iterator[_Listener]:
    status = console.status("")
    if console.is_terminal:
        with status:
            yield _Listener(console, status)
    else:
        yield _Listener(console, status)


def _show(outcome: Outcome, console: Console) -> None:
    """The result on standard output: parity per output, times, where it serves, how to call it."""
    print(f"\n{outcome.name} version {outcome.version}: largest differences from TensorFlow's own answers")
    console.print(_parity_table(outcome))
    for signature in outcome.manifest.signatures:
        batching = "can be batched" if signature.batching.batchable else f"not batched: {signature.batching.reason}"
        print(f"  {signature.name}: {len(signature.golden)} golden cases, {batching}")
    print("  times: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome.seconds.items()))
    print(f"  report: {outcome.folder / REPORT}\n")
    if outcome.served:
        print(f"Served at {outcome.server}, {outcome.served.milliseconds:.1f} ms per golden request. Call it:\n")
    else:
        print(f"Published. No server answers at {outcome.server}; start one with")
        print(f"    segue-server --repository {outcome.folder.parent.parent}\nand call it:\n")
    text = _snippet(outcome)
    if console.is_terminal:
        console.print(Syntax(text, "python", background_color="default"))
    else:
        print(text)


def _parity_table(outcome: Outcome) -> Table:
    served = outcome.served.differences if outcome.served else None
    several = len(outcome.manifest.signatures) > 1
    table = Table(box=SIMPLE_HEAD)
    for heading in ("output", "tensor", "ONNX Runtime", "served", "allowed"):
        numeric = heading in {"ONNX Runtime", "served"}
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in report.output_rows(outcome.manifest, served):
        output = f"{row.signature}: {row.output}" if several else row.output
        at_server = "-" if row.served is None else f"{row.served:.1e}"
        table.add_row(*map(escape, (output, row.tensor, f"{row.proof:.1e}", at_server, row.allowed)))
    return table


def _snippet(outcome: Outcome) -> str:
    arrays = Package(outcome.name, outcome.version, outcome.folder, outcome.manifest).golden_arrays()
    return report.snippet(outcome.name, outcome.manifest, arrays, outcome.server, outcome.keys)


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    served = outcome.served
    return {
        "name": outcome.name,
        "version": outcome.version,
        "folder": str(outcome.folder),
        "reused_version": outcome.reused,
        "source": {"kind": outcome.manifest.source.kind, "sha256": outcome.manifest.source.digest},
        "server": {
            "address": outcome.server,
            "served": served is not None,
            "golden_requests": served.requests if served else 0,
            "median_milliseconds": served.milliseconds if served else None,
        },
        "signatures": report.as_json(outcome.manifest, served.differences if served else None),
        "seconds": {name: round(seconds, 3) for name, seconds in outcome.seconds.items()},
        "snippet": _snippet(outcome),
        "exit_code": int(ExitCode.DONE),
    }


def _tolerance(atol: float | None, rtol: float | None) -> Tolerance | None:
    if atol is None and rtol is None:
        return None
    if not all(0 <= bound < math.inf for bound in (atol or 0.0, rtol or 0.0)):
        raise typer.BadParameter("A tolerance cannot be negative or infinite.", param_hint="--atol/--rtol")
    return Tolerance(atol or 0.0, rtol or 0.0)


def _with_subcommand(arguments: Sequence[str]) -> list[str]:
    """`convert` is meant unless the first word is a subcommand; `./status` names a path."""
    known = {
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    }
    if not arguments:
        return ["--help"]
    return list(arguments) if arguments[0] in {*known, "--help"} else ["convert", *arguments]


class _Stop:
    """Handles signals; an impatient second one does not disturb the cleaning up that the first began."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last > _PATIENCE_SECONDS:
            self._last = now
            raise Interrupted(number)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `convert-and-deploy`."""
    stop = _Stop()
    for each in INTERRUPTIONS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, stop)
    app(args=_with_subcommand(sys.argv[1:] if arguments is None else arguments), prog_name="convert-and-deploy")


if __name__ == "__main__":
    main()
