"""Tests of `server.services.dial`, and of the converter's client with it, against protected servers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from converter import cli
from converter.client import CallFailed, ServerUnreachable, connected
from converter.report import snippet
from server.app import Server
from server.repository.package import open_package
from server.services.dial import DialRefused, Keys
from tests.certificates import Pair, make_authority, make_pair
from tests.packages import write_package
from tests.servers import INPUTS, running

TOKEN = "a-token-of-some-length"  # noqa: S105 - of a server that lives as long as its test


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Whom both sides trust."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, authority: Pair) -> Keys:
    """Everything that a client can show."""
    folder = tmp_path_factory.mktemp("keys")
    client = make_pair(folder, "client", authority)
    token = folder / "token"
    token.write_text(f"# for deployments\n{TOKEN}\n")
    token.chmod(0o600)
    return Keys(ca=authority.certificate, certificate=client.certificate, key=client.key, token_file=token)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Pair, keys: Keys) -> Iterator[Server]:
    """A server with mutual TLS and a token."""
    folder = tmp_path_factory.mktemp("server")
    pair = make_pair(folder, "server", authority)
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "tls_client_ca": authority.certificate}
    with running(folder / "models", token_file=keys.token_file, **settings) as made:
        yield made


def test_a_protected_server_is_asked_as_any_other(server: Server, keys: Keys) -> None:
    """Status and Predict, as a deployment asks them."""
    with connected(f"localhost:{server.port}", keys) as client:
        assert client.version_status("affine", 1, 20) is not None
        outputs = client.predict("affine", 1, "serving_default", INPUTS, 20)
    np.testing.assert_allclose(outputs["y"], np.full((1, 4), 3.0))


def test_without_what_it_wants_a_server_refuses(server: Server, keys: Keys) -> None:
    """A missing token is a refusal in words; missing TLS is no connection."""
    address = f"localhost:{server.port}"
    tls_only = Keys(ca=keys.ca, certificate=keys.certificate, key=keys.key)
    with connected(address, tls_only) as client, pytest.raises(CallFailed, match="UNAUTHENTICATED: a valid bearer"):
        client.version_status("affine", 1, 20)
    with connected(address) as client, pytest.raises(ServerUnreachable):
        client.version_status("affine", 1, 20)


def test_a_token_does_not_leave_the_machine_in_the_clear(keys: Keys) -> None:
    """To another host it takes TLS; to this one it does not."""
    plain = Keys(token_file=keys.token_file)
    for address in ("serving.example.org:8500", "10.0.0.1:8500", "[2001:db8::1]:8500"):
        with pytest.raises(DialRefused, match="in the clear"):
            plain.metadata(address)
        assert keys.metadata(address) == [("authorization", f"Bearer {TOKEN}")]
    for address in ("localhost:8500", "127.0.0.1:8500", "[::1]:8500", "unix:/run/segue"):
        assert plain.metadata(address)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, keys: Keys) -> None:
    """Half a pair, a file that is not there, a token file without a token."""
    with pytest.raises(DialRefused, match="go together"):
        Keys(certificate=keys.certificate)
    with pytest.raises(DialRefused, match=r"none\.pem: No such file"):
        Keys(ca=tmp_path / "none.pem").channel("localhost:1")
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    with pytest.raises(DialRefused, match="there is no token in it"):
        Keys(token_file=empty).metadata("localhost:1")


def test_the_command_line_refuses_before_it_converts(tmp_path: Path, keys: Keys) -> None:
    """Wrong usage, exit code 2, and no repository is made."""
    arguments = ["convert", str(tmp_path / "none"), "--name", "m", "--repository", str(tmp_path / "models")]
    arguments += ["--server", "serving.example.org:8500", "--token-file", str(keys.token_file)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert "in the clear" in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "models").exists()


def test_the_snippet_calls_a_protected_server(tmp_path: Path, keys: Keys) -> None:
    """What is printed names the files that were used, and never the token itself."""
    manifest = write_package(tmp_path / "package")
    arrays = open_package("affine", 1, tmp_path / "package").golden_arrays()
    text = snippet("affine", manifest, arrays, "host:8500", keys)
    compile(text, "snippet", "exec")
    assert f"grpc.ssl_channel_credentials(open({str(keys.ca)!r}, 'rb').read()" in text
    assert "grpc.secure_channel('host:8500', credentials" in text
    assert f"open({str(keys.token_file)!r})" in text
    assert "timeout=60, metadata=metadata)" in text
    assert TOKEN not in text
