"""Tests of `server.interpreter`."""

import subprocess
import sys
from pathlib import Path

COLLECTED = """
import gc, time, weakref
import server.app
from server.interpreter import freeze_what_is_there

class Thing: pass

def seconds():
    begin = time.perf_counter()
    gc.collect()
    return time.perf_counter() - begin

before = min(seconds() for _ in range(3))
assert freeze_what_is_there() > 10_000
after = min(seconds() for _ in range(3))
thing = Thing()
thing.itself, gone = thing, weakref.ref(thing)
del thing
gc.collect()
assert gone() is None
print(before / after)
"""

SERVED = """
import gc, os, signal, sys, threading, time
from pathlib import Path
from server.app import run
from server.config import ServerConfig

def end():
    while gc.get_freeze_count() < 10_000:
        time.sleep(0.01)
    print(sys.getswitchinterval())
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
folder = Path({repository!r})
config = ServerConfig(repository=folder, port=0, metrics_port=-1, backends="onnxruntime", lame_duck_seconds=0)
raise SystemExit(run(config))
"""


def run(script: str) -> str:
    """What a process of its own prints, for its collector is its own."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout


def test_collections_look_at_what_is_new_only() -> None:
    """A full collection takes a tenth of its time, or less, and still finds new garbage."""
    assert float(run(COLLECTED)) > 10


def test_a_server_begins_with_both(tmp_path: Path) -> None:
    """Its modules are not looked through again and again, its threads' turns are short; it ends in order then."""
    assert float(run(SERVED.format(repository=str(tmp_path)))) == 0.0005
