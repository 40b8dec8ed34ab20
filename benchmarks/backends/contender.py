"""One contender in a process of its own: `python -m benchmarks.backends.contender NAME MODEL FOLDER`.

It loads, says "ready" and then does what its standard input says, one line at a time: `run BATCH` times one run,
`answer BATCH FILE` writes what it answers. TensorFlow and PyTorch never meet in one process.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from server.arrays import Array, load_arrays, save_arrays

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Inputs by alias to outputs by alias."""


def loader(name: str) -> Callable[[str, str, Path], Run]:
    """What makes a contender of a name, from the one module that may import its runtime."""
    kind = "tensorflow" if name == "tensorflow" else "native" if name.startswith("native-") else "backend"
    load: Callable[[str, str, Path], Run] = importlib.import_module(f"benchmarks.backends.run_{kind}").load
    return load


def main(name: str, model: str, folder: Path) -> None:
    """Serve the parent until it closes standard input."""
    # Libraries print where they like: the parent reads this copy alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    begin = time.perf_counter()
    run = loader(name)(name, model, folder)
    batches: dict[str, dict[str, Array]] = {}
    for key, array in load_arrays(folder / "inputs.npz").items():
        batch, alias = key.split("/", 1)
        batches.setdefault(batch, {})[alias] = array
    print(json.dumps({"ready": time.perf_counter() - begin}), file=answers)
    for line in sys.stdin:
        command, batch, *rest = line.split()
        begin = time.perf_counter()
        answer = run(batches[batch])
        seconds = time.perf_counter() - begin
        if command == "answer":
            save_arrays(Path(rest[0]), answer)
        print(json.dumps({"seconds": seconds}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
