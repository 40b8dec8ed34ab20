"""Who may call: one gate before every method of every service, by bearer token.

Only health's Check and Watch pass without: load balancers ask them, have no token, and learn nothing but whether the
server serves. The gate answers before a byte of the request is read, and its text is the same whatever was wrong.
"""

import hashlib
import hmac
import logging
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from server.services.renewal import FilesRefused, Renewal
from server.services.transport import Rpc

logger = logging.getLogger(__name__)

OPEN = frozenset({b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"})
"""Methods that need no token."""

REFUSAL = "a valid bearer token is required"

_LEAST_LENGTH = 16
_MOST_TOKENS = 64


class TokensRefused(FilesRefused):
    """The file cannot be used; the text names it, and never what is in it."""


class Tokens:
    """The tokens of a file. Kept as digests, whose length tells nothing."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Args:
            file: A token a line; empty lines and those that begin with # are left out.

        Raises:
            TokensRefused: It cannot be read, others can read it too, or what is in it are no tokens.
        """
        self._file = file
        self.renewal = Renewal(
            (file,), lambda: _read(file), self._renewed, name="tokens", kept="the tokens of before remain valid"
        )
        """Reads the file again when it changes."""

    def accept(self, token: str) -> bool:
        """Whether it is one of them. Takes the same time wherever it differs, and never looks at the file."""
        digest = _digest(token)
        found = False
        for each in self.renewal.value:
            found |= hmac.compare_digest(each, digest)
        return found

    def _renewed(self, digests: Sequence[bytes]) -> None:
        logger.info("%d token(s) are valid now: %s has changed", len(digests), self._file)


class Gate:
    """Lets through who shows a token; see edge.Permission."""

    def __init__(self, tokens: Tokens, refused: Callable[[str], None]) -> None:
        """Make a gate.

        Args:
            tokens: Those that open it.
            refused: Called with the client's address for each call that is turned away.
        """
        self._tokens = tokens
        self._refused = refused

    def permits(self, rpc: Rpc) -> bool:
        """Whether this call may go on."""
        if rpc.method in OPEN or self._permits(rpc.metadata):
            return True
        self._refused(rpc.peer())
        return False

    def _permits(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        given = [value for key, value in metadata if key == "authorization"]
        if len(given) != 1 or not isinstance(given[0], str):
            return False
        scheme, _, token = given[0].partition(" ")
        return scheme.lower() == "bearer" and self._tokens.accept(token.strip())


def _read(file: Path) -> Sequence[bytes]:
    try:
        mode = file.stat().st_mode
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise TokensRefused(f"{file}: {error.strerror}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise TokensRefused(f"{file}: every user can read these tokens, so they are worth nothing: chmod o= {file}")
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith(b"#")]
    if not 1 <= len(tokens) <= _MOST_TOKENS:
        raise TokensRefused(f"{file}: {len(tokens)} tokens; there must be one to {_MOST_TOKENS}, one a line")
    for token in tokens:
        if len(token) < _LEAST_LENGTH or not all(0x21 <= byte <= 0x7E for byte in token):
            raise TokensRefused(
                f"{file}: a token has at least {_LEAST_LENGTH} visible ASCII characters and no space; "
                "make one with: openssl rand -hex 32"
            )
    return [_digest(token.decode()) for token in tokens]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
