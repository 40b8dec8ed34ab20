"""README's figures, each made of a result that a benchmark wrote: `python -m benchmarks.readme`.

A figure stands between two comments that name it; run this after measuring. (The table of backends is written by
`benchmarks.backends` itself.) Pure but for reading the results and writing README.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.served import show

ROOT: Final = Path(__file__).parent.parent
DOCUMENT: Final = ROOT / "README.md"
RESULTS: Final = Path(__file__).parent / "results"


def conversion(result: Mapping[str, Any]) -> str:
    """How long conversions took, and how close their answers are."""
    lines = ["| model | source | seconds | largest difference | elements compared | variables kept |", "|---" * 6 + "|"]
    for row in result["rows"]:
        cells = (
            row["model"],
            f"{row['source_megabytes']} MB",
            row["seconds"],
            f"{row['max_absolute_difference']:.1e}",
            f"{row['elements_compared']:,}",
            f"{row['variables_mapped']} of {row['variables']}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def request_path(result: Mapping[str, Any]) -> str:
    """Requests to a model that computes next to nothing, beside bare echoes."""
    lines = ["| server | concurrency | requests/s | p50 µs | p99 µs |", "|---" * 5 + "|"]
    for row in result["rows"]:
        figures = (f"{row[name]:.0f}" for name in ("per_second", "p50_us", "p99_us"))
        lines.append(f"| {row['server']} | {row['concurrency']} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", *_verdicts(result)])


def served(result: Mapping[str, Any]) -> str:
    """What serving adds to ViT-Base."""
    return show({int(callers): each["figures"] for callers, each in result.items()})


def overload(result: Mapping[str, Any]) -> str:
    """Three times the load that can be borne."""
    return "\n".join(_verdicts(result))


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    return [f"- {verdict}" for verdict in result["verdicts"]]


FIGURES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "conversion": conversion,
    "request_path": request_path,
    "served": served,
    "overload": overload,
}


def render(text: str) -> str:
    """README with the figures of the results that are there.

    Raises:
        ValueError: A figure has no place in it.
    """
    for name, make in FIGURES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"README has no place for {name}: {begin}")
        result = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        text = f"{before}{begin}\n{make(result)}\n{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8")), "utf-8")
