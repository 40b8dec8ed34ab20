"""The main job on a real model, from nothing to an answered request: `make demo`. It cleans up after itself."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from examples.published_models import fetch

BIN = Path(sys.executable).parent


def main() -> int:
    """Run the demonstration; returns the exit code."""
    say("1. A real TensorFlow model: the SavedModel inside basic-pitch 0.4.0")
    saved_model = fetch("basic-pitch") / "nmp"
    print(f"  {saved_model}")
    with tempfile.TemporaryDirectory(prefix="segue-demo-") as name:
        repository = Path(name) / "models"
        port = free_port()
        address = f"localhost:{port}"
        say(f"2. A server, with no model yet and without TensorFlow: segue-server --repository {repository}")
        with serving(repository, port):
            say(f"3. One command: convert-and-deploy nmp --name basic-pitch --server {address}")
            options = ["--name", "basic-pitch", "--repository", str(repository), "--server", address]
            run([BIN / "convert-and-deploy", saved_model, *options])
            say("4. The client that was there before, unchanged")
            run([sys.executable, "-m", "examples.client", address, "basic-pitch", saved_model], quiet=True)
    say("Done: the server has ended and nothing is left behind. `make serve` keeps one running.")
    return 0


def say(text: str) -> None:
    """A heading between the outputs of other programs."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(command: Sequence[str | Path], *, quiet: bool = False) -> None:
    """Run a program in the foreground; the demonstration ends if it fails.

    Args:
        command: The program and its arguments.
        quiet: Keep its standard error, where TensorFlow chats, for the case that it fails.
    """
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE if quiet else None, text=True)
    if done.returncode != 0:
        print(done.stderr or "", file=sys.stderr)
        sys.exit(f"\n{Path(command[0]).name} ended with status {done.returncode}")


@contextmanager
def serving(repository: Path, port: int) -> Iterator[None]:
    """A server process for the length of the block, ended with SIGTERM as in production."""
    options = ["--repository", str(repository), "--port", str(port), "--metrics-port", "0"]
    with subprocess.Popen([BIN / "segue-server", *options]) as process:
        try:
            wait_until_listening(process, port)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_listening(process: "subprocess.Popen[bytes]", port: int, seconds: float = 60.0) -> None:
    """Return once the port accepts connections."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"the server ended with status {process.returncode} before it listened")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"the server did not listen on port {port} within {seconds:.0f} s")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
