"""How often an image is copied on its way through the server's own code: `python -m benchmarks.copies`.

A 602 kB tensor, [1, 224, 224, 3] of float32, from a request's bytes to an array and from an array to a reply's bytes,
against one copy of as many bytes, all in one run. Reading should cost next to nothing, writing one copy.
"""

import json
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request, encode_predict_response

RESULT = Path(__file__).parent / "results" / "copies.json"
SHAPE = (1, 224, 224, 3)
LOOPS = 200


def best(function: Callable[[], object]) -> float:
    """Microseconds per call."""
    return round(min(timeit.repeat(function, number=LOOPS, repeat=15)) / LOOPS * 1e6, 2)


def measure() -> dict[str, float]:
    """Microseconds of each step."""
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    request = encode_predict_request({"image": image}, name="model")
    target = np.empty_like(image)

    def read(data: bytes) -> object:
        return parse_predict_request(data).inputs["image"].to_numpy()

    def write(*, as_content: bool) -> object:
        outputs = [("scores", image)]
        return encode_predict_response(
            outputs, name="model", version=1, signature_name="serving_default", as_content=as_content
        )

    return {
        "memcpy of as many bytes": best(lambda: np.copyto(target, image)),
        "bytes to new bytes": best(lambda: bytes(memoryview(request))),
        "request to array": best(lambda: read(request)),
        "array to reply, typed field": best(lambda: write(as_content=False)),
        "array to reply, tensor_content": best(lambda: write(as_content=True)),
    }


def main() -> None:
    """Measure, print, write."""
    found = measure()
    copy = found["bytes to new bytes"]
    for name, microseconds in found.items():
        print(f"{name:32s} {microseconds:8.1f} µs  {microseconds / copy:5.2f} copies")
    written = {"machine": describe(), "bytes": 4 * int(np.prod(SHAPE)), "microseconds": found}
    RESULT.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
