"""Runs node tests, as a process that may die: `python -m benchmarks.operators.child RUNNER ORIGIN`.

RUNNER is ours or onnx2torch, ORIGIN is released or installed. The first line that comes in names the operators that
cases may hold, the others a case each; for each case a line of JSON goes out.
"""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
import torch

from benchmarks.operators.cases import Case, Value, frozen, installed, released
from server.errors import GraphNotLowerable
from server.lowering import lower
from server.lowering.dtypes import to_torch

PASSED: Final = "passed"
REFUSED: Final = "refused"
WRONG: Final = "wrong"
FAILED: Final = "failed"
Runner = Callable[[Sequence[Any]], Sequence[Any]]


def tensor(value: Value) -> Any:  # noqa: ANN401 - a tensor, a list of them, or nothing
    """An array as torch takes it; lists become lists."""
    if isinstance(value, list):
        return [tensor(one) for one in value]
    if value is None:
        return None
    if isinstance(value, onnx.TensorProto):
        return to_torch(value)
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        msg = "torch has no strings"
        raise GraphNotLowerable("", "", msg)
    if array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict:
        from onnx import numpy_helper  # noqa: PLC0415 - for the few cases with other floats

        return to_torch(numpy_helper.from_array(array))
    return torch.from_numpy(np.array(array))


def ours(case: Case) -> Runner:
    """Through server.lowering, in eager mode."""
    module = lower(case.model)
    return lambda inputs: module(*inputs)


def bare(case: Case) -> Runner:
    """Through onnx2torch alone."""
    from onnx2torch import convert  # noqa: PLC0415 - not needed for ours

    module = convert(case.model)

    def run(inputs: Sequence[Any]) -> Sequence[Any]:
        result = module(*inputs)
        return result if isinstance(result, tuple | list) else (result,)

    return run


RUNNERS: Final = {"ours": ours, "onnx2torch": bare}


def outcome(case: Case, make: Callable[[Case], Runner]) -> tuple[str, str]:
    """What became of a case, and why.

    Refused: it was not lowered, with an error. Failed: it was, and raised an error when it ran. Wrong: it answered, and
    the answer was wrong.
    """
    try:
        run = make(case)
        inputs = [[tensor(value) for value in arrays] for arrays, _ in case.sets]
    except Exception as error:  # noqa: BLE001 - whatever a converter raises, it is its way to refuse
        return REFUSED, f"{type(error).__name__}: {error}"
    for given, (_, wanted) in zip(inputs, case.sets, strict=True):
        try:
            with torch.no_grad():
                answer = run(given)
        except GraphNotLowerable as error:
            return REFUSED, str(error)
        except Exception as error:  # noqa: BLE001 - as above
            return FAILED, f"{type(error).__name__}: {error}"
        difference = compare(list(answer), wanted, case)
        if difference:
            return WRONG, difference
    return PASSED, ""


def both_forms(case: Case, make: Callable[[Case], Runner], *, best: bool) -> tuple[str, str]:
    """The outcome of a case as it is and with all inputs but the first frozen: the better one, or the worse."""
    results = [outcome(one, make) for one in (case, frozen(case)) if one is not None]
    order = [PASSED, REFUSED, FAILED, WRONG]
    return (min if best else max)(results, key=lambda result: order.index(result[0]))


def compare(answer: Sequence[Any], wanted: Sequence[Any], case: Case) -> str:
    """What differs, or "": number, dtype and shape of the outputs, then their values within the tolerance."""
    if len(answer) != len(wanted):
        return f"{len(answer)} outputs instead of {len(wanted)}"
    for got, want in zip(answer, wanted, strict=True):
        if isinstance(want, list) or isinstance(got, list | tuple):
            if difference := compare(list(got), want, case):
                return difference
            continue
        goal = tensor(want)
        if not isinstance(got, torch.Tensor):
            return f"{type(got).__name__} instead of a tensor"
        if got.dtype != goal.dtype or got.shape != goal.shape:
            return f"{got.dtype} {tuple(got.shape)} instead of {goal.dtype} {tuple(goal.shape)}"
        if difference := _values(got, goal, case):
            return difference
    return ""


def _values(got: torch.Tensor, goal: torch.Tensor, case: Case) -> str:
    exact = torch.complex128 if goal.is_complex() else torch.float64
    if not goal.is_floating_point() and not goal.is_complex():
        return "" if bool(torch.equal(got, goal)) else "other whole numbers"
    # Half-precision numbers are coarser than the standard's tolerance, and a fused operator rounds less often.
    rtol = max(case.rtol, 2 * torch.finfo(goal.dtype).eps)
    one, other = got.detach().to(exact).numpy(), goal.to(exact).numpy()
    if np.allclose(one, other, rtol=rtol, atol=case.atol, equal_nan=True):
        return ""
    return f"up to {np.nanmax(np.abs(one - other)):.3g} off"


def main(runner: str, origin: str) -> None:
    """Answer the names on standard input."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = frozenset(sys.stdin.readline().split())
    cases = {case.name: case for case in {"released": released, "installed": installed}[origin](names)}
    for line in sys.stdin:
        kind, reason = both_forms(cases[line.strip()], RUNNERS[runner], best=runner != "ours")
        print(json.dumps([kind, reason[:300]]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
