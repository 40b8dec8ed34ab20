"""One of our compiled models as the server runs it, in a process without Python's torch: prints one line of JSON.

`python -m benchmarks.gpu.served ONNX CACHE PRECISION DEVICE --digest SHA256 --batches 1,4 --answer FILE`
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import graph
from server.arrays import Array
from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import LoadedGraph, Precision
from server.gpu import Gpus


def measure(loaded: LoadedGraph, batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """Milliseconds from arrays to arrays for each batch size, the first run of all, and of two threads at once."""
    (port,), (output,) = ([one.name for one in side] for side in graph.PORTS)
    first = time.perf_counter()
    loaded.run({port: graph.images(1)}, [output])
    found: dict[str, Any] = {"first_answer_s": time.perf_counter() - first, "batches": {}}
    for batch in batches:
        feeds = {port: graph.images(batch)}
        (alone,) = loaded.run(feeds, [output])
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            begin = time.perf_counter()
            loaded.run(feeds, [output])
            samples.append(time.perf_counter() - begin)
        together = _together(loaded, feeds, output)
        found["batches"][str(batch)] = {
            "median_ms": 1e3 * float(np.median(samples)),
            "runs": len(samples),
            "two_threads_ms": 1e3 * together[0],
            "two_threads_differ": max(float(np.abs(one - alone).max()) for one in together[1]),
        }
    return found


def _together(loaded: LoadedGraph, feeds: dict[str, Array], output: str) -> tuple[float, list[Array]]:
    """Seconds of one run each of two threads, and what they answered."""
    answers: list[Array] = []

    def ask() -> None:
        answers.extend(loaded.run(feeds, [output]))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(answers) != len(threads):
        raise RuntimeError("a thread had no answer")
    return time.perf_counter() - begin, answers


def main() -> None:
    """Load and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("precision", choices=[str(one.value) for one in Precision])
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--digest", default="")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--seconds", type=float, default=0.5, help="of runs for each batch size")
    parser.add_argument("--answer", type=Path, required=True, help="for the answers to four images, .npy")
    options = parser.parse_args()
    before = Gpus().figures()
    backend = AotInductorBackend(options.cache, precision=Precision(options.precision), device=options.device)
    begin = time.perf_counter()
    loaded = backend.load(graph.spec(options.onnx, options.digest))
    ready = time.perf_counter() - begin
    found = measure(loaded, [int(batch) for batch in options.batches.split(",")], options.seconds)
    (port,), (output,) = ([one.name for one in side] for side in graph.PORTS)
    np.save(options.answer, loaded.run({port: graph.images(4)}, [output])[0])
    after = Gpus().figures()
    used = [int(b.memory_used or 0) - int(a.memory_used or 0) for a, b in zip(before, after, strict=True)]
    loaded.close()
    found |= {"load_s": ready, "gpu_memory_mib": sum(used) / 2**20, "python_torch": "torch" in sys.modules}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
