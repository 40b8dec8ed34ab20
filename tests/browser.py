"""A headless Chromium, driven by its DevTools protocol over a pipe: what a page does for people, seen from outside.

`make browser` fetches one on Debian and its like; CHROMIUM names another. It reaches nothing but this machine.
"""

import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FETCHED = Path(__file__).resolve().parent.parent / ".cache" / "tools" / "chromium-headless-shell"
_SECONDS = 20.0
# Chromium reads commands from descriptor 3 and writes to 4; a child of Python's has its own numbers for them.
_EXEC = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def executable() -> str | None:
    """The browser of this machine, if there is one."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    return str(FETCHED) if FETCHED.exists() else None


class Browser:
    """One page of one browser."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, replies: int) -> None:
        self.events: list[dict[str, Any]] = []
        """Everything that the page has told, in its order."""
        self._process = process
        self._commands = commands
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number = 0
        self._session: str | None = None
        self._reader = threading.Thread(target=self._read, args=(replies,), daemon=True)
        self._reader.start()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its result; what the page tells meanwhile is added to `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._replies.get(timeout=_SECONDS)
            if "id" not in reply:
                self.events.append(reply)
            elif reply["id"] == self._number:
                assert "error" not in reply, reply["error"]
                result: dict[str, Any] = reply["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + _SECONDS
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not so: {condition}\n{self.run('document.body.innerText')}"
            threading.Event().wait(0.05)

    def open(self, url: str, *, width: int = 1200, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        """Load a page in a window of this size, in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme, {"name": "prefers-reduced-motion", "value": "reduce"}])
        self.send("Page.navigate", url="about:blank")  # so that a change of the fragment alone loads too
        self.send("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def picture(self) -> bytes:
        """A PNG of the window."""
        return b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[str]:
        """What the page has complained of, in the console or by an exception."""
        names = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [json.dumps(event["params"]) for event in self.events if event["method"] in names]

    def requested(self) -> list[str]:
        """Every address that the page has asked for."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def tree(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader would meet."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            self._reader.join(_SECONDS)

    def _read(self, replies: int) -> None:
        with os.fdopen(replies, "rb") as stream:
            rest = b""
            while data := os.read(stream.fileno(), 1 << 16):
                *whole, rest = (rest + data).split(b"\0")
                for message in whole:
                    self._replies.put(json.loads(message))


def _high(pipe_end: int) -> int:
    """The same descriptor under a number that the browser has no use for."""
    high = fcntl.fcntl(pipe_end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(pipe_end)
    return high


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in that folder."""
    path = executable()
    assert path is not None, "no browser: make browser, or set CHROMIUM"
    command = shutil.which(path) or path
    theirs_in, ours_out = map(_high, os.pipe())
    ours_in, theirs_out = map(_high, os.pipe())
    options = [*_OPTIONS, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # as root it has none
    arguments = [sys.executable, "-c", _EXEC, str(theirs_in), str(theirs_out), command, *options, "about:blank"]
    process = subprocess.Popen(
        arguments, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(process, ours_out, ours_in)
    try:
        yield browser
    finally:
        browser.close()
