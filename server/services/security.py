"""How the settings protect the server: TLS, the gate, and what is refused because it would expose it unawares."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from server.config import ServerConfig
from server.services.authorisation import Gate, Tokens, TokensRefused
from server.services.renewal import Renewal
from server.services.tls import Certificates, TlsRefused, source_of


class SecurityRefused(Exception):
    """The server must not start like this; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Security:
    """What the ports and the server are made with."""

    credentials: grpc.ServerCredentials | None
    """Of the TCP port; None is plain text."""
    gate: Gate | None
    """None without tokens, so that requests pay nothing for what is not there."""
    words: str
    """For the log: who can talk to the server, and how."""
    renewals: tuple[Renewal[Any], ...]
    """Of the files behind them."""
    asks_who: bool
    """Whether callers must show a token or a certificate."""

    def watch(self) -> None:
        """Take the files up again when they change, from now on."""
        for each in self.renewals:
            each.watch()

    def stop(self) -> None:
        """Look at the files no more."""
        for each in self.renewals:
            each.stop()


def secure(config: ServerConfig, refused: Callable[[str], None]) -> Security:
    """Read what the settings name, and refuse what would expose the server against their intention.

    Args:
        config: The settings.
        refused: Called with the client's address for each call without a valid token.

    Raises:
        SecurityRefused: A file cannot be used, or the combination is refused.
    """
    try:
        source = source_of(config)
        certificates = None if source is None else Certificates(source)
        tokens = None if config.token_file is None else Tokens(config.token_file)
    except (TlsRefused, TokensRefused) as error:
        raise SecurityRefused(str(error)) from error
    mutual = certificates is not None and certificates.mutual
    local = is_loopback(config.host)
    if tokens and certificates is None and not local and not config.allow_plaintext_token:
        raise SecurityRefused(
            f"--token-file without TLS on {config.host} would send the token in the clear: add --tls-certificate and "
            "--tls-key, or --allow-plaintext-token if something in front of this server ends TLS"
        )
    if config.admin and not (local or tokens or mutual):
        raise SecurityRefused(
            f"--admin on {config.host} would let the whole network change what is served: add --token-file or "
            "--tls-client-ca, or listen on 127.0.0.1"
        )
    words = "mutual TLS" if mutual else "TLS" if certificates else "no TLS"
    return Security(
        certificates.credentials() if certificates else None,
        Gate(tokens, refused) if tokens else None,
        f"{words}, {'bearer token' if tokens else 'no token'}",
        tuple(each.renewal for each in (certificates, tokens) if each is not None),
        asks_who=bool(tokens) or mutual,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
