"""Does each batch go the faster way? Two real models and three of ours, two precisions, batches of 1, 4 and 16 rows.

    python -m benchmarks.faster_path [--again] [--table] [PART ...]

A part is PRECISION/MODEL and takes less than ten minutes; results go to benchmarks/results/faster_path.json part by
part, so that an interrupted run goes on where it was. The exit code is 1 unless every choice holds by the rule of
`judge` and, once all parts are done, each family of backends wins some batch size and every policy that always answers
by one backend fails.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.backends.models import ROOT
from benchmarks.faster_path import models
from benchmarks.faster_path.measuring import (
    ROWS,
    Client,
    Pace,
    measure,
    request_of,
    serving,
    settle,
    wait_for_backends,
    wait_for_calibration,
)
from benchmarks.faster_path.report import blind, table, wrong
from benchmarks.machine import describe

RESULT: Final = Path(__file__).parents[1] / "results" / "faster_path.json"
DOCUMENT: Final = ROOT / "docs" / "faster-path.md"
MARKS: Final = ("<!-- table -->", "<!-- end of table -->")
PRECISIONS: Final = ("fp32", "fastest")
PARTS: Final = tuple(f"{precision}/{model}" for precision in PRECISIONS for model in models.MODELS)

_PREPARING_SECONDS = 420.0  # compiling takes a minute for ViT-Base, and three on a busy machine
_CALIBRATING_SECONDS = 40.0
_PACES: Final[Mapping[str, Pace]] = {"vit": Pace(rounds=5, seconds=0.6, settling=30.0)}


def run(part: str, folder: Path) -> dict[str, Any]:
    """Measure one part with a server of its own.

    Args:
        part: Its name.
        folder: For models and for what backends compile; both are used again.
    """
    precision, model = part.split("/")
    load = os.getloadavg()[0]
    repository = models.make(model, folder)
    with serving(repository, folder, "--precision", precision) as channel:
        client = Client(channel, model)
        absent = wait_for_backends(client, _PREPARING_SECONDS)
        wait_for_calibration(client, _CALIBRATING_SECONDS)
        rows = measured_rows(client, {size: request_of(repository, model, size) for size in ROWS})
    return {"model": model, "precision": precision, "load_before": load, "absent": absent, "rows": rows}


def measured_rows(client: Client, requests: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """All batch sizes, measured once each has settled: what is pinned in one teaches the server about the others."""
    pace = _PACES.get(client.model, Pace())
    choices = {size: settle(client, size, request, pace) for size, request in requests.items()}
    return [
        {"size": size, **asdict(measure(client, request, pace, choices[size]))} for size, request in requests.items()
    ]


def render(text: str, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The document with the table in its place."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(parts)}\n{MARKS[1]}{after}"


def results(file: Path = RESULT) -> dict[str, dict[str, Any]]:
    """The parts that are done, by name, in the order of PARTS."""
    done = json.loads(file.read_text("utf-8"))["parts"] if file.exists() else {}
    return {name: done[name] for name in PARTS if name in done}


def main() -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--again", action="store_true", help="also parts that are done")
    parser.add_argument("--table", action="store_true", help="only print the table, and put it into the document")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "faster-path", help="for what is made")
    parser.add_argument("--result", type=Path, default=RESULT, help="the JSON file")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}")
    for part in () if options.table else options.parts or PARTS:
        if part not in results(options.result) or options.again:
            options.folder.mkdir(parents=True, exist_ok=True)
            print(part, flush=True)
            done = results(options.result) | {part: run(part, options.folder)}
            options.result.write_text(json.dumps({"machine": describe(), "parts": done}, indent=1) + "\n", "utf-8")
    done = results(options.result)
    print(table(done))
    if options.table:
        DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8"), done), "utf-8")
    found = wrong(done) + (blind(done) if len(done) == len(PARTS) else [])
    print("\n".join(found) or "the faster path was chosen")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
