"""Draws the pictures in docs/images: Grafana's dashboards and the status page, of a server to which something happens.

    make pictures

takes about ten minutes, most of which a real Prometheus looks on. The dashboards are the committed ones, drawn by the
panels in Grafana's own packages; no Grafana server takes part. The figures are those of the machine that runs it.
"""

import io
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from examples.dashboard_scene import MUSIC, scene
from tests.browser import Browser, chromium
from tests.prometheus import scraping

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
GRAFANA = ROOT / "deploy" / "grafana"
PICTURES: Mapping[str, Mapping[str, str]] = {
    "backends": {"var-model": MUSIC, "var-bucket": "1,4"},
    "model": {"var-model": MUSIC},
    "server": {"without": "GPUs,GPU memory,GPU use,GPU power"},
}
"""Each dashboard's variables, and panels that have nothing to show on a machine without a GPU."""

_CACHE = ROOT / ".cache" / "pictures"
_WIDTH, _MARGIN = 1400, 16
_STATUS_SIZE = (1120, 1080)
_EVERY = 5  # seconds between two looks of Prometheus
_WATCHED = 30.0
_DRAWN = 2.0  # seconds until the last panel has found its size
_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A dashboard</title>
<link rel="stylesheet" href="main.css">
<style>.rdg-cell { block-size: 100% !important }</style>
<script>window.__grafana_public_path__ = "public/"</script>
<body><script src="main.js"></script>
"""


def main() -> None:
    """Bundle, serve, watch, draw."""
    page = _bundled()
    with (
        tempfile.TemporaryDirectory(prefix="segue-pictures-") as name,
        scene(Path(name), _CACHE / "compiled") as made,
        scraping(Path(name) / "prometheus", [made.page.split("/")[2]], every=f"{_EVERY}s") as prometheus,
        _served(page) as address,
        chromium(Path(name) / "profile") as browser,
    ):
        made.wait_until_prepared()
        begin = int(time.time())
        made.play()
        end = int(time.time())
        _draw_status_page(browser, made.page)
        for dashboard, chosen in PICTURES.items():
            query = {"dashboard": dashboard, "prometheus": prometheus.address, "from": begin, "to": end, **chosen}
            _draw(browser, f"{address}?{urlencode({**query, 'scrape': _EVERY, 'width': _WIDTH})}", dashboard)


def _bundled() -> Path:
    """The page as files that a browser can read."""
    page, modules = _CACHE / "page", _CACHE / "node_modules"
    shutil.rmtree(page, ignore_errors=True)
    icons = page / "public" / "build" / "img" / "icons"
    shutil.copytree(modules / "@grafana" / "ui" / "dist" / "public" / "img" / "icons", icons)
    shutil.copytree(GRAFANA / "dashboards", page / "dashboards")
    (page / "index.html").write_text(_PAGE)
    options = [
        "--bundle",
        "--minify",
        "--jsx=automatic",
        "--format=iife",
        "--log-level=error",
        "--define:global=window",
    ]
    loaders = ["--loader:.ttf=empty", "--loader:.woff=empty", "--loader:.woff2=dataurl"]
    command = [str(modules / ".bin" / "esbuild"), str(GRAFANA / "picture" / "main.jsx"), *options, *loaders]
    command += ['--define:process.env.NODE_ENV="production"', f"--outfile={page / 'main.js'}"]
    subprocess.run(command, check=True, env={**os.environ, "NODE_PATH": str(modules)})
    return page


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the class it overrides
        """Say nothing."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a folder's index, on this machine alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def _draw(browser: Browser, url: str, name: str) -> None:
    """Open a dashboard, and keep the whole of it."""
    width = _WIDTH + 2 * _MARGIN
    browser.open(url, width=width)
    browser.wait("window.failed || window.empty")
    if failed := browser.run("window.failed"):
        raise RuntimeError(f"{name}: {failed}")
    print(f"{name}: without data are {browser.run('window.empty')}")
    height = browser.run("document.body.scrollHeight")
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    time.sleep(_DRAWN)  # charts tell nobody when they are done
    _keep(browser.picture(), f"dashboard-{name}")


def _draw_status_page(browser: Browser, page: str) -> None:
    width, height = _STATUS_SIZE
    browser.open(f"{page}#model={MUSIC}", width=width, height=height)
    browser.wait("document.querySelector('.row')")
    time.sleep(_WATCHED)  # the page shows what it has seen
    _keep(browser.picture(), "status-page")


def _keep(png: bytes, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(IMAGES / f"{name}.png", optimize=True)  # a third of the bytes


if __name__ == "__main__":
    main()
