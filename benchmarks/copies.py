"""How often an image is copied on its way: `python -m benchmarks.copies` prints a table and writes JSON.

A 602 kB tensor, [1, 224, 224, 3] of float32, against one copy of as many bytes, all in one run. First through the
server's own code: from a request's bytes to an array, which should cost next to nothing, and from an array to a reply's
bytes, which should cost one copy. Then through a server: how much longer a request of that size takes than a tiny one
to the same model, which answers with one pixel; and the same through a bare gRPC server, which knows only bytes, for
what goes beyond it is what Segue adds. The exit code is 1 if either adds more than two copies. Nothing else should run.
"""

import json
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import grpc
import numpy as np
import onnx
from onnx import helper

from benchmarks.load import METHOD
from benchmarks.machine import describe
from benchmarks.soak.servers import ServerProcess, running
from benchmarks.verdict import Verdict, tell
from examples.demo import free_port, wait_until_listening
from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import save_arrays
from server.repository.package import SCHEMA_VERSION
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request, encode_predict_response
from tests.packages import add_golden, write_manifest

RESULT: Final = Path(__file__).parent / "results" / "copies.json"
SHAPE: Final = (1, 224, 224, 3)
MOST: Final = 2.0
"""Copies that may be added."""
LOOPS: Final = 200
REQUESTS: Final = 1500
_WARM_UPS: Final = 100
_COPY: Final = "bytes to new bytes"

Microseconds = dict[str, float]


def best(function: Callable[[], object]) -> float:
    """Microseconds per call."""
    return round(min(timeit.repeat(function, number=LOOPS, repeat=15)) / LOOPS * 1e6, 2)


def request_of(shape: tuple[int, ...]) -> bytes:
    """A request with an image of that shape."""
    image = np.random.default_rng(0).random(shape, np.float32)
    return encode_predict_request({"image": image}, name="pixel")


def through_code() -> Microseconds:
    """Microseconds of each step in the server's own code."""
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    request = request_of(SHAPE)
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
        _COPY: best(lambda: bytes(memoryview(request))),
        "request to array": best(lambda: read(request)),
        "array to reply, typed field": best(lambda: write(as_content=False)),
        "array to reply, tensor_content": best(lambda: write(as_content=True)),
    }


def write_package(folder: Path) -> None:
    """A package that answers with the first pixel of each image, whatever the images' size."""
    folder.mkdir(parents=True)
    images: list[str | int | None] = ["n", "height", "width", 3]
    pixels: list[str | int | None] = ["n", 3]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image_in", images), ("pixel_out", pixels))
    ]
    nodes = [
        helper.make_node("Gather", ["image_in", "first"], ["row"], axis=1),
        helper.make_node("Gather", ["row", "first"], ["pixel_out"], axis=1),
    ]
    first = helper.make_tensor("first", onnx.TensorProto.INT64, [], [0])
    graph = helper.make_graph(nodes, "pixel", ports[:1], ports[1:], [first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=SCHEMA_VERSION, opset=18)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    definition = signature.signature_def
    for alias, infos, sizes in (("image", definition.inputs, (-1, -1, -1, 3)), ("pixel", definition.outputs, (-1, 3))):
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        for size in sizes:
            infos[alias].tensor_shape.dim.add(size=size)
    signature.inputs.add(alias="image", onnx_name="image_in")
    signature.outputs.add(alias="pixel", onnx_name="pixel_out").tolerance.absolute = 0.0
    image = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    save_arrays(folder / "golden.npz", add_golden(signature, {"image": image}, {"pixel": image[:, 0, 0]}))
    write_manifest(folder, manifest)


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Segue with that package, and a bare server that answers with as few bytes; addresses by name."""
    write_package(folder / "models" / "pixel" / "1")
    (folder / "metadata").write_bytes(b"")
    segue = ServerProcess(folder / "models", "--poll-seconds", "60")
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.echo", "threads", str(port), str(folder / "metadata"), "64"]
    with ExitStack() as stack:
        stack.enter_context(running(segue))
        echo = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        stack.callback(echo.terminate)
        wait_until_listening(echo, port)
        yield {"segue": segue.address, "echo": f"127.0.0.1:{port}"}


def through_servers(requests: int = REQUESTS) -> Microseconds:
    """Microseconds of the median request, all kinds and a copy in turns."""
    large = request_of(SHAPE)
    bodies = {"602 kB": large, "one pixel": request_of((1, 1, 1, 3))}
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as addresses, ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {_COPY: lambda: bytes(memoryview(large))}
        for server, address in addresses.items():
            channel = stack.enter_context(grpc.insecure_channel(address))
            predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            for body, data in bodies.items():
                calls[f"{server}, {body}"] = partial(predict, data, timeout=60)
        taken: dict[str, list[float]] = {kind: [] for kind in calls}
        for number in range(_WARM_UPS + requests):
            for kind, call in calls.items():
                begin = time.perf_counter()
                call()
                if number >= _WARM_UPS:
                    taken[kind].append(time.perf_counter() - begin)
    return {kind: round(1e6 * median(seconds), 2) for kind, seconds in taken.items()}


def sizes_cost(served: Microseconds) -> dict[str, float]:
    """What the size of a request costs through each server, and what Segue adds to that, in copies."""
    copies = {
        server: (served[f"{server}, 602 kB"] - served[f"{server}, one pixel"]) / served[_COPY]
        for server in ("segue", "echo")
    }
    return {**copies, "added": copies["segue"] - copies["echo"]}


def verdicts(code: Microseconds, served: Microseconds) -> list[Verdict]:
    """What must hold."""
    own = (code["request to array"] + code["array to reply, typed field"]) / code[_COPY]
    added = sizes_cost(served)["added"]
    return [
        Verdict(
            f"602 kB in and 602 kB out take {own:.2f} copies in the server's own code, at most {MOST:g}", own <= MOST
        ),
        Verdict(f"602 kB take {added:+.2f} copies beside a bare gRPC server, at most {MOST:+g}", added <= MOST),
    ]


def show(title: str, found: Mapping[str, float]) -> None:
    """Print times, and how many copies each is."""
    print(title)
    for name, microseconds in found.items():
        print(f"  {name:32s} {microseconds:8.1f} µs  {microseconds / found[_COPY]:6.2f} copies")


def main() -> int:
    """Measure, print, write, judge; returns the exit code."""
    code, served = through_code(), through_servers()
    show("in the server's own code", code)
    show("through a server", served)
    cost = sizes_cost(served)
    print(f"602 kB more cost {cost['segue']:.1f} copies through Segue, {cost['echo']:.1f} through a bare gRPC server")
    said = verdicts(code, served)
    written = {
        "machine": describe(),
        "bytes": 4 * int(np.prod(SHAPE)),
        "microseconds": code,
        "served_microseconds": served,
        "served_copies": cost,
        "verdicts": [str(each) for each in said],
    }
    RESULT.write_text(json.dumps(written, indent=1) + "\n")
    return tell(said)


if __name__ == "__main__":
    sys.exit(main())
