"""The tables of docs/backends.md and README.md, made of one result. Pure but for reading and writing the two."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.backends.figures import natives, table
from benchmarks.backends.judge import OURS, missed
from benchmarks.backends.models import ROOT

_TIMES: Final = "\N{MULTIPLICATION SIGN}"
MARKS: Final = ("<!-- backends: begin -->", "<!-- backends: end -->")
_COLUMNS: Final[Mapping[str, str]] = {
    "tensorflow": "TensorFlow", "onnxruntime-cpu": "ONNX Runtime", "openvino-cpu": "OpenVINO",
    "torch-cpu": "PyTorch, compiled", "openvino-cpu-bf16": "OpenVINO, bf16",
    "torch-cpu-bf16": "PyTorch, compiled, bf16",
}  # fmt: skip


def show(result: Mapping[str, Any]) -> str:
    """Everything, as docs/backends.md has it."""
    lines = [
        measured(result),
        "",
        table(result["rows"]),
        "",
        natives(result["rows"]),
        "",
        "| contender | largest difference to TensorFlow | root mean square |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {e['largest']:.2e} | {e['rms']:.2e} |" for name, e in result["errors"].items()]
    lines += [f"\nNot here: {reason}" for reason in result["absent"].values()]
    lines += [f"\n**Missed.** {claim[0].upper()}{claim[1:]}." for claim in missed(result)]
    return "\n".join(lines)


def measured(result: Mapping[str, Any]) -> str:
    """How many rounds, and, where the result has it, when, with which libraries, and what the processor can do."""
    words = f"Medians of {result['rounds']} rounds"
    if "measured" in result:
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        flags = f" Of the processor's flags: {', '.join(result['flags'])}." if result["flags"] else ""
        return f"{words}, {result['measured']}, {versions}.{flags}"
    return f"{words}."


def short(result: Mapping[str, Any]) -> str:
    """The table of README.md: a line for each batch, the fastest of each precision in bold."""
    names = [name for name in _COLUMNS if name in result["rows"][0]["contenders"]]
    lines = [f"| batch | {' | '.join(_COLUMNS[name] for name in names)} |", "|---" * (1 + len(names)) + "|"]
    for row in result["rows"]:
        figures = {name: row["contenders"][name] for name in names}
        best = set(_best(figures))
        cells = [f"**{_cell(figures[name])}**" if name in best else _cell(figures[name]) for name in names]
        lines.append(f"| {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: Mapping[str, Any]) -> str:
    times = f", {figure['tensorflow'][0]:.2f}{_TIMES}" if "tensorflow" in figure else ""
    return f"{figure['median_ms']:.0f}{times}"


def _best(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for names in OURS.values():
        if here := [name for name in names if name in figures]:
            yield min(here, key=lambda name: figures[name]["median_ms"])


def between_marks(text: str, content: str) -> str:
    """A document with the content in the place of what was between its marks."""
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{content}\n{MARKS[1]}{after}"


def render(result: Mapping[str, Any]) -> dict[Path, str]:
    """By file, the documents with the result's tables."""
    content = {ROOT / "docs" / "backends.md": show(result), ROOT / "README.md": short(result)}
    return {path: between_marks(path.read_text("utf-8"), tables) for path, tables in content.items()}


def write(result: Mapping[str, Any]) -> None:
    """Write both documents."""
    for path, text in render(result).items():
        path.write_text(text, "utf-8")
