"""Runs the node tests through our lowering and through bare onnx2torch, and writes the table.

`python -m benchmarks.operators` writes benchmarks/results/operators.json and docs/operators.md. The tests of operator
set 18 are fetched with pip on first use. `--table` writes the page from the JSON at hand, without running anything.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.operators import table
from benchmarks.operators.cases import Case, installed, released
from benchmarks.operators.emitted import REWRITTEN, emitted_operators, source_folder

ROOT: Final = Path(__file__).parent.parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results" / "operators.json"
DOCUMENT: Final = ROOT / "docs" / "operators.md"
_SECONDS: Final = 120.0  # for one case; collecting the cases counts as part of the first


class Child:
    """A process that runs cases until one kills it, or takes too long."""

    def __init__(self, runner: str, origin: str, operators: frozenset[str]) -> None:
        self._command = [sys.executable, "-m", "benchmarks.operators.child", runner, origin]
        self._operators = operators
        self._process: subprocess.Popen[str] | None = None

    def ask(self, case: str) -> tuple[str, str]:
        """The outcome of a case and its reason; "failed" if the process dies of it or has to be killed."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are pipes
        process.stdin.write(f"{case}\n")
        process.stdin.flush()
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            self._process = None
            return "failed", f"the process ended with {process.wait()}"
        outcome, reason = json.loads(line)
        return str(outcome), str(reason)

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(" ".join(sorted(self._operators)) + "\n")
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def run(cases: Sequence[Case], origin: str, operators: frozenset[str]) -> Iterator[dict[str, str]]:
    """Run the cases of one origin through both; what became of each, and our reason where it did not pass."""
    ours, bare = Child("ours", origin, operators), Child("onnx2torch", origin, operators)
    for case in cases:
        outcome, reason = ours.ask(case.name)
        yield {
            "case": case.name, "operator": case.operator, "ours": outcome, "onnx2torch": bare.ask(case.name)[0],
            "reason": reason,
        }  # fmt: skip
    ours.close()
    bare.close()


def measure() -> None:
    """Run everything and write the JSON."""
    emitted = emitted_operators(source_folder())
    operators = emitted | REWRITTEN
    old = list(released(operators))
    # What operator set 18 does not have yet.
    new = [case for case in installed(operators) if case.operators & REWRITTEN]
    results = [*run(old, "released", operators), *run(new, "installed", operators)]
    head = json.dumps({
        "versions": {name: version(name) for name in ("torch", "onnx", "onnx2torch", "tf2onnx")},
        "operators": sorted(operators),
    })  # fmt: skip
    rows = ",\n".join(json.dumps(row) for row in results)
    RESULTS.write_text(f'{head[:-1]}, "cases": [\n{rows}\n]}}\n', "utf-8")


def main() -> None:
    """Measure unless there is nothing to measure, and write the page; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write the page from the JSON at hand")
    if not parser.parse_args().table:
        measure()
    document = json.loads(RESULTS.read_text("utf-8"))
    DOCUMENT.write_text(table.render(document), "utf-8")
    print(table.summary(document))


if __name__ == "__main__":
    main()
