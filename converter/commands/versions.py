"""`list` and `rollback`: what a repository holds, and taking versions of it out of service. No server is needed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from converter.commands.common import AsJson, RepositoryFolder, page, told
from converter.errors import PackageMissing
from server.errors import DamagedPackage
from server.repository.folder import Repository
from server.repository.names import check_model_name
from server.repository.package import read_manifest


@dataclass(frozen=True, slots=True)
class Version:
    """What is said of one version folder."""

    name: str
    version: int
    withdrawn: bool
    created: str = ""
    source: str = ""
    opset: int = 0
    megabytes: float = 0.0
    signatures: tuple[str, ...] = ()
    problem: str = ""


def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    repository: RepositoryFolder = Path("models"),
    as_json: AsJson = False,
) -> None:
    """List the published versions, the newest first."""
    with told(as_json=as_json):
        store = Repository(repository)
        names = [check_model_name(name)] if name else sorted(store.scan())
        found = [version for each in names for version in _versions(store, each)]
        if name and not found:
            raise _unknown(name, store)
    if as_json:
        print(json.dumps([_as_json(version) for version in found], indent=2))
    elif found:
        page().print(_table(found))
    else:
        print(f"{repository} holds no packages yet: publish one with `convert-and-deploy SOURCE --name NAME`")


def rollback(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    to: Annotated[int | None, typer.Option(help="The version to go back to.", show_default="the one before")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Put the version that was withdrawn last back.")] = False,
    repository: RepositoryFolder = Path("models"),
) -> None:
    """Take the newest version out of service, so that servers of the latest version serve the one before.

    Nothing is deleted: the version is moved aside with one rename, and `--undo` brings it back. A server that looks at
    the repository follows within its --poll-seconds; no request fails meanwhile.
    """
    with told():
        store = Repository(repository)
        check_model_name(name)
        if undo:
            _undo(store, name)
        else:
            _roll_back(store, name, to)


def _roll_back(store: Repository, name: str, to: int | None) -> None:
    versions = list(store.versions(name))
    if not versions:
        raise _unknown(name, store)
    if to is None and len(versions) == 1:
        raise PackageMissing(
            f"Version {versions[0]} is the only one of {name!r}: there is none to go back to.",
            "To stop serving the model, take its folder out of the repository.",
        )
    target = versions[-2] if to is None else to
    if target not in versions:
        raise PackageMissing(
            f"{name!r} has no version {target} in service; it has {', '.join(map(str, versions))}.",
            "A withdrawn version comes back with --undo.",
        )
    newer = [version for version in reversed(versions) if version > target]
    if not newer:
        print(f"{name}: version {target} is the newest already; nothing to do.")
    for version in newer:
        store.withdraw(name, version)
        print(f"{name}: version {version} withdrawn; {max(store.versions(name))} is the newest now.")


def _undo(store: Repository, name: str) -> None:
    withdrawn = store.withdrawn(name)
    if not withdrawn:
        raise PackageMissing(f"No version of {name!r} is withdrawn.", "`convert-and-deploy list` shows what there is.")
    # A rename changes the folder's ctime; of versions that went with one command the lowest went last.
    last = max(withdrawn, key=lambda version: (withdrawn[version].stat().st_ctime_ns, -version))
    store.restore(name, last)
    print(f"{name}: version {last} is back; {max(store.versions(name))} is the newest now.")


def _unknown(name: str, store: Repository) -> PackageMissing:
    names = ", ".join(sorted(store.scan())) or "no models"
    return PackageMissing(
        f"{store.root} has no model {name!r}; it has {names}.", "Give the folder of the packages with --repository."
    )


def _versions(store: Repository, name: str) -> list[Version]:
    try:
        return _listed(store, name)
    except OSError as error:
        return [Version(name, 0, withdrawn=False, problem=f"its folder cannot be listed: {error.strerror}")]


def _listed(store: Repository, name: str) -> list[Version]:
    folders = [(version, path, False) for version, path in store.versions(name).items()]
    folders += [(version, path, True) for version, path in store.withdrawn(name).items()]
    return [_describe(name, *folder) for folder in sorted(folders, reverse=True)]


def _describe(name: str, version: int, path: Path, withdrawn: bool) -> Version:
    try:
        manifest = read_manifest(path)
    except DamagedPackage as error:
        return Version(name, version, withdrawn, problem=error.message)
    created = datetime.fromtimestamp(manifest.created.seconds, UTC).strftime("%Y-%m-%d %H:%M")
    return Version(
        name,
        version,
        withdrawn,
        created,
        manifest.source.kind,
        manifest.opset,
        sum(file.bytes for file in manifest.files) / 1e6,
        tuple(signature.name for signature in manifest.signatures),
    )


def _table(found: list[Version]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("model", "version", "created (UTC)", "from", "opset", "MB", "signatures", ""):
        number = heading in {"version", "opset", "MB"}
        fixed = number or heading in {"created (UTC)", "from"}
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=fixed)
    newest: set[str] = set()
    for one in found:
        word = "withdrawn" if one.withdrawn else "" if one.name in newest else "newest"
        if not one.withdrawn:
            newest.add(one.name)
        word = f"damaged: {one.problem}" if one.problem else word
        numbers = (str(one.opset), f"{one.megabytes:.1f}") if not one.problem else ("", "")
        cells = (one.name, str(one.version), one.created, one.source, *numbers, ", ".join(one.signatures), word)
        table.add_row(*map(escape, cells))
    return table


def _as_json(one: Version) -> dict[str, object]:
    return {
        "name": one.name,
        "version": one.version,
        "withdrawn": one.withdrawn,
        "created": one.created,
        "source": one.source,
        "opset": one.opset,
        "bytes": round(one.megabytes * 1e6),
        "signatures": list(one.signatures),
        "problem": one.problem,
    }
