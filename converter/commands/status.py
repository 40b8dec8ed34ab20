"""`status`: what a running server serves, by which backends, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from converter.commands.common import (
    AsJson,
    Server,
    Tls,
    TlsCa,
    TlsCertificate,
    TlsKey,
    TokenFile,
    address_of,
    keys_for,
    page,
)
from converter.commands.steering import calling

_CALL_SECONDS = 10.0
_DECISIONS = 5
# Of fewer runs the 95th percentile is the slowest, which says nothing.
_RUNS_FOR_P95 = 20

Row = Mapping[str, Any]


def status(
    name: Annotated[str | None, typer.Argument(help="Only this model, in detail.")] = None,
    server: Server = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a server serves: all models in short, or one with its backends, their times, and what was decided."""
    address = address_of(server)
    keys = keys_for(address, tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, token_file=token_file)
    with calling(address, keys) as client:
        overview = client.overview(name or "", _CALL_SECONDS)
    if as_json:
        print(json.dumps(overview, indent=2))
    elif name is None:
        _show_all(overview, address)
    else:
        _show_one(overview)


def _show_all(overview: Row, address: str) -> None:
    if not overview["models"]:
        print(f"{address} serves no models: it has found none in its repository")
        return
    table = _table("model", "versions", "pinned to")
    for model in overview["models"]:
        table.add_row(*map(escape, (model["name"], _versions(model), ", ".join(model["pinned"]))))
    page().print(table)
    if (more := overview["in_all"] - len(overview["models"])) > 0:
        print(f"and {more} more")


def _show_one(model: Row) -> None:
    console = page()
    print(f"{model['name']}: {_versions(model)}")
    for one in model["versions"]:
        if one["error"]:
            console.print(escape(f"version {one['version']} failed: {one['error']}"), soft_wrap=True)
    if model["pinned"]:
        print(f"pinned to {', then '.join(model['pinned'])}")
    if model["version"] is None:
        return
    print(f"\nBackends of version {model['version']}:")
    for backend in model["backends"]:
        off = "" if backend["worst"] is None else f", off by {backend['worst']:.1e}"
        reason = f": {backend['reason']}" if backend["reason"] else ""
        line = f"  {backend['name']}  {backend['stage']}{off}{reason}"
        console.print(escape(line), soft_wrap=True)
    for signature in model["signatures"]:
        if signature["buckets"]:
            print(f"\n{signature['name']}: milliseconds of a batch")
            console.print(_times(signature["buckets"]))
        for failure in signature["failures"]:
            print(f"  {failure['backend']} failed {failure['count']} times ({failure['kind']}); others answered")
    for decision in model["decisions"][:_DECISIONS]:
        at = datetime.fromtimestamp(decision["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        words = f"{at} UTC, {decision['rows']} rows: {decision['before']} -> {decision['after']}: {decision['reason']}"
        console.print(escape(words), soft_wrap=True)


def _versions(model: Row) -> str:
    return ", ".join(f"{one['version']} {one['state']}" for one in model["versions"]) or "none"


def _times(buckets: Sequence[Row]) -> Table:
    table = _table("rows", "backend", "runs", "p50", "p95", "expected", "state")
    for bucket in buckets:
        for cells in _lines(bucket):
            table.add_row(*map(escape, cells), style="bold" if cells[-1] == "serves" else "")
    return table


def _lines(bucket: Row) -> Iterator[list[str]]:
    for runs in bucket["backends"]:
        word = "serves" if runs["backend"] == bucket["selected"] else runs["state"]
        p95 = runs["p95"] if runs["count"] >= _RUNS_FOR_P95 else None
        times = ["" if time is None else f"{1e3 * time:.3g}" for time in (runs["p50"], p95, runs["recent"])]
        yield [str(bucket["rows"]), runs["backend"], str(runs["count"]), *times, word]


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in headings:
        numeric = heading in {"rows", "runs", "p50", "p95", "expected"}
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    return table
