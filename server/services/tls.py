"""TLS of the gRPC port: certificates from files, checked, and taken up again when the files change.

A new certificate serves new connections without a restart; a new pair that is broken is said in the log and the old one
goes on serving. Nothing is read while a connection is being made.
"""

import logging
import os
import ssl
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import text_format

from protos.serving.startup_pb2 import SSLConfig
from server.config import ServerConfig
from server.services.renewal import FilesRefused, Renewal

logger = logging.getLogger(__name__)


class TlsRefused(FilesRefused):
    """These files give no TLS; the text names them, and never what is in them."""


@dataclass(frozen=True, slots=True)
class Material:
    """What TLS needs, as PEM."""

    certificate: bytes
    """The server's, then those that lead to its authority."""
    key: bytes = field(repr=False)
    client_ca: bytes | None
    """The authorities of clients, who must then show a certificate; None asks for none."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files, and how they are read."""

    files: tuple[Path, ...]
    secret: Path
    """The one of them that holds the key."""
    read: Callable[[], Material]

    def checked(self, *, mutual: bool | None = None) -> Material:
        """Read, and see that the parts fit.

        Args:
            mutual: Whether clients are asked for certificates now, which cannot change.

        Raises:
            TlsRefused: They do not, or a file cannot be read.
        """
        material = self.read()
        if mutual is not None and mutual != (material.client_ca is not None):
            raise TlsRefused(f"{self.files[0]}: whether clients must show a certificate changes by a restart only")
        _check(material, " and ".join(map(str, self.files[:2])))
        return material


def source_of(config: ServerConfig) -> Source | None:
    """Where the settings say that the certificate is; None for no TLS."""
    if config.ssl_config_file is not None:
        file = config.ssl_config_file
        return Source((file,), file, lambda: _read_ssl_config(file))
    certificate, key, client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None
    files = (certificate, key) if client_ca is None else (certificate, key, client_ca)
    return Source(files, key, lambda: _read_files(certificate, key, client_ca))


class Certificates:
    """The certificate that new connections get."""

    def __init__(self, source: Source) -> None:
        """Read the files.

        Raises:
            TlsRefused: They give no TLS.
        """
        self._source = source
        self._mutual: bool | None = None
        self.renewal = Renewal(
            source.files,
            lambda: source.checked(mutual=self._mutual),
            self._renewed,
            name="certificate",
            kept="the certificate was not renewed, the one of before goes on serving",
        )
        """Reads the files again when they change."""
        self._given = self.renewal.value
        self._mutual = self.mutual
        _warn_if_readable(source.secret)

    @property
    def mutual(self) -> bool:
        """Whether clients must show a certificate. Files that are read again do not change it."""
        return self._given.client_ca is not None

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; gRPC asks before each handshake whether there is something new."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            self._new,  # type: ignore[arg-type]  # the stubs know not that it may return None; grpcio does
            require_client_authentication=self.mutual,
        )

    def _new(self) -> "grpc.ServerCertificateConfiguration | None":
        """What gRPC does not have yet; None leaves things as they are. gRPC asks for one handshake at a time."""
        material = self.renewal.value
        if material is self._given:
            return None
        self._given = material
        return _configuration(material)

    def _renewed(self, _material: Material) -> None:
        _warn_if_readable(self._source.secret)
        logger.info("new connections get the certificate in %s, which has changed", self._source.files[0])


def _configuration(material: Material) -> "grpc.ServerCertificateConfiguration":
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TlsRefused(f"{file}: {error.strerror}") from error


def _read_files(certificate: Path, key: Path, client_ca: Path | None) -> Material:
    return Material(_read(certificate), _read(key), None if client_ca is None else _read(client_ca))


def _read_ssl_config(file: Path) -> Material:
    """TensorFlow Serving's ssl_config_file: PEM text within text, and no certificate asked for by default.

    Raises:
        TlsRefused: It cannot be read, does not parse, or lacks what TLS needs.
    """
    try:
        config = text_format.Parse(_read(file).decode(), SSLConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        # The parser's text quotes the line, which may be one of the key's.
        line = error.GetLine() if isinstance(error, text_format.ParseError) else None
        raise TlsRefused(f"{file}: not an SSLConfig in text form{f', line {line}' if line else ''}") from None
    if not (config.server_key and config.server_cert):
        raise TlsRefused(f"{file}: server_key and server_cert must both be there, as PEM text")
    if config.client_verify and not config.custom_ca:
        raise TlsRefused(f"{file}: client_verify needs custom_ca, the authority whose clients are let in")
    client_ca = config.custom_ca.encode() if config.client_verify else None
    return Material(config.server_cert.encode(), config.server_key.encode(), client_ca)


def _check(material: Material, where: str) -> None:
    """See with the platform's TLS that the certificate and the key fit, since gRPC says only that no port opened."""
    if b"ENCRYPTED" in material.key:
        raise TlsRefused(f"{where}: the key has a password, which nobody can type here; decrypt the file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _as_file(material.certificate) as certificate, _as_file(material.key) as key:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsRefused(f"{where}: the key is not that of the certificate") from None
        raise TlsRefused(f"{where}: not a certificate and its key as PEM ({error.reason or 'unreadable'})") from None
    if material.client_ca is not None:
        try:
            context.load_verify_locations(cadata=material.client_ca.decode("ascii", "ignore"))
        except ssl.SSLError:
            raise TlsRefused("the clients' authority is not a certificate as PEM") from None


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The path of a file that only this process can read: OpenSSL takes nothing else. In memory where possible."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("pem")
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp()
    try:
        os.write(descriptor, data)
        yield path
    finally:
        os.close(descriptor)
        if sys.platform != "linux":
            Path(path).unlink()


def _warn_if_readable(secret: Path) -> None:
    try:
        mode = secret.stat().st_mode
    except OSError:  # gone since it was read
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        logger.warning("%s, which holds the private key, can be read by every user: chmod o= %s", secret, secret)
