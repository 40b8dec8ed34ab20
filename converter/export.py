"""The parent's side of the export: start the worker in a private folder, follow it, and turn its end into a result.

Nothing here knows TensorFlow or ONNX. `exported` reads what the worker leaves.
"""

import dataclasses
import errno
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import converter
from converter import errors
from converter.exported import ExportResult, read_result
from converter.interruption import undisturbed
from converter.private import private_folder
from converter.worker import protocol
from converter.worker.protocol import Event, FailureKind, Job, Limits, Origin, Sample, SourceKind
from server.arrays import Array, save_arrays

Progress = Event
OnProgress = Callable[[Progress], None]

_PASSED_ON: Final = (  # of the environment; everything else stays here
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
)  # fmt: skip
_POLL_SECONDS: Final = 0.2  # how late the worker's end is noticed if a process of its own keeps the pipe open
_MAX_LINE: Final = 1 << 16
_LOG_LINES: Final = 12  # shown, without the frames of C++ stacks and what is said at every start
_LOG_BYTES: Final = 1 << 16  # of the log's end that are looked at
_LITTLE_BYTES: Final = 1 << 20  # free on a disk that is as good as full: what did not fit was larger
_NOISE: Final = re.compile(r"\s*@ |I\d{4} |WARNING: All log messages|.*cuda_platform|\*\*\* Check failure")
_OUT_OF_MEMORY_WORDS: Final = (  # from C++, Python, the loader, malloc, TensorFlow, and threads that find no stack
    "bad_alloc", "MemoryError", "failed to map segment", "Cannot allocate memory", "out of memory", "OOM when",
    "pthread_create() failed", "Resource temporarily unavailable",
)  # fmt: skip
_ERRORS: Final[Mapping[FailureKind, type[errors.ConversionError]]] = {
    FailureKind.UNLOADABLE: errors.UnloadableModel,
    FailureKind.SIGNATURE_MISSING: errors.SignatureMissing,
    FailureKind.UNSUPPORTED_OPERATOR: errors.UnsupportedOperator,
    FailureKind.EXPORT_FAILED: errors.ExportFailed,
    FailureKind.INPUTS_REJECTED: errors.InputsRejected,
    FailureKind.NONDETERMINISTIC: errors.NondeterministicModel,
    FailureKind.WEIGHTS_ONLY: errors.WeightsOnly,
    FailureKind.UNTRUSTED_CODE: errors.UntrustedCode,
    FailureKind.OUT_OF_MEMORY: errors.WorkerOutOfMemory,
    FailureKind.DISK: errors.DiskFull,
}


@dataclasses.dataclass(frozen=True)
class SampleInputs:
    """Representative inputs of one signature: arrays by alias (strings as object arrays of bytes)."""

    signature: str
    origin: Origin
    inputs: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class ExportJob:
    """What to export.

    Attributes:
        source: A SavedModel's folder, or a `.keras` or `.h5` file.
        kind: What the source is.
        tags: Which of a SavedModel's graphs.
        signatures: Their names, or None for all.
        samples: Representative inputs, best first.
        seed: Of random inputs.
        batches: Sizes of golden batches.
        opset: Of the ONNX models.
        lean_bytes: Size of variables beyond which weights are kept out of TensorFlow's graph optimizer.
        large_model_bytes: Size of variables beyond which weights go into a file of their own.
        limits: What the worker may use.
        wall_seconds: How long it may take.
    """

    source: Path
    kind: SourceKind
    tags: tuple[str, ...] = ("serve",)
    signatures: tuple[str, ...] | None = None
    samples: tuple[SampleInputs, ...] = ()
    seed: int = 0
    batches: tuple[int, ...] = (1, 2, 5)
    opset: int = 18
    lean_bytes: int = Job.lean_bytes
    large_model_bytes: int = Job.large_model_bytes
    limits: Limits = dataclasses.field(default_factory=Limits)
    wall_seconds: float = 3600.0


@contextmanager
def run_export(job: ExportJob, *, on_progress: OnProgress) -> Iterator[ExportResult]:
    """Export a model in a child process, and keep the files until the block ends.

    Call it from a thread that outlives the block: the kernel kills the worker when the thread that started it ends.

    Args:
        job: What to export.
        on_progress: Called in this thread for each thing that the worker begins.

    Raises:
        ConversionError: One of `converter.errors`, for whatever end the worker found.
    """
    with ExitStack() as stack:
        with _writing():
            folder = stack.enter_context(undisturbed(private_folder()))
            for part in (protocol.HOME, protocol.TMP):
                (folder / part).mkdir(mode=0o700)
            _write_job(job, folder)
        start = time.monotonic()
        status = _supervise(job, folder, on_progress)
        seconds = time.monotonic() - start
        if status != 0:
            raise _failure(status, job, folder)
        try:
            result = read_result(folder, seconds)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _crashed(f"The conversion process left a result that cannot be read: {error!r}.", folder) from error
        yield result


@contextmanager
def _writing() -> Iterator[None]:
    """Turn a full disk into our error."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _no_room() from error


def _no_room() -> errors.DiskFull:
    return errors.DiskFull(
        f"No space is left for the conversion in the folder for temporary files, {tempfile.gettempdir()}.",
        "Free some space there, or set TMPDIR to a folder with more. It takes a few times the model's size.",
    )


def _write_job(job: ExportJob, folder: Path) -> None:
    arrays: dict[str, Array] = {}
    samples = []
    for number, sample in enumerate(job.samples):
        keys = {alias: f"{number}/{alias}" for alias in sample.inputs}
        arrays.update({keys[alias]: array for alias, array in sample.inputs.items()})
        samples.append(Sample(sample.signature, sample.origin, keys))
    save_arrays(folder / protocol.SAMPLES, arrays)
    Job(
        source=job.source.resolve(),
        kind=job.kind,
        tags=job.tags,
        signatures=job.signatures,
        opset=job.opset,
        seed=job.seed,
        batches=job.batches,
        samples=tuple(samples),
        lean_bytes=job.lean_bytes,
        large_model_bytes=job.large_model_bytes,
        limits=job.limits,
    ).write(folder)


def _supervise(job: ExportJob, folder: Path, on_progress: OnProgress) -> int:
    """Run the worker to its end, relaying progress; whatever happens here, no process of its group is left."""
    with (folder / protocol.LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "converter.worker", str(folder)],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,  # Ctrl-C reaches us alone, and we end the group
        )
    try:
        _relay(process, time.monotonic() + job.wall_seconds, on_progress)
    except TimeoutError:
        raise errors.WorkerTimedOut(
            f"The conversion took longer than {job.wall_seconds:.0f} seconds and was stopped.",
            "Raise the limit with --time-limit SECONDS, or convert on a faster machine.",
        ) from None
    finally:
        with suppress(PermissionError):  # how macOS answers when only the ended leader is left
            os.killpg(process.pid, signal.SIGKILL)  # the group exists until we wait for its leader
        process.wait()
        assert process.stdout is not None  # noqa: S101 - it is a pipe, see above
        process.stdout.close()
    return process.returncode


def _environment(folder: Path) -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
        "HOME": str(folder / protocol.HOME),
        "TMPDIR": str(folder / protocol.TMP),
        "PYTHONPATH": str(Path(converter.__file__).resolve().parent.parent),
        "PYTHONHASHSEED": "0",  # the exporter iterates over sets
        "CUDA_VISIBLE_DEVICES": "-1",  # golden answers come from the CPU in float32
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "1",
        protocol.PARENT: str(os.getpid()),
    }


def _relay(process: subprocess.Popen[bytes], deadline: float, on_progress: OnProgress) -> None:
    """Pass progress on until the worker ends; it is not waited for, so that its group keeps its number."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(min(left, _POLL_SECONDS)):
                chunk = os.read(process.stdout.fileno(), _MAX_LINE)
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-_MAX_LINE:]
                for event in filter(None, map(Event.parse, lines)):
                    on_progress(event)
                if chunk:
                    continue
                selector.unregister(process.stdout)
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
    raise TimeoutError


def _failure(status: int, job: ExportJob, folder: Path) -> errors.ConversionError:
    """The error for a worker that ended with this status: its own, or what its death looks like."""
    if shutil.disk_usage(folder).free < _LITTLE_BYTES:
        return _no_room()  # whatever the worker could still say
    stated = _stated_failure(folder) if status == 1 else None
    if stated is not None:
        return stated
    log = _log_end(folder)
    if status == -signal.SIGXCPU:
        return errors.WorkerTimedOut(
            f"The conversion used more than {job.limits.cpu_seconds} seconds of processor time and was stopped.",
            "Convert on a faster machine, or fewer signatures at a time (--signature).",
        )
    if status == -signal.SIGKILL or any(word in log for word in _OUT_OF_MEMORY_WORDS):
        return errors.WorkerOutOfMemory(
            "The conversion process was killed or failed for lack of memory: it may use "
            f"{job.limits.memory_bytes >> 20} MiB, and the machine may have less.",
            "Convert on a machine with more memory, or fewer signatures at a time (--signature).",
        )
    how = f"with exit code {status}" if status > 0 else f"by signal {signal.Signals(-status).name}"
    return _crashed(f"The conversion process ended {how}.", folder)


def _stated_failure(folder: Path) -> errors.ConversionError | None:
    try:
        stated = json.loads((folder / protocol.ERROR).read_text())
        kind = _ERRORS[FailureKind(stated["kind"])]
        return kind(str(stated["cause"]), str(stated["advice"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _crashed(cause: str, folder: Path) -> errors.WorkerCrashed:
    lines = [line for line in _log_end(folder).splitlines() if not _NOISE.match(line)][-_LOG_LINES:]
    last = "\nIts last words:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
    return errors.WorkerCrashed(cause + last, "Please report this with the model, or a smaller one that does the same.")


def _log_end(folder: Path) -> str:
    with (folder / protocol.LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
        return log.read().decode(errors="replace")
