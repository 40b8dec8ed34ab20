"""The result of the PyTorch check as Markdown. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_TIMES: Final = ("times native", "times native-autocast")


def show(result: Mapping[str, Any]) -> str:
    """Tables of whatever there is, and what did not work."""
    parts = [_facts, _builds, _errors, _speeds, _served, _problems]
    return "\n\n".join(text for part in parts if (text := "\n".join(part(result))))


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    machine, weights, answers = (result.get(name, {}) for name in ("machine", "weights", "answers"))
    yield f"{machine.get('torch_gpu', machine.get('processor', ''))}, torch {machine.get('torch', '')}"
    if weights:
        counts = ", ".join(f"{name} {count:,}" for name, count in weights["parameters"].items())
        yield f"native: {weights['native']}; parameters: {counts}: {_word(weights['equal'])}"
    for name, one in result.get("graphs", {}).items():
        yield f"{name}: {one['breaks']} graph breaks, {one['graphs']} graph(s) for batches 4, 16 and 1"
    if answers:
        said = answers["problem"] or _word(holds=True)
        where = f"from the native model over {answers['images']} images"
        yield f"float32, not compiled: {answers['difference']:.2e} {where}: {said}"


def _builds(result: Mapping[str, Any]) -> Iterator[str]:
    builds = result.get("builds", {})
    if builds:
        yield from _head("compiled ahead of time", "s", "MiB", "GPU MiB", "problem")
    for name, one in builds.items():
        size = f"{one['bytes'] / 2**20:.0f}" if one["bytes"] else ""
        yield _row(name, f"{one['seconds']:.0f}", size, one.get("gpu_memory_mib", ""), one["problem"][:200])


def _errors(result: Mapping[str, Any]) -> Iterator[str]:
    errors = result.get("errors", {})
    if errors:
        yield from _head("to float64", "ours rms (largest)", "native", "native autocast", "ours / native")
    for precision, row in errors.items():
        cells = [
            f"{row[name]['rms']:.2e} ({row[name]['largest']:.2e})" if name in row else ""
            for name in ("ours", "native", "native-autocast")
        ]
        ratio = f"{row['ratio']:.2f}: {_word(row['holds'])}" if "ratio" in row else ""
        yield _row(precision, *cells, ratio)


def _speeds(result: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in result if name.startswith(("speed ", "compiled "))]
    if names:
        yield from _head("what", "batch", "ours, ms", "native, ms", "times native (95 %)", "times autocast", "holds")
    for name in names:
        for batch, row in result[name].items():
            medians = [f"{row[one]['median_ms']:.2f}" if one in row else "" for one in ("ours", "native")]
            ratios = ["{:.2f} ({:.2f}-{:.2f})".format(*row[one]) if one in row else "" for one in _TIMES]
            yield _row(name, batch, *medians, *ratios, _word(row["holds"]) if "holds" in row else "")


def _served(result: Mapping[str, Any]) -> Iterator[str]:
    served = result.get("served", {})
    if served:
        yield from _head("served", "load, s", "first answer, s", "median ms by batch", "GPU MiB", "problem")
    for precision, one in served.items():
        if one["problem"]:
            yield _row(precision, "", "", "", "", one["problem"][-200:])
        else:
            times = ", ".join(f"{batch}: {row['median_ms']:.2f}" for batch, row in one["batches"].items())
            memory = f"{one['gpu_memory_mib']:.0f}"
            yield _row(precision, f"{one['load_s']:.2f}", f"{one['first_answer_s']:.2f}", times, memory, "")


def _problems(result: Mapping[str, Any]) -> Iterator[str]:
    for name, step in result["steps"].items():
        if step["problem"]:
            yield f"{name} {step['problem']}"


def _word(holds: bool) -> str:  # noqa: FBT001 - the one thing it is about
    return "holds" if holds else "DOES NOT HOLD"


def _head(*cells: str) -> tuple[str, str]:
    return _row(*cells), "|" + "---|" * len(cells)


def _row(*cells: object) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()) for cell in cells) + " |"
