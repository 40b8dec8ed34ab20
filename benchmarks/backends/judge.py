"""What the comparison must show, and which of it does not hold. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.backends.figures import REFERENCES, Ratio
from benchmarks.verdict import Verdict

COMPILED: Final = 0.98
"""Times the speed of the native model, compiled, that our compiled module must reach; the interval must reach 1."""
BF16: Final = 1.6
"""Times TensorFlow's speed that our compiled module must reach in bfloat16."""
BEST: Final[Mapping[str, float]] = {"fp32": 1.1, "bf16": 1.9}
"""Times TensorFlow's speed that the best of our backends must reach, by precision."""
ERROR: Final = 1.25
"""Times the native bfloat16 model's error, as root mean square, that each of our bfloat16 backends may have."""
NATIVE_ERROR: Final = "native-eager-bf16"
OURS: Final[Mapping[str, Sequence[str]]] = {
    "fp32": ("onnxruntime-cpu", "openvino-cpu", "torch-cpu"),
    "bf16": ("openvino-cpu-bf16", "torch-cpu-bf16"),
}


def verdicts(result: Mapping[str, Any]) -> list[Verdict]:
    """Every claim that the contenders which took part let one decide, batch by batch, then the errors."""
    return [*(verdict for row in result["rows"] for verdict in _of_batch(row)), *_errors(result["errors"])]


def missed(result: Mapping[str, Any]) -> list[str]:
    """The claims that do not hold."""
    return [verdict.claim for verdict in verdicts(result) if not verdict.holds]


def _of_batch(row: Mapping[str, Any]) -> Iterator[Verdict]:
    batch, contenders = row["batch"], row["contenders"]
    for key, pairs in REFERENCES.items():
        for ours, native in pairs.items():
            if key in contenders.get(ours, {}):
                ratio = Ratio(*contenders[ours][key])
                claim = f"batch {batch}: {ours} is {ratio} times as fast as {native}"
                holds = ratio.median >= COMPILED and ratio.high >= 1
                yield Verdict(f"{claim} (aim: at least {COMPILED}, interval to 1)", holds)
    speeds = {name: figure["tensorflow"][0] for name, figure in contenders.items() if "tensorflow" in figure}
    if "torch-cpu-bf16" in speeds:
        speed = speeds["torch-cpu-bf16"]
        claim = f"batch {batch}: torch-cpu-bf16 is {speed:.2f} times as fast as TensorFlow (aim: at least {BF16})"
        yield Verdict(claim, speed >= BF16)
    for precision, least in BEST.items():
        if here := [name for name in OURS[precision] if name in speeds]:
            best = max(here, key=speeds.__getitem__)
            claim = f"batch {batch}: the best in {precision}, {best}, is {speeds[best]:.2f} times as fast as TensorFlow"
            yield Verdict(f"{claim} (aim: at least {least})", speeds[best] >= least)


def _errors(errors: Mapping[str, Mapping[str, float]]) -> Iterator[Verdict]:
    for name in OURS["bf16"]:
        if name in errors and NATIVE_ERROR in errors:
            times = errors[name]["rms"] / errors[NATIVE_ERROR]["rms"]
            claim = f"{name} is {times:.2f} times as far from TensorFlow as {NATIVE_ERROR} (aim: at most {ERROR})"
            yield Verdict(claim, times <= ERROR)
