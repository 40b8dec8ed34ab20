"""`pin` and `unpin`: which backend of a running server answers for a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from converter.client import CallFailed, ServerUnreachable, ServingClient, connected
from converter.commands.common import Server, Tls, TlsCa, TlsCertificate, TlsKey, TokenFile, address_of, keys_for, told
from converter.errors import ServerRefused
from server.services.dial import Keys

_CALL_SECONDS = 10.0


def pin(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    backends: Annotated[list[str], typer.Argument(help="Backends in order of preference, such as onnxruntime-cpu.")],
    server: Server = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
) -> None:
    """Have a model answered by the first of these backends that is proved and sound, at once and after restarts.

    A backend that fails still gives way to the others: a pin is a preference, and no client sees an error for it.
    """
    address = address_of(server)
    keys = keys_for(address, tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, token_file=token_file)
    with calling(address, keys) as client:
        client.set_backends(name, backends, _CALL_SECONDS)
        overview = client.overview(name, _CALL_SECONDS)
    print(f"{name}: pinned to {', then '.join(backends)}.")
    for backend in overview["backends"]:
        if backend["name"] in backends and backend["stage"] != "eligible":
            why = ", ".join(filter(None, (backend["stage"], backend["reason"])))
            version = overview["version"]
            print(f"{backend['name']} does not answer for version {version} ({why}); until it does, others do.")


def unpin(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    server: Server = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
) -> None:
    """Let the server choose a model's backend again, by what it has measured."""
    address = address_of(server)
    keys = keys_for(address, tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, token_file=token_file)
    with calling(address, keys) as client:
        before = client.set_backends(name, [], _CALL_SECONDS)
    was = f"it was pinned to {', then '.join(before)}" if before else "it was not pinned"
    print(f"{name}: the server chooses ({was}).")


@contextmanager
def calling(address: str, keys: Keys) -> Iterator[ServingClient]:
    """A client of one server, whose refusals end the command with a reason and what to do."""
    with told(), connected(address, keys) as client:
        try:
            yield client
        except ServerUnreachable as error:
            raise ServerRefused(
                f"No server answers at {address}: {error}", "Start one with segue-server, or give its --server address."
            ) from error
        except CallFailed as error:
            advice = ""
            if "UNIMPLEMENTED" in str(error):
                advice = "Start the server with --admin to let those who may call it change this."
            raise ServerRefused(f"The server at {address} refuses: {error}", advice) from error
