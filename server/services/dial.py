"""Calling a server that is protected: the client's half of TLS and bearer tokens, for the command lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.services.security import is_loopback


class DialRefused(ValueError):
    """The files cannot be used, or a token would travel in the clear; the text says which."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a client shows and trusts. Any of the TLS files means TLS.

    Attributes:
        tls: TLS with the authorities that gRPC trusts by itself.
        ca: PEM file of the authorities to trust instead.
        certificate: PEM file of the client's certificate, for mutual TLS.
        key: PEM file of its private key.
        token_file: Its first token is sent.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse half a pair.

        Raises:
            DialRefused: A certificate without its key, or the other way round.
        """
        if (self.certificate is None) != (self.key is None):
            raise DialRefused("a client's certificate and its key go together: one of them is missing")

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def channel(self, address: str, options: Sequence[tuple[str, int | str]] = ()) -> grpc.Channel:
        """A channel to HOST:PORT; nothing is sent before the first call.

        Raises:
            DialRefused: A file cannot be read.
        """
        if not self.secure:
            return grpc.insecure_channel(address, options=list(options))
        credentials = grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))
        return grpc.secure_channel(address, credentials, options=list(options))

    def metadata(self, address: str) -> list[tuple[str, str]]:
        """What goes with every call to that address.

        Raises:
            DialRefused: The token file cannot be read or is empty, or the token would leave this machine in the clear.
        """
        if self.token_file is None:
            return []
        if not (self.secure or _local(address)):
            raise DialRefused(f"the token would go to {address} in the clear: say how to use TLS (--tls or --tls-ca)")
        lines = (_read(self.token_file) or b"").decode("ascii", "replace").splitlines()
        token = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
        if not token:
            raise DialRefused(f"{self.token_file}: there is no token in it")
        return [("authorization", f"Bearer {token}")]


def _local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    return is_loopback(address.rpartition(":")[0].strip("[]"))


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise DialRefused(f"{file}: {error.strerror}") from error
