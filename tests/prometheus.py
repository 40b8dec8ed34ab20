"""A real Prometheus, and its promtool: found by PROMETHEUS and PROMTOOL, or where `make prometheus` puts them."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from examples.demo import free_port

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
_SECONDS = 60.0


def tool(name: str) -> Path:
    """Where "prometheus" or "promtool" is; a test that needs what is not there is skipped, with what to do."""
    candidates = (os.environ.get(name.upper()), ROOT / ".cache" / "tools" / "usr" / "bin" / name, shutil.which(name))
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    pytest.skip(f"there is no {name}: make prometheus fetches it where packages are Debian's, or set {name.upper()}")


class Prometheus:
    """One that runs."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers."""
        with urlopen(f"{self.address}/api/v1/{path}?{urlencode(query)}", timeout=_SECONDS) as reply:  # noqa: S310 - our own
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The series of an expression, now."""
        result: list[Any] = self.ask("query", query=expression)["result"]
        return result

    def until(self, expression: str) -> list[Any]:
        """Wait until an expression has a series."""
        end = time.monotonic() + _SECONDS
        while not (found := self.query(expression)):
            assert time.monotonic() < end, f"nothing for {expression}"
            time.sleep(0.1)  # it is Prometheus that decides when it looks
        return found


@contextmanager
def scraping(
    folder: Path, targets: Sequence[str], rules: Path | None = None, every: str = "500ms"
) -> Iterator[Prometheus]:
    """A Prometheus that looks at servers.

    Args:
        folder: For its data.
        targets: HOST:PORT of metrics.
        rules: Its alerts.
        every: How often it looks, as Prometheus writes it.
    """
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{"job_name": "segue", "static_configs": [{"targets": list(targets)}]}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
    port = free_port()
    command = [str(tool("prometheus")), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    command += ["--enable-feature=exemplar-storage", "--log.level=warn"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder) as process,
    ):
        try:
            _wait_until_ready(process, port, folder / "log")
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=_SECONDS):
                return
        except URLError:
            time.sleep(0.1)  # it says in no other way that it is ready
    raise AssertionError(f"Prometheus does not become ready: {log.read_text()}")
