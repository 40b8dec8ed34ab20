"""Starts the process that compiles a graph, bounds it, and says what became of it. No torch here."""

import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import server
from server.errors import GraphNotLoadable

_MODULE: Final = "server.lowering.compile"
_NEEDED: Final = ("torch", "onnx", "onnx2torch", "torchvision")
_REFUSED: Final = 3  # server.lowering.compile.REFUSED, which only a process with torch can import
_POLL_S: Final = 0.05
_TAIL_BYTES: Final = 2000
_NICENESS: Final = 10
# When the process hangs and nobody is left to end it, the kernel does, so long after its time.
_GRACE_S: Final = 60
_SERVED_BY: Final = "ONNX Runtime goes on serving the model."


def require_tools() -> None:
    """Make sure that what compiling needs is installed.

    Raises:
        GraphNotLoadable: it is not; says what to install.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        msg = f"compiling needs {', '.join(missing)}: install segue-serving[torch]. {_SERVED_BY}"
        raise GraphNotLoadable(msg)
    compiler = _compiler()
    if not compiler or shutil.which(compiler[0]) is None:
        name = " ".join(compiler) or "g++"
        msg = f"there is no C++ compiler {name!r}: install g++ 9 or later, or name one in CXX. {_SERVED_BY}"
        raise GraphNotLoadable(msg)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX") or "g++")


def build(
    graph: Path, work: Path, toolchain: Path, *, device: str, precision: str, seconds: float, stop: threading.Event
) -> tuple[Path, Mapping[str, Any]]:
    """Compile a graph.

    Args:
        graph: The ONNX file.
        work: An empty folder for everything that is written.
        toolchain: What is learnt about compiler and processor is kept there for the next time.
        device: "cpu" or "cuda".
        precision: A `Precision`.
        seconds: What it may take.
        stop: Set when nobody wants it any more.

    Returns:
        The shared object within `work`, and what calls of it must fit.

    Raises:
        GraphNotLoadable: it could not be made; says why and what to do.
    """
    out, temporary = work / "out", work / "tmp"
    out.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-P", "-m", _MODULE, str(graph.absolute()), str(out)]
    options = ["--device", device, "--precision", precision, "--seconds", str(seconds + _GRACE_S)]
    with (work / "log").open("wb") as log:
        status = _run([*command, *options], _environment(device, work, temporary, toolchain), log, seconds, stop)
    if status == 0:
        return out / "model.so", json.loads((out / "ports.json").read_text())
    raise GraphNotLoadable(_reason(status, out / "refusal.txt", work / "log", graph.name))


def _environment(device: str, work: Path, temporary: Path, toolchain: Path) -> dict[str, str]:
    # Symbols that are unique in the process would keep a model's file mapped for good.
    options = ["-fno-gnu-unique"]
    if device == "cpu":
        # Torch links every model with libtorch.so, which would bring the libraries of CUDA into the server. For the
        # linker this is libtorch.so: a script that names the one library that code for the CPU calls.
        stub = work / "link"
        stub.mkdir()
        (stub / "libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
        options.append(f"-L{stub}")
    own = {
        "CXX": shlex.quote(str(_program(work, options))),
        "TMPDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(toolchain),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(server.__file__).parents[1]), os.getenv("PYTHONPATH")))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return os.environ | own


def _program(work: Path, options: Sequence[str]) -> Path:
    """A program that is the compiler with these options: torch before 2.12 takes no command of several words."""
    words = _compiler()
    # torch tells compilers apart by their names.
    name = next((Path(word).name for word in words if "g++" in word or "clang" in word), Path(words[0]).name)
    program = work / "compiler" / name
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join([*words, *options])} "$@"\n')
    program.chmod(0o700)
    return program


def _run(
    command: list[str], environment: Mapping[str, str], log: BinaryIO, seconds: float, stop: threading.Event
) -> int:
    """Run to the end, or end it; its exit status."""
    deadline = time.monotonic() + seconds
    # It watches its standard input, whose other end only this process has: it ends when this process does.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
    ) as child:
        try:
            _stand_back(child.pid)
            while not _has_ended(child.pid):
                if stop.wait(_POLL_S):
                    msg = "nobody waits for the compiled model any more"
                    raise GraphNotLoadable(msg)
                if time.monotonic() > deadline:
                    msg = f"compiling took more than {seconds:.0f} s and was stopped: allow more, or do without. "
                    raise GraphNotLoadable(msg + _SERVED_BY)
        finally:
            # Before it is reaped: until then nobody else can have its number. Compilers that it started go too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return child.returncode


def _stand_back(pid: int) -> None:
    """Serving comes first, for the processor and when memory runs out."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reason(status: int, refusal: Path, log: Path, name: str) -> str:
    if status == _REFUSED and refusal.is_file():
        text = refusal.read_text().removesuffix(".")
        return f"{name} cannot be compiled: {text}."
    if status == -signal.SIGKILL:
        return f"compiling {name} was killed from outside, most likely for want of memory. {_SERVED_BY}"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"compiling {name} {how}. {_SERVED_BY} Its last words: {_tail(log)}"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
