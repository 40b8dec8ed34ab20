"""HTTP/2 by hand, for what no well-behaved client does: `python -m tests.e2e.http2 PORT SECONDS` is a reset flood.

RFC 9113 gives the frames and RFC 7541 the header blocks.
"""

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
MAX_CONCURRENT_STREAMS = 3
_ACK = 0x1
_END_HEADERS = 0x4
_CANCEL = struct.pack(">I", 8)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(index: int, value: bytes) -> bytes:
    """A header whose name is in the static table, as a literal that enters no table."""
    prefix = bytes([index]) if index < 15 else bytes([15, index - 15])
    return prefix + bytes([len(value)]) + value


def request_headers(path: str) -> bytes:
    """The header block of a gRPC call: POST, http, path, authority, content type, te."""
    static = bytes([0x83, 0x86]) + literal(4, path.encode()) + literal(1, b"localhost")
    return static + literal(31, b"application/grpc") + b"\x00\x02te\x08trailers"


class Connection:
    """A connection that has said hello."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        self._stream = -1

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and payload of what comes, until the other side ends it; answers settings and pings."""
        while (head := self._read(9)) is not None:
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = self._read(length) or b""
            if kind in {SETTINGS, PING} and not flags & _ACK:
                with suppress(OSError):  # the other side may have gone by now
                    self.socket.sendall(frame(kind, _ACK, 0, payload if kind == PING else b""))
            yield kind, flags, payload

    def ping(self, times: int) -> None:
        """Ask so often, at once, whether the other side is there."""
        self.socket.sendall(frame(PING, 0, 0, bytes(8)) * times)

    def begin_and_reset(self, path: str, calls: int) -> None:
        """Begin calls and reset each at once."""
        block = request_headers(path)
        out = bytearray()
        for _ in range(calls):
            self._stream += 2
            out += frame(HEADERS, _END_HEADERS, self._stream, block) + frame(RST_STREAM, 0, self._stream, _CANCEL)
        self.socket.sendall(out)

    def _read(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except OSError:
                return None
            if not part:
                return None
            data += part
        return data


@contextmanager
def connected(port: int) -> Iterator[Connection]:
    """A connection for the length of the block."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.socket.close()


def read_all(connection: Connection) -> None:
    """Read to the end, so that the other side can always write."""
    for _ in connection.frames():
        pass


def flood(port: int, seconds: float) -> int:
    """Begin and reset calls as fast as possible, over new connections when the old ones are ended; returns how many."""
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with connected(port) as connection:
                threading.Thread(target=read_all, args=(connection,), daemon=True).start()
                while time.monotonic() < end:
                    connection.begin_and_reset("/tensorflow.serving.PredictionService/Predict", 50)
                    done += 50
        except OSError:
            continue
    return done


if __name__ == "__main__":
    print(flood(int(sys.argv[1]), float(sys.argv[2])))
