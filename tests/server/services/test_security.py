"""Tests of `server.services.security`: combinations that would expose a server against its operator's intention."""

from pathlib import Path
from typing import Any

import pytest

from server.config import ServerConfig
from server.services.security import SecurityRefused, is_loopback, secure
from tests.certificates import Pair, make_authority, make_pair

ANYWHERE = "0.0.0.0"  # noqa: S104 - a setting that is judged; nothing listens


def words(**settings: Any) -> str:
    """What the log would say of these settings."""
    return secure(ServerConfig(**settings), lambda _peer: None).words


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Of clients."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, authority: Pair) -> dict[str, Path]:
    """Settings for TLS."""
    pair = make_pair(tmp_path_factory.mktemp("pair"), "server", authority)
    return {"tls_certificate": pair.certificate, "tls_key": pair.key}


@pytest.fixture
def token(tmp_path: Path) -> dict[str, Path]:
    """Settings for a token."""
    file = tmp_path / "tokens"
    file.write_text("a-token-of-some-length")
    file.chmod(0o600)
    return {"token_file": file}


def test_a_token_never_travels_in_the_clear_unawares(token: dict[str, Path], tls: dict[str, Path]) -> None:
    """Beyond loopback it needs TLS, or the operator's word that a proxy ends it."""
    with pytest.raises(SecurityRefused, match="in the clear: add --tls-certificate and --tls-key, or --allow-plain"):
        words(host=ANYWHERE, **token)
    assert words(host=ANYWHERE, **token, **tls) == "TLS, bearer token"
    assert words(host=ANYWHERE, **token, allow_plaintext_token=True) == "no TLS, bearer token"
    assert words(**token) == "no TLS, bearer token"


def test_admin_is_never_open_to_the_network(token: dict[str, Path], tls: dict[str, Path], authority: Pair) -> None:
    """TLS alone says who the server is, not who calls: it takes a token, clients' certificates, or loopback."""
    for settings in ({}, tls):
        with pytest.raises(SecurityRefused, match=r"--admin on 0\.0\.0\.0 would let the whole network"):
            words(host=ANYWHERE, admin=True, **settings)
    assert words(admin=True) == "no TLS, no token"
    assert words(host=ANYWHERE, admin=True, **tls, **token) == "TLS, bearer token"
    mutual = {**tls, "tls_client_ca": authority.certificate}
    assert words(host=ANYWHERE, admin=True, **mutual) == "mutual TLS, no token"


def test_whether_callers_are_asked_who_they_are(token: dict[str, Path], tls: dict[str, Path], authority: Pair) -> None:
    """By a token or their own certificate; the server's certificate asks nobody."""

    def asks(**settings: Any) -> bool:
        return secure(ServerConfig(**settings), lambda _peer: None).asks_who

    assert not asks()
    assert not asks(**tls)
    assert asks(**token)
    assert asks(**tls, tls_client_ca=authority.certificate)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        (ANYWHERE, False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, *, local: bool) -> None:
    """A name that merely looks like it is not."""
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tls_certificate": Path("c")}, "go together"),
        ({"tls_key": Path("k")}, "go together"),
        ({"tls_client_ca": Path("c")}, "tls_client_ca needs"),
        ({"tls_certificate": Path("c"), "tls_key": Path("k"), "ssl_config_file": Path("s")}, "same thing"),
        ({"otlp_endpoint": "collector:4317"}, "http://"),
        ({"log_format": "xml"}, "console, json"),
    ],
)
def test_half_a_set_of_settings_is_refused(settings: dict[str, Any], text: str) -> None:
    """A forgotten option never ends as a server without TLS."""
    with pytest.raises(ValueError, match=text):
        ServerConfig(**settings)
