"""Tests of `server.services.tls`, with real certificates and real connections."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from server.app import Server, ServerStartError
from server.config import ServerConfig
from server.services.dial import Keys
from server.services.probe import main as probe
from server.services.tls import Certificates, Source, source_of
from tests.certificates import Pair, make_authority, make_pair
from tests.servers import SECONDS, call, code_of, running, writing_end

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates are."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Pair:
    """Whom both sides trust."""
    return make_authority(folder)


@pytest.fixture(scope="module")
def pair(folder: Path, authority: Pair) -> Pair:
    """The server's."""
    return make_pair(folder, "server", authority)


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Pair:
    """A client's, from an authority that nobody trusts."""
    return make_pair(folder, "stranger", make_authority(folder, "other"))


def outcome(server: Server, keys: Keys) -> Code:
    """How a call with these keys ends, over a connection of its own."""
    # One subchannel pool per channel: gRPC would else reuse the connection of another test's channel.
    with keys.channel(f"localhost:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return code_of(channel)[0]


def test_a_server_with_a_certificate_answers_over_tls_only(tmp_path: Path, authority: Pair, pair: Pair) -> None:
    """Who trusts its authority is answered; plain text and strangers' trust get nothing."""
    with running(tmp_path, tls_certificate=pair.certificate, tls_key=pair.key) as server:
        assert outcome(server, Keys(ca=authority.certificate)) is Code.OK
        assert outcome(server, Keys()) is Code.UNAVAILABLE
        assert outcome(server, Keys(tls=True)) is Code.UNAVAILABLE


def test_with_a_client_authority_only_its_clients_may_call(
    tmp_path: Path, folder: Path, authority: Pair, pair: Pair, stranger: Pair
) -> None:
    """No certificate, and one of another authority, end before any method is reached."""
    client = make_pair(folder, "client", authority)
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "tls_client_ca": authority.certificate}
    with running(tmp_path, **settings) as server:
        ca = authority.certificate
        assert outcome(server, Keys(ca=ca, certificate=client.certificate, key=client.key)) is Code.OK
        assert outcome(server, Keys(ca=ca)) is Code.UNAVAILABLE
        assert outcome(server, Keys(ca=ca, certificate=stranger.certificate, key=stranger.key)) is Code.UNAVAILABLE
        address = f"localhost:{server.port}"
        keys = ["--tls-certificate", str(client.certificate), "--tls-key", str(client.key)]
        assert probe([address, "--tls-ca", str(ca), *keys]) == 0
        assert probe([address]) == 1


def ssl_config(file: Path, pair: Pair, authority: Pair, *, verify: bool) -> Path:
    """What TensorFlow Serving's flag names, with PEM text in it."""

    def quoted(part: Path) -> str:
        return '"' + part.read_text().replace("\n", "\\n") + '"'

    file.write_text(
        f"server_key: {quoted(pair.key)}\nserver_cert: {quoted(pair.certificate)}\n"
        f"custom_ca: {quoted(authority.certificate)}\nclient_verify: {str(verify).lower()}\n"
    )
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("verify", [False, True])
def test_tensorflow_servings_ssl_config_file_is_read(
    tmp_path: Path, authority: Pair, pair: Pair, *, verify: bool
) -> None:
    """The same file gives the same protection, with clients' certificates required or not."""
    file = ssl_config(tmp_path / "ssl.config", pair, authority, verify=verify)
    with running(tmp_path / "models", ssl_config_file=file) as server:
        expected = Code.UNAVAILABLE if verify else Code.OK
        assert outcome(server, Keys(ca=authority.certificate)) is expected
        keys = Keys(ca=authority.certificate, certificate=pair.certificate, key=pair.key)
        assert outcome(server, keys) is Code.OK


@pytest.fixture
def renewable(tmp_path: Path, pair: Pair) -> Iterator[tuple[Server, Pair]]:
    """A server, and the files that it reads again."""
    files = Pair(tmp_path / "now.pem", tmp_path / "now.key")
    replace(files.certificate, pair.certificate)
    replace(files.key, pair.key)
    with running(tmp_path / "models", tls_certificate=files.certificate, tls_key=files.key) as server:
        yield server, files


def replace(target: Path, source: Path) -> None:
    """Put a file in the place of another, whole at every moment."""
    copy = target.with_suffix(".new")
    shutil.copy(source, copy)
    copy.chmod(0o600)
    copy.replace(target)


def test_a_new_certificate_serves_new_connections(renewable: tuple[Server, Pair], folder: Path) -> None:
    """Without a restart: the old authority's trust ends, the new one's begins; open connections go on."""
    server, files = renewable
    old = folder / "ca.pem"
    new = make_authority(folder, "new-ca")
    renewed = make_pair(folder, "renewed", new)
    with Keys(ca=old).channel(f"localhost:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) as open_before:
        assert call(open_before)
        replace(files.key, renewed.key)
        replace(files.certificate, renewed.certificate)
        begin = time.monotonic()
        while outcome(server, Keys(ca=new.certificate)) is not Code.OK:
            assert time.monotonic() - begin < SECONDS
        assert outcome(server, Keys(ca=old)) is Code.UNAVAILABLE
        assert call(open_before)


def test_a_broken_renewal_keeps_what_serves(
    renewable: tuple[Server, Pair], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that does not fit, and a file that is gone, are said once each; the old pair serves on."""
    server, files = renewable
    trust = Keys(ca=folder / "ca.pem")
    (renewal,) = server._security.renewals
    replace(files.key, make_pair(folder, "unfit", make_authority(folder, "unfit-ca")).key)
    for _ in range(2):
        renewal.look()
        assert outcome(server, trust) is Code.OK
    assert [r.getMessage().rpartition(": ")[2] for r in caplog.records if r.levelno == logging.ERROR] == [
        "the key is not that of the certificate"
    ]
    caplog.clear()
    files.certificate.unlink()
    renewal.look()
    assert outcome(server, trust) is Code.OK
    assert "No such file or directory" in caplog.text


def test_a_renewal_that_failed_for_a_moment_is_made_up_for(source: Source, pair: Pair, folder: Path) -> None:
    """What kept the key from being read goes, and nothing else changes: the new certificate serves."""
    certificates = Certificates(source)
    renewed = make_pair(folder, "late", make_authority(folder, "late-ca"))
    certificate, key = source.files
    replace(certificate, renewed.certificate)
    replace(key, renewed.key)
    link = key.with_suffix(".away")
    key.rename(link)
    certificates.renewal.look()
    assert certificates.renewal.value.certificate == pair.certificate.read_bytes()
    link.rename(key)
    certificates.renewal.look()
    assert certificates.renewal.value.certificate == renewed.certificate.read_bytes()


@pytest.fixture
def source(tmp_path: Path, pair: Pair) -> Source:
    """Files that can be replaced."""
    files = (tmp_path / "now.pem", tmp_path / "now.key")
    replace(files[0], pair.certificate)
    replace(files[1], pair.key)
    found = source_of(ServerConfig(tls_certificate=files[0], tls_key=files[1]))
    assert found is not None
    return found


def test_a_file_that_does_not_answer_stalls_no_handshake(
    renewable: tuple[Server, Pair], folder: Path, pair: Pair
) -> None:
    """A pipe in place of the key keeps only the thread that watches; connections are made as before."""
    server, files = renewable
    pipe = folder / "pipe"
    os.mkfifo(pipe, 0o600)
    pipe.rename(files.key)
    trust = Keys(ca=folder / "ca.pem")
    assert outcome(server, trust) is Code.OK
    while (writer := writing_end(files.key)) is None:  # until the watch is held up in opening the pipe
        assert outcome(server, trust) is Code.OK
    assert outcome(server, trust) is Code.OK
    replace(files.key, pair.key)
    os.close(writer)


def test_a_key_that_all_can_read_is_said(tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """The operator reads what to do about it."""
    key = tmp_path / "open.key"
    shutil.copy(pair.key, key)
    key.chmod(0o644)
    with running(tmp_path / "models", tls_certificate=pair.certificate, tls_key=key):
        assert f"{key}, which holds the private key, can be read by every user" in caplog.text


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        ("none.pem", "server.key", "none.pem: No such file or directory"),
        ("server.pem", "none.key", "none.key: No such file or directory"),
        ("server.pem", "ca.key", "the key is not that of the certificate"),
        ("server.key", "server.key", "not a certificate and its key as PEM"),
        ("server.pem", "server.pem", "not a certificate and its key as PEM"),
        ("server.pem", "locked.key", "the key has a password"),
    ],
)
@pytest.mark.usefixtures("pair", "authority")
def test_files_that_give_no_tls_stop_the_start(folder: Path, certificate: str, key: str, text: str) -> None:
    """The text names the files and what is wrong with them, and nothing of a key."""
    (folder / "locked.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    config = ServerConfig(port=0, metrics_port=-1, tls_certificate=folder / certificate, tls_key=folder / key)
    with pytest.raises(ServerStartError, match=text) as caught:
        Server(config)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("server_key: 7", "not an SSLConfig in text form, line 1"),
        ("server_key: 'secret'", "server_key and server_cert must both be there"),
        ("server_key: 'secret' server_cert: 'c' client_verify: true", "client_verify needs custom_ca"),
        ("server_key: 'secret' server_cert: 'c'", "not a certificate and its key as PEM"),
        ("server_key: 'secret\n", "not an SSLConfig in text form, line 1"),
    ],
)
def test_an_ssl_config_file_that_cannot_be_followed_stops_the_start(tmp_path: Path, content: str, text: str) -> None:
    """The file is named, its text is not quoted: it has the key in it."""
    file = tmp_path / "ssl.config"
    file.write_text(content)
    with pytest.raises(ServerStartError, match=f"{file}.*{text}") as caught:
        Server(ServerConfig(port=0, metrics_port=-1, ssl_config_file=file))
    assert "secret" not in str(caught.value)


def test_a_clients_authority_must_be_one(tmp_path: Path, pair: Pair) -> None:
    """A file without a certificate would let in nobody."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    config = ServerConfig(port=0, tls_certificate=pair.certificate, tls_key=pair.key, tls_client_ca=empty)
    with pytest.raises(ServerStartError, match="authority is not a certificate"):
        Server(config)


def test_the_socket_is_its_owners_and_plain(tmp_path: Path, pair: Pair) -> None:
    """Beside TLS on the port, the socket answers in plain text, and nobody else can open it."""
    path = tmp_path / "s"
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "socket": path}
    with running(tmp_path / "models", **settings), grpc.insecure_channel(f"unix:{path}") as channel:
        assert code_of(channel)[0] is Code.OK
        assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - a socket is no file to open
