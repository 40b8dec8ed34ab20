"""From what was measured to what is read: verdicts, tables, and whether the whole shows what it must."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.faster_path.judge import Measured, Verdict, always, judge

Part = Mapping[str, Any]
"""One model at one precision, as the JSON has it."""


def measured_of(row: Mapping[str, Any]) -> Measured:
    """The times of one batch size."""
    return Measured(row["alone"], row["chosen"], row["selected"], row["settled"])


def verdicts(parts: Mapping[str, Part]) -> Iterator[tuple[str, Part, Mapping[str, Any], Verdict]]:
    """By part and batch size: the part's name, the part, its row, and what became of it."""
    for name, part in parts.items():
        for row in part["rows"]:
            yield name, part, row, judge(measured_of(row))


def winners(parts: Mapping[str, Part]) -> set[str]:
    """The families that win some batch size: the fastest backend and those as fast are all theirs."""
    fast = [{family(name) for name in (verdict.fastest, *verdict.as_fast)} for *_, verdict in verdicts(parts)]
    return {name for families in fast if len(families) == 1 for name in families}


def family(backend: str) -> str:
    """A backend's family, "onnxruntime", "openvino" or "torch": its name up to the device."""
    return backend.partition("-")[0]


def losses(parts: Mapping[str, Part], precision: str) -> dict[str, list[tuple[float, str]]]:
    """By backend: where the policy that always answers by it fails at a precision, the worst first.

    Returns:
        Times the fastest backend's time, and model and batch size in words.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for _, part, row, _ in verdicts(parts):
        if part["precision"] != precision:
            continue
        for backend in row["alone"]:
            verdict = always(backend, measured_of(row))
            mine = found.setdefault(backend, [])
            if not verdict.holds:
                mine.append((verdict.ratio.median, f"{part['model']}, {row['size']}"))
    return {backend: sorted(places, reverse=True) for backend, places in found.items()}


def wrong(parts: Mapping[str, Part]) -> list[str]:
    """The choices that do not hold, in words."""
    return [
        f"{name}, {row['size']}: {_selected(row)} was selected, {verdict.fastest} is the fastest, "
        f"served in {verdict.ratio} times its time"
        for name, _, row, verdict in verdicts(parts)
        if not verdict.holds
    ]


def blind(parts: Mapping[str, Part]) -> list[str]:
    """What keeps all parts together from showing anything, in words: a constant policy would do as well."""
    lacking = sorted({"onnxruntime", "openvino", "torch"} - winners(parts))
    found = [f"no backend of {missing} wins any batch size" for missing in lacking]
    for precision in sorted({part["precision"] for part in parts.values()}):
        for backend, places in losses(parts, precision).items():
            if not places:
                found.append(f"{precision}: always answering by {backend} is as good")
    return found


def table(parts: Mapping[str, Part]) -> str:
    """Markdown: a line for each model, precision and batch size, and what each single backend would have lost."""
    if not parts:
        return "Nothing is measured yet by this rule."
    names = list(dict.fromkeys(backend for part in parts.values() for row in part["rows"] for backend in row["alone"]))
    lines = _heading(["model", "precision", "rows", *names, "selected", "served", "ratio (95 %)", "holds"])
    for _, part, row, verdict in verdicts(parts):
        cells = [part["model"], part["precision"], str(row["size"])]
        cells += [_alone(name, row, verdict) for name in names]
        cells += [_selected(row), _milliseconds(row["chosen"]), str(verdict.ratio), "yes" if verdict.holds else "NO"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_heading(["precision", "always", "fails", "worst"])]
    for precision in dict.fromkeys(part["precision"] for part in parts.values()):
        rows = sum(len(part["rows"]) for part in parts.values() if part["precision"] == precision)
        for backend, places in losses(parts, precision).items():
            worst = "; ".join(f"{ratio:.2f} ({where})" for ratio, where in places[:3])
            lines.append(f"| {precision} | {backend} | {len(places)} of {rows} | {worst} |")
    return "\n".join(lines)


def _heading(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _selected(row: Mapping[str, Any]) -> str:
    return str(row["selected"]) + ("" if row["settled"] else " (not settled)")


def _alone(name: str, row: Mapping[str, Any], verdict: Verdict) -> str:
    if name not in row["alone"]:
        return ""
    text = _milliseconds(row["alone"][name])
    return f"**{text}**" if name in {verdict.fastest, *verdict.as_fast} else text


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1e3 * median(seconds):.3g}" if median(seconds) < 1 else f"{1e3 * median(seconds):.0f}"
