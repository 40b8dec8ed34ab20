"""Draws docs/images/status-page.png: a server of its own, a real model, every backend of this machine, a real browser.

    make browser && python -m examples.status_page_picture

takes about two minutes. The figures are those of the machine that runs it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import numpy as np

from examples.demo import free_port
from examples.published_models import fetch
from server.wire.responses import encode_predict_request
from tests.browser import chromium

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "status-page.png"
_METHOD = "/tensorflow.serving.PredictionService/Predict"
_MODEL = "basic-pitch"
_SAMPLES = 43844  # two seconds of music
_SIZES = (1, 4, 16)
_SECONDS, _WATCHED_SECONDS = 40.0, 24.0
_WIDTH, _HEIGHT = 1120, 1080


def main() -> None:
    """Serve, ask, look, write."""
    with (
        tempfile.TemporaryDirectory(prefix="segue-picture-") as name,
        _serving(Path(name)) as (port, page),
        grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel,
        chromium(Path(name) / "profile") as browser,
    ):
        _ask(channel, page)
        browser.open(page, width=_WIDTH, height=_HEIGHT)
        browser.wait("document.querySelector('.row')")
        _ask(channel, page, seconds=_WATCHED_SECONDS)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(browser.picture())


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[int, str]]:
    """A server with the model; its port, and where its page is."""
    port, metrics_port = free_port(), free_port()
    repository, page = folder / "models", f"http://127.0.0.1:{metrics_port}/"
    options = [f"--repository={repository}", f"--port={port}", f"--metrics-port={metrics_port}"]
    kept = [f"--state-folder={folder / 'state'}", f"--cache-folder={folder / 'cache'}"]
    with subprocess.Popen([sys.executable, "-m", "server", *options, *kept]) as process:
        try:
            convert = [sys.executable, "-m", "converter", str(fetch(_MODEL) / "nmp"), "--name", _MODEL]
            where = ["--repository", str(repository), "--server", f"localhost:{port}"]
            subprocess.run([*convert, *where], check=True, stdout=subprocess.DEVNULL)
            yield port, page
        finally:
            process.terminate()


def _ask(channel: grpc.Channel, page: str, seconds: float = _SECONDS) -> None:
    """Send requests of every size for a while, and until no backend is being prepared."""
    generator = np.random.default_rng(0)
    predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
    end = time.monotonic() + seconds
    while time.monotonic() < end or _preparing(page):
        for size in _SIZES:
            music = generator.standard_normal((size, _SAMPLES, 1)).astype(np.float32)
            predict(encode_predict_request({"input_2": music}, name=_MODEL), timeout=60)


def _preparing(page: str) -> bool:
    try:
        with urlopen(f"{page}status.json?model={_MODEL}", timeout=20) as reply:  # noqa: S310 - our own server
            stages = {backend["stage"] for backend in json.load(reply)["backends"]}
    except URLError:
        return True
    return bool(stages & {"waiting", "preparing"})


if __name__ == "__main__":
    main()
