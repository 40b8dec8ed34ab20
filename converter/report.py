"""What a conversion gave, for people and for machines: report.md, JSON, and the snippet that calls the model.

Only texts and plain values here; how they look on a terminal is the command line's business.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protos.segue import package_pb2
from protos.tensorflow import signature_pb2
from server.arrays import Array
from server.parity import Difference, is_floating
from server.services.dial import Keys
from server.signatures import DEFAULT_SIGNATURE
from server.wire.dtypes import SERVED, name_of


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One output and how well it equals TensorFlow's; `served` is None if no server was asked."""

    signature: str
    output: str
    tensor: str
    elements: int
    proof: float
    served: float | None
    allowed: str


def output_rows(
    manifest: package_pb2.ModelPackage, served: Mapping[tuple[str, str], Difference] | None
) -> list[OutputRow]:
    """A row for each output of each signature."""
    rows = []
    for signature in manifest.signatures:
        for binding in signature.outputs:
            info = signature.signature_def.outputs[binding.alias]
            difference = served.get((signature.name, binding.alias)) if served else None
            rows.append(
                OutputRow(
                    signature=signature.name,
                    output=binding.alias,
                    tensor=f"{name_of(info.dtype)} {shape_text(info)}",
                    elements=binding.proof.elements,
                    proof=binding.proof.max_absolute,
                    served=difference.max_absolute if difference else None,
                    allowed=_allowed(binding.tolerance, exact=not is_floating(SERVED[info.dtype].dtype)),
                )
            )
    return rows


def _allowed(tolerance: package_pb2.Tolerance, *, exact: bool) -> str:
    return "exact" if exact else f"{tolerance.absolute:.1e} + {100 * tolerance.relative:g} %"


def shape_text(info: signature_pb2.TensorInfo) -> str:
    """A shape as TensorFlow people write it: [?,3], or ? for unknown rank."""
    if info.tensor_shape.unknown_rank:
        return "?"
    return "[" + ",".join("?" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim) + "]"


def markdown(name: str, manifest: package_pb2.ModelPackage) -> str:
    """The report that travels with the package."""
    source = manifest.source
    tools = ", ".join(f"{tool} {version}" for tool, version in sorted(manifest.tools.items()))
    lines = [
        f"# {name}",
        "",
        f"Converted from the {source.kind.replace('_', ' ')} `{source.label}` ({source.bytes:,} bytes, SHA-256",
        f"`{source.digest}`) on {manifest.created.ToDatetime():%Y-%m-%d %H:%M} UTC to ONNX opset {manifest.opset}",
        f"with {tools}.",
        "",
        "## Outputs against TensorFlow's",
        "",
        "| signature | output | tensor | elements compared | largest difference | allowed |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.signature} | {r.output} | {r.tensor} | {r.elements:,} | {r.proof:.1e} | {r.allowed} |"
            for r in output_rows(manifest, None)
        ),
        "",
        "## Batching",
        "",
        *(f"- {s.name}: {'yes' if s.batching.batchable else 'no'}, {s.batching.reason}." for s in manifest.signatures),
        "",
        "## Golden cases",
        "",
        *itertools.chain.from_iterable(map(_golden_lines, manifest.signatures)),
        "",
        "## Variables",
        "",
        *_variable_lines(manifest),
        "",
        "## Graphs",
        "",
        *itertools.chain.from_iterable(map(_rewriting_lines, manifest.rewritings)),
    ]
    if manifest.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in manifest.notes)]
    return "\n".join(lines) + "\n"


def _golden_lines(signature: package_pb2.Signature) -> Iterator[str]:
    for case in signature.golden:
        batch = f"batch of {case.batch}" if case.batch else "no common batch"
        yield f"- {signature.name}: {case.origin}, {batch}"


def _variable_lines(manifest: package_pb2.ModelPackage) -> Iterator[str]:
    mapped = {v.name: v for entry in manifest.initializers for v in entry.variables}
    unmapped = {v.name: v for v in manifest.unmapped_variables if v.name not in mapped}
    yield f"{len(mapped)} of {len(mapped) + len(unmapped)} TensorFlow variables are initializers of the graphs, as they"
    elements = _count([*mapped.values(), *unmapped.values()])
    yield f"were or transposed: {_count(mapped.values()):,} of {elements:,} elements."
    for variable in unmapped.values():
        yield f"- folded or regrouped: `{variable.name}` {list(variable.shape)}"


def _rewriting_lines(rewriting: package_pb2.Rewriting) -> Iterator[str]:
    applied = ", ".join(f"{name} {times}" for name, times in sorted(rewriting.applied.items()))
    yield (
        f"- `{rewriting.onnx_file}`: opset {rewriting.opset}, {rewriting.nodes_before:,} nodes as exported, "
        f"{rewriting.nodes_after:,} now. Rewrites and how often each applied: {applied or 'none'}."
    )
    for name, why in sorted(rewriting.left_out.items()):
        yield f"- `{rewriting.onnx_file}` without {name}: {why}"


def _count(variables: Iterable[package_pb2.Variable]) -> int:
    total = 0
    for variable in variables:
        size = 1
        for dimension in variable.shape:
            size *= dimension
        total += size
    return total


def snippet(
    name: str,
    manifest: package_pb2.ModelPackage,
    arrays: Mapping[str, Array],
    address: str,
    keys: Keys | None = None,
) -> str:
    """Python that calls the model with TensorFlow Serving's published client, ready to run.

    Args:
        name: The model's.
        manifest: Its package's.
        arrays: The golden arrays, whose shapes the model is known to accept.
        address: HOST:PORT of the server.
        keys: How it is called, if it has TLS or wants a token.
    """
    keys = keys or Keys()
    signature = _snippet_signature(manifest.signatures)
    lines = [
        "import grpc",
        "import numpy as np",
        "import tensorflow as tf",
        "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc",
        "",
        *_channel_lines(address, keys),
        "stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)",
        "request = predict_pb2.PredictRequest()",
        f"request.model_spec.name = {name!r}",
        f"request.model_spec.signature_name = {signature.name!r}",
    ]
    for alias, key in sorted(signature.golden[0].inputs.items()):
        dtype = signature.signature_def.inputs[alias].dtype
        lines.append(f"request.inputs[{alias!r}].CopyFrom(tf.make_tensor_proto({_zeros(dtype, arrays[key].shape)}))")
    lines += [
        f"reply = stub.Predict(request, timeout=60{', metadata=metadata' if keys.token_file else ''})",
        "for output, tensor in sorted(reply.outputs.items()):",
        "    print(output, tf.make_ndarray(tensor))",
    ]
    return "\n".join(lines)


def _channel_lines(address: str, keys: Keys) -> list[str]:
    """Python that makes `channel`, and `metadata` if the server wants a token."""
    lines = ["options = [('grpc.max_receive_message_length', -1)]"]
    if keys.secure:
        files = [
            f"open({str(file)!r}, 'rb').read()" if file else "None" for file in (keys.ca, keys.key, keys.certificate)
        ]
        lines += [
            f"credentials = grpc.ssl_channel_credentials({', '.join(files)})",
            f"channel = grpc.secure_channel({address!r}, credentials, options=options)",
        ]
    else:
        lines.append(f"channel = grpc.insecure_channel({address!r}, options=options)")
    if keys.token_file:
        lines += [
            f"lines = open({str(keys.token_file)!r}).read().splitlines()",
            "token = next(line.strip() for line in lines if line.strip() and not line.startswith('#'))",
            "metadata = [('authorization', 'Bearer ' + token)]",
        ]
    return lines


def _snippet_signature(signatures: Sequence[package_pb2.Signature]) -> package_pb2.Signature:
    return next((s for s in signatures if s.name == DEFAULT_SIGNATURE), signatures[0])


def _zeros(dtype: int, shape: tuple[int, ...]) -> str:
    """An expression for an array of zeros, or of empty strings."""
    name = name_of(dtype)
    if name == "string":
        return f"np.full({shape}, b'')"
    scalar = {"bool": "bool", "bfloat16": "tf.bfloat16.as_numpy_dtype"}.get(name, f"np.{SERVED[dtype].dtype.name}")
    return f"np.zeros({shape}, {scalar})"


def as_json(
    manifest: package_pb2.ModelPackage, served: Mapping[tuple[str, str], Difference] | None
) -> list[dict[str, Any]]:
    """The signatures as plain values for `--json`."""
    rows = {(r.signature, r.output): r for r in output_rows(manifest, served)}
    return [
        {
            "name": signature.name,
            "method_name": signature.signature_def.method_name,
            "batchable": signature.batching.batchable,
            "batching": signature.batching.reason,
            "golden_cases": len(signature.golden),
            "inputs": {a: _tensor_json(i) for a, i in sorted(signature.signature_def.inputs.items())},
            "outputs": {
                binding.alias: {
                    **_tensor_json(signature.signature_def.outputs[binding.alias]),
                    "max_absolute_difference": binding.proof.max_absolute,
                    "max_relative_difference": binding.proof.max_relative,
                    "elements_compared": binding.proof.elements,
                    "tolerance": {"absolute": binding.tolerance.absolute, "relative": binding.tolerance.relative},
                    "served_max_absolute_difference": rows[signature.name, binding.alias].served,
                }
                for binding in signature.outputs
            },
        }
        for signature in manifest.signatures
    ]


def _tensor_json(info: signature_pb2.TensorInfo) -> dict[str, Any]:
    shape = None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim]
    return {"dtype": name_of(info.dtype), "shape": shape, "tensor": info.name}
