"""Every operator against the ONNX standard's own node tests; `python -m benchmarks.operators` makes the table of it."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from onnx2torch import convert

from benchmarks.operators import __main__ as command
from benchmarks.operators import child, table
from benchmarks.operators.cases import LEFT_OUT, RELEASE, Case, frozen, installed, released
from benchmarks.operators.emitted import REWRITTEN, emitted_operators, source_folder
from server.lowering.control import CONTROL
from server.lowering.foreign import REVIEWED
from server.lowering.operators import OPERATORS
from tests.server.lowering.graphs import Array, model, numbers, require_lowered

# torch has no strings, and no generator that draws what another one draws.
_REFUSED = {"Multinomial", "StringNormalizer"}


@pytest.fixture(scope="module")
def emitted() -> frozenset[str]:
    """What tf2onnx can write."""
    return emitted_operators(source_folder())


@pytest.fixture
def quiet() -> Iterator[None]:
    """The standard's test data are made by code that divides by zero on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_the_list_of_operators_is_read_off_the_exporter(emitted: frozenset[str]) -> None:
    """Made in each of tf2onnx's ways: by name, as a replacement, by a decorator, by a new type; not by a comparison."""
    assert {"Add", "Conv", "GRU", "Loop", "Resize", "EyeLike", "Det", "Upsample", "Mod"} <= emitted
    assert not {"MaxRoiPool", "QLinearConv", "TreeEnsembleClassifier", "placeholder"} & emitted


def test_every_operator_that_an_export_can_hold_is_decided_on(emitted: frozenset[str]) -> None:
    """Each has an entry of ours, a reviewed converter of onnx2torch's, or a reason to be refused."""
    supplied = set(OPERATORS) | set(REVIEWED) | set(CONTROL)
    assert (emitted | REWRITTEN) - supplied == _REFUSED
    assert not set(OPERATORS) & set(REVIEWED)


@pytest.mark.parametrize(
    ("graph", "constants", "data"),
    [
        ("g (float[3,4] x) => (float[3,4] y) { y = Trilu(x, k) }", {"k": np.array([1])}, numbers(3, 4)),
        (
            "g (float[4] x) => (uint8[4] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }",
            {}, np.zeros(4, np.float32),
        ),
    ],
)  # fmt: skip
def test_what_the_standards_tests_leave_out_is_as_in_its_reference(
    graph: str, constants: dict[str, Array], data: Array
) -> None:
    """The implementation in Python that comes with the standard decides where its words do not."""
    require_lowered(model(graph, **constants), data)


def test_the_published_table_is_that_of_these_operators(emitted: frozenset[str]) -> None:
    """The page is made of the results, and the results of what the exporter can write today."""
    document = json.loads(command.RESULTS.read_text("utf-8"))
    assert document["operators"] == sorted(emitted | REWRITTEN)
    assert command.DOCUMENT.read_text("utf-8") == table.render(document)
    require_bar(document["cases"])


def test_the_page_says_what_was_not_run_and_why() -> None:
    """Tests that are left out are listed by name, and a row without tests says why it has none."""
    document = {"versions": {}, "operators": ["Abs", "RandomNormal", "SequenceEmpty"], "cases": []}
    text = table.render(document)
    assert all(f"`{RELEASE}/{name}`: {why}" in text for name, why in LEFT_OUT.items())
    assert {why for name, why in LEFT_OUT.items() if "BFLOAT16" in name}.isdisjoint(
        why for name, why in LEFT_OUT.items() if "dropout" in name
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "its answers are random" in rows["RandomNormal"]
    assert "has none of it alone" in rows["SequenceEmpty"]


def test_every_row_says_why(emitted: frozenset[str]) -> None:
    """Whoever supplies an operator, there is a reason; what is refused has one of its own."""
    for operator in emitted | REWRITTEN:
        who, why = table.supplier(operator)
        assert why, operator
        assert (who == "—") == (operator in _REFUSED)
    assert "nobody" not in "".join(table.supplier(operator)[1] for operator in _REFUSED)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("g (float[3,4] x) => (bool[3,4] y) { y = EyeLike<dtype=9>(x) }", np.eye(3, 4, dtype=bool)),
        ("g (float[3,4] x) => (float[3,4] y) { y = EyeLike<k=5>(x) }", np.zeros((3, 4), np.float32)),
        ("g (float[1,2,1] x) => (float[1,2,1] y) { y = InstanceNormalization(x, s, b) }", numbers(1, 2, 1)),
    ],
)
def test_what_looks_right_of_onnx2torchs_and_is_not(text: str, wanted: Array) -> None:
    """The reasons that no test of the standard shows: what it breaks on, ours computes."""
    constants = {"s": numbers(2, seed=1), "b": wanted.reshape(-1)} if "(x, s, b)" in text else {}
    x = numbers(*wanted.shape, seed=2)
    case = Case("own", model(text, **constants), (((x,), (wanted,)),))
    assert child.outcome(case, child.bare)[0] in {child.FAILED, child.REFUSED}
    assert child.outcome(case, child.ours) == (child.PASSED, "")


def test_onnx2torchs_transpose_writes_into_itself() -> None:
    """Which is why it is not used: a module that is traced must be the same after it ran."""
    module = convert(model("g (float[n,3] x) => (float[3,n] y) { y = Transpose(x) }"))
    (transpose,) = (one for one in module.modules() if hasattr(one, "perm"))
    assert transpose.perm is None
    module(torch.zeros(2, 3))
    assert transpose.perm == [1, 0]


def require_bar(cases: list[dict[str, str]]) -> None:
    """Assert what is promised: 98 % right, none wrong or broken, none lost that onnx2torch alone gets right."""
    outcomes = Counter(case["ours"] for case in cases)
    assert set(outcomes) <= {"passed", "refused"}
    assert outcomes["passed"] >= 0.98 * outcomes.total()
    assert not table.lost({"cases": cases})


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_no_operator_is_silently_wrong(emitted: frozenset[str]) -> None:
    """On the newest form of every operator: right, or an error; and right for what our rewrites add."""
    outcomes = {}
    for case in installed(emitted | REWRITTEN):
        if case.operator != "(expanded)":
            outcomes[case.name] = (case, *child.both_forms(case, child.ours, best=False))
    assert len(outcomes) > 500
    assert not [(name, why) for name, (_, kind, why) in outcomes.items() if kind == child.WRONG]
    assert not [(name, why) for name, (case, kind, why) in outcomes.items() if kind != child.PASSED and is_ours(case)]


def is_ours(case: Case) -> bool:
    """Whether a case is of an operator that our own rewrites write."""
    return case.operator in REWRITTEN


@pytest.mark.usefixtures("quiet")
def test_a_wrong_answer_is_found_out() -> None:
    """The measure itself: a runner that is off, of another dtype or shape, or that raises, does not pass."""
    case = next(case for case in installed(frozenset({"Tanh"})) if case.operator == "Tanh")
    right = child.ours(case)
    assert child.outcome(case, lambda _: right) == (child.PASSED, "")
    assert child.outcome(case, lambda _: lambda x: [right(x)[0] + 0.1])[0] == child.WRONG
    assert child.outcome(case, lambda _: lambda x: [right(x)[0].double()])[0] == child.WRONG
    assert child.outcome(case, lambda _: lambda x: [right(x)[0][None]])[0] == child.WRONG
    assert child.outcome(case, lambda _: lambda x: [*right(x), *right(x)])[0] == child.WRONG
    assert child.outcome(case, lambda _: lambda x: [1 / 0])[0] == child.FAILED  # noqa: ARG005
    assert child.outcome(case, lambda _: 1 / 0)[0] == child.REFUSED  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("quiet")
def test_weights_are_constants_once() -> None:
    """Every test is also run with all inputs but the first as initializers, where layers are recognised."""
    case = next(case for case in installed(frozenset({"MatMul"})) if case.operator == "MatMul")
    other = frozen(case)
    assert other is not None
    assert len(other.model.graph.input) == 1
    assert len(other.model.graph.initializer) == 1
    assert child.outcome(other, child.ours) == (child.PASSED, "")


@pytest.mark.prove
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("quiet")
def test_the_published_results_are_those_of_this_code(emitted: frozenset[str]) -> None:
    """All tests of operator set 18, each runner in processes of their own, give what the table says."""
    operators = emitted | REWRITTEN
    new = [case for case in installed(operators) if case.operators & REWRITTEN]
    results = [
        *command.run(list(released(operators)), "released", operators), *command.run(new, "installed", operators)
    ]  # fmt: skip
    require_bar(results)
    published = json.loads(command.RESULTS.read_text("utf-8"))["cases"]
    assert [(case["case"], case["ours"]) for case in results] == [(case["case"], case["ours"]) for case in published]
