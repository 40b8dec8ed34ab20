"""The results of the node tests as a page for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.operators.cases import LEFT_OUT, RANDOM, RELEASE
from server.lowering.control import CONTROL
from server.lowering.foreign import REVIEWED
from server.lowering.layers import LAYERS
from server.lowering.operators import OPERATORS

_HEAD: Final = """# Operators of the PyTorch path

Made by `python -m benchmarks.operators`; do not edit.

The ONNX standard comes with tests for every operator. Those of operator set 18 (from onnx 1.13.1), and those of the
installed onnx for operators that are newer, are run through Segue's lowering and, for comparison, through onnx2torch
alone, each in a process of its own. The operators are all that tf2onnx can write, read off its source, and those that
Segue's own rewrites of a graph bring in. The end of this page lists what is left out. "Expanded" tests hold the
standard's own definition of an operator in simpler ones.

Every test is run twice: as it is, and with all inputs but the first as constants, which is what weights and shapes are
in a model. Segue must be right both times; of onnx2torch, which takes some inputs only as constants, the better result
counts.

Where onnx2torch's converter is right in every use that ONNX allows, it supplies the operator: those converters were
read one by one, and pass every test here when Segue asks for them. (By itself onnx2torch does not find its converters
for the newer forms of GreaterOrEqual and LessOrEqual.) Where Segue supplies it, "why" says what onnx2torch's lacks or
gets wrong.

* **passed**: number, element types, shapes and values of the outputs are right, within the standard's tolerance (for
  half-precision numbers, two units in the last place).
* **refused**: an error names the operator and the reason before anything is computed. ONNX Runtime serves the model.
* **failed**: an error, or a crash, when the module runs. It cannot be mistaken for an answer either.
* **wrong**: an answer, and it is not the right one.

"""


# What neither supplies, and why.
_REFUSED: Final[Mapping[str, str]] = {
    "Multinomial": "what it draws at random could not be proved against TensorFlow's",
    "StringNormalizer": "torch has no strings",
}


def _counts(cases: Sequence[Mapping[str, Any]], runner: str, operator: str | None = None) -> Counter[str]:
    return Counter(case[runner] for case in cases if operator in {None, case["operator"]})


def summary(document: Mapping[str, Any]) -> str:
    """All cases in two lines."""
    lines = []
    for runner in ("ours", "onnx2torch"):
        counts = _counts(document["cases"], runner)
        share = 100 * counts["passed"] / max(counts.total(), 1)
        parts = ", ".join(f"{counts[kind]} {kind}" for kind in ("passed", "refused", "failed", "wrong"))
        lines.append(f"{runner}: {parts} of {counts.total()} ({share:.1f} % passed)")
    return "\n".join(lines)


def lost(document: Mapping[str, Any]) -> list[str]:
    """Cases that onnx2torch alone gets right and we do not."""
    return [
        case["case"] for case in document["cases"] if case["ours"] != "passed" and case["onnx2torch"] == "passed"
    ]  # fmt: skip


def supplier(operator: str) -> tuple[str, str]:
    """Whose code computes an operator, and why: what onnx2torch's lacks where it is ours."""
    if operator in CONTROL:
        return "Segue", "torch's higher-order operators; onnx2torch has none"
    if operator in OPERATORS:
        return "Segue", OPERATORS[operator].why
    if operator in REVIEWED:
        layer = "; a Linear where the weights are constants: Segue" if operator in LAYERS else ""
        return "onnx2torch", f"right as it is{layer}"
    return "—", f"refused: {_REFUSED.get(operator, 'nobody has read what it means')}"


def untested(operator: str) -> str:
    """Why no test of the table is of an operator."""
    return "no test: its answers are random" if operator in RANDOM else f"no test: onnx {RELEASE} has none of it alone"


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    cases, versions = document["cases"], document["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        _HEAD + f"With {named}:\n", "```", summary(document), "```", "",
        "| operator | supplied by | why | passed | refused | failed | wrong | onnx2torch: passed | other | wrong |",
        "|" + "---|" * 10,
    ]  # fmt: skip
    for operator in [*document["operators"], "(expanded)"]:
        own, bare = _counts(cases, "ours", operator), _counts(cases, "onnx2torch", operator)
        who, why = supplier(operator) if operator != "(expanded)" else ("", "several operators each")
        if not own.total():
            why = f"{why}; {untested(operator)}"
        row = [operator, who, why, *(own[kind] for kind in ("passed", "refused", "failed", "wrong"))]
        row += [bare["passed"], bare["refused"] + bare["failed"], bare["wrong"]]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    lines += ["", "## What is refused, and why", ""]
    lines += [
        f"* `{case['case']}`: {case['ours']}, {case['reason'].split('. The model')[0]}"
        for case in cases
        if case["ours"] != "passed"
    ]
    lines += ["", "## What is left out, and why", ""]
    lines += [f"* `{RELEASE}/{name}`: {why}" for name, why in LEFT_OUT.items()]
    lines += [f"* all tests that hold one of {', '.join(sorted(RANDOM))}: the answers are random"]
    return "\n".join(lines) + "\n"
