"""Which ONNX files a package holds, and where their weights lie: every weight once.

Signatures that are the same graph share a file. Initializers that several graphs hold, and those of graphs too large
for one protobuf message, move into one data file beside them.
"""

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

DATA_FILE = "weights.bin"
# Smaller initializers stay in the graph, where shape inference reads them.
_INLINE_BYTES = 1024
# ONNX Runtime maps external data that starts on a page instead of copying it.
_ALIGNMENT = 4096


@dataclass(frozen=True, slots=True)
class _Weight:
    tensor: onnx.TensorProto
    data: memoryview
    digest: bytes
    external: bool


def store_graphs(graphs: Sequence[Path], folder: Path) -> list[str]:
    """Write the graphs of a package's signatures.

    Args:
        graphs: one ONNX file per signature, each with its external data, if any, beside it.
        folder: the package's folder.

    Returns:
        The file name in the folder for each signature; the same name twice if two signatures are the same graph.
    """
    with ExitStack() as stack:
        models = [onnx.load(path, load_external_data=False) for path in graphs]
        names = _file_names(models)
        kept = {name: index for index, name in reversed(list(enumerate(names)))}
        weights = {index: list(_weights(models[index], graphs[index].parent, stack)) for index in sorted(kept.values())}
        _share(weights, folder / DATA_FILE)
        for name, index in kept.items():
            (folder / name).write_bytes(models[index].SerializeToString(deterministic=True))
        return names


def _file_names(models: Sequence[onnx.ModelProto]) -> list[str]:
    """One name per distinct graph; graphs that differ in nothing but their own name are the same."""
    order: dict[bytes, int] = {}
    numbers = []
    for model in models:
        model.graph.name = "model"
        key = hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
        # External data is not part of the message: graphs that have some are never taken for the same.
        if any(uses_external_data(tensor) for tensor in model.graph.initializer):
            key += len(order).to_bytes(4, "big")
        numbers.append(order.setdefault(key, len(order)))
    return ["model.onnx" if len(order) == 1 else f"model-{number}.onnx" for number in numbers]


def _weights(model: onnx.ModelProto, folder: Path, stack: ExitStack) -> Iterator[_Weight]:
    for tensor in model.graph.initializer:
        external = uses_external_data(tensor)
        if external:
            data = _external(tensor, folder, stack)
        elif tensor.HasField("raw_data"):
            data = memoryview(tensor.raw_data)
        else:
            continue  # typed fields: strings and scalars
        if external or len(data) >= _INLINE_BYTES:
            yield _Weight(tensor, data, hashlib.sha256(data).digest(), external)


def _external(tensor: onnx.TensorProto, folder: Path, stack: ExitStack) -> memoryview:
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = stack.enter_context((folder / place["location"]).open("rb"))
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    offset = int(place.get("offset", 0))
    return view[offset : offset + int(place["length"])]


def _share(weights: Mapping[int, Sequence[_Weight]], path: Path) -> None:
    """Move what is shared or was external into one file, each content once."""
    holders = Counter(digest for graph in weights.values() for digest in {weight.digest for weight in graph})
    moving = [w for graph in weights.values() for w in graph if w.external or holders[w.digest] > 1]
    if not moving:
        return
    offsets: dict[bytes, int] = {}
    with path.open("wb") as file:
        for weight in moving:
            if weight.digest not in offsets:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                offsets[weight.digest] = file.tell()
                file.write(weight.data)
    for weight in moving:
        tensor, length = weight.tensor, len(weight.data)
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", offsets[weight.digest]), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
