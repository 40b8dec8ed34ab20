"""Server processes with fixed ports: started, waited for, ended, killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from examples.demo import free_port

_POLL_SECONDS = 0.05


class ServerProcess:
    """A server that can be started again on the same port."""

    def __init__(
        self, repository: Path, *options: str, module: Sequence[str] = ("server",), log: Path | None = None
    ) -> None:
        """Make a server; nothing runs before `start`.

        Args:
            repository: What it serves.
            options: More of its command line.
            module: What Python shall run, for servers with something added to their process.
            log: The file that its standard error is added to.
        """
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", *module, "--repository", str(repository), "--port", str(self.port)]
        self._command += ["--metrics-port", "-1", "--poll-seconds", "0.2", "--backends", "onnxruntime", *options]
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 120) -> None:
        """Start it and wait until it says SERVING."""
        if self._log is None:
            self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        else:
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(self._command, stderr=log)
        wait_serving(self.address, self.process, seconds)

    def end(self, seconds: float = 60) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        assert self.process is not None  # noqa: S101 - it was started
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        assert self.process is not None  # noqa: S101 - it was started
        self.process.kill()
        self.process.wait(timeout=60)

    def resident_kilobytes(self) -> int:
        """Its memory (RSS) now."""
        assert self.process is not None  # noqa: S101 - it was started
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@contextmanager
def running(*servers: ServerProcess) -> Iterator[None]:
    """All of them for the length of the block; what still runs then is killed."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.kill()


def wait_serving(address: str, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait until a server says SERVING.

    Raises:
        RuntimeError: it has ended, or took too long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server at {address} ended with {process.returncode} before it served")
        if _is_serving(address):
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the server at {address} did not say SERVING within {seconds} s")


def _is_serving(address: str) -> bool:
    # A channel of its own each time: one that has failed waits before it tries again.
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
