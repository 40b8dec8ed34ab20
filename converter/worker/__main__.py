"""`python -m converter.worker FOLDER`: close the sandbox, then import TensorFlow and do the job of that folder.

Standard output carries progress; whatever TensorFlow prints goes to standard error, which the parent sends to
worker.log. The exit code is 0 with result.json written, 1 with error.json written; anything else is a crash.
"""

import errno
import json
import os
import sys
from pathlib import Path

from converter.worker import sandbox
from converter.worker.protocol import ERROR, PARENT, Event, FailureKind, Job, WorkerFailure


def main(folder: Path) -> int:
    """Do the job of a private folder and return the exit code."""
    events = os.fdopen(os.dup(1), "w", buffering=1)  # ours alone: not inherited, and a line at a time
    os.dup2(2, 1)
    job = Job.read(folder)
    network = sandbox.close(job.limits, int(os.environ[PARENT]))

    def report(event: Event) -> None:
        events.write(event.line())

    try:
        report(Event("start", "starting TensorFlow"))
        from converter.worker.run import run  # noqa: PLC0415 - imports TensorFlow, which the sandbox must precede

        run(job, folder, report, network)
    except WorkerFailure as failure:
        return _give_up(folder, failure)
    except MemoryError:
        return _give_up(folder, _out_of_memory())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        cause = f"There is no room for what the conversion writes: {error}."
        return _give_up(
            folder, WorkerFailure(FailureKind.DISK, cause, "Free some space, or set TMPDIR to a folder with more.")
        )
    return 0


def _give_up(folder: Path, failure: WorkerFailure) -> int:
    text = json.dumps({"kind": failure.kind, "cause": failure.cause, "advice": failure.advice})
    (folder / ERROR).write_text(text)
    return 1


def _out_of_memory() -> WorkerFailure:
    return WorkerFailure(
        FailureKind.OUT_OF_MEMORY,
        "The conversion needs more memory than it may use.",
        "Convert on a machine with more memory, or fewer signatures at a time (--signature).",
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
