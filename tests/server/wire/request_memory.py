"""Child process: what a request takes in memory while it is parsed and its arrays are made.

Run as `python -m tests.server.wire.request_memory FILE`: prints a JSON object with `wire`, the request's bytes;
`arrays`, the sum of RawTensor.nbytes; `peak`, by how much the process's resident memory grew at most; and `error`, the
named error if it was refused.
"""

import json
import re
import sys
from pathlib import Path

from server.errors import InvalidRequest
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request
from tests.fuzz.seeds import seeds


def _kibibytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(path: Path) -> None:
    """Measure one request."""
    for seed in [*seeds("predict_request"), encode_predict_request({}, name="m")]:  # for what is made only once
        for tensor in parse_predict_request(seed).inputs.values():
            tensor.to_numpy()
    before = _kibibytes("VmRSS")
    data = path.read_bytes()
    arrays = 0
    error = ""
    try:
        request = parse_predict_request(data)
        arrays = sum(tensor.nbytes for tensor in request.inputs.values())
        kept = [tensor.to_numpy() for tensor in request.inputs.values()]
        kept.clear()
    except InvalidRequest as refused:
        error = refused.message[:200]
    peak = (_kibibytes("VmHWM") - before) * 1024
    print(json.dumps({"wire": len(data), "arrays": arrays, "peak": peak, "error": error}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
