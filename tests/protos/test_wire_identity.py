"""Our contracts against the descriptors that TensorFlow and TensorFlow Serving publish."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from protos.serving import model_service_pb2, prediction_log_pb2, prediction_service_pb2
from protos.tensorflow import example_pb2, saved_model_pb2, signature_pb2

CHILD = Path(__file__).with_name("reference_descriptors.py")

# Messages of which we declare only what we read; the rest survives as unknown fields.
PARTIAL = {
    "tensorflow.MetaGraphDef",
    "tensorflow.MetaGraphDef.MetaInfoDef",
    "tensorflow.GraphDef",
    "tensorflow.NodeDef",
    "tensorflow.FunctionDefLibrary",
    "tensorflow.FunctionDef",
    "tensorflow.OpDef",
    "tensorflow.OpDef.ArgDef",
    "tensorflow.RunOptions",
    "tensorflow.RunMetadata",
}

FieldFacts = tuple[str, int, int, int, str, str, str, bool]


@dataclass
class Contract:
    """What a set of .proto files says on the wire, by fully-qualified name."""

    messages: dict[str, set[FieldFacts]] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    services: dict[str, dict[str, tuple[str, str, bool, bool]]] = field(default_factory=dict)


def _field_facts(message: descriptor_pb2.DescriptorProto) -> Iterator[FieldFacts]:
    for each in message.field:
        oneof = message.oneof_decl[each.oneof_index].name if each.HasField("oneof_index") else ""
        yield (
            each.name,
            each.number,
            each.type,
            each.label,
            each.type_name,
            oneof,
            each.json_name,
            each.proto3_optional,
        )


def _add_message(contract: Contract, scope: str, message: descriptor_pb2.DescriptorProto) -> None:
    name = f"{scope}.{message.name}"
    contract.messages[name] = set(_field_facts(message))
    for enum in message.enum_type:
        contract.enums[f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}
    for nested in message.nested_type:
        _add_message(contract, name, nested)


def read_contract(files: descriptor_pb2.FileDescriptorSet) -> Contract:
    """Collect the facts of all files of TensorFlow's packages."""
    contract = Contract()
    for file in files.file:
        if file.package.startswith("google."):
            continue
        for message in file.message_type:
            _add_message(contract, file.package, message)
        for enum in file.enum_type:
            contract.enums[f"{file.package}.{enum.name}"] = {value.name: value.number for value in enum.value}
        for service in file.service:
            contract.services[f"{file.package}.{service.name}"] = {
                method.name: (
                    method.input_type,
                    method.output_type,
                    method.client_streaming,
                    method.server_streaming,
                )
                for method in service.method
            }
    return contract


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    """What the installed tensorflow and tensorflow-serving-api declare."""
    folder = tmp_path_factory.mktemp("reference")
    out = folder / "descriptors.pb"
    subprocess.run(
        [sys.executable, str(CHILD), str(out)],
        check=True,
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        timeout=120,
    )
    return read_contract(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()))


@pytest.fixture(scope="module")
def ours() -> Contract:
    """What the stubs beside our .proto files declare."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (
        prediction_service_pb2,
        model_service_pb2,
        prediction_log_pb2,
        saved_model_pb2,
        example_pb2,
        signature_pb2,
    ):
        for file in [module.DESCRIPTOR, *module.DESCRIPTOR.dependencies]:
            if file.name not in {seen.name for seen in files.file}:
                file.CopyToProto(files.file.add())
    return read_contract(files)


def test_messages_are_identical(ours: Contract, theirs: Contract) -> None:
    """Every message that we declare in full has exactly TensorFlow's fields: names, numbers, types, oneof."""
    for name in ours.messages.keys() - PARTIAL:
        assert ours.messages[name] == theirs.messages[name], name


def test_partial_messages_are_subsets(ours: Contract, theirs: Contract) -> None:
    """What we declare of the graph's messages is TensorFlow's; nothing is renumbered or invented."""
    assert ours.messages.keys() >= PARTIAL
    for name in PARTIAL:
        assert ours.messages[name] < theirs.messages[name], f"{name} is no longer partial"


def test_everything_that_a_call_carries_is_declared(ours: Contract, theirs: Contract) -> None:
    """Whatever is reached from the services' methods or PredictionLog is declared here too."""
    waiting = {f"tensorflow.serving.{name}" for name in ("PredictionLog", "SignatureDefMap")}
    for service in ("PredictionService", "ModelService"):
        for request, response, _, _ in theirs.services[f"tensorflow.serving.{service}"].values():
            waiting |= {request.removeprefix("."), response.removeprefix(".")}
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reached or name.startswith("google.") or name in PARTIAL:
            continue
        reached.add(name)
        assert name in ours.messages or name in ours.enums, name
        waiting |= {facts[4].removeprefix(".") for facts in theirs.messages.get(name, ()) if facts[4]}
    assert {"tensorflow.TensorProto", "tensorflow.SignatureDef", "tensorflow.serving.ModelConfig"} <= reached


def test_enums_are_identical(ours: Contract, theirs: Contract) -> None:
    """Every enum has all of TensorFlow's values, and no other."""
    for name, values in ours.enums.items():
        assert values == theirs.enums[name], name
    assert ours.enums["tensorflow.DataType"]["DT_FLOAT_REF"] == 101


def test_services_are_identical(ours: Contract, theirs: Contract) -> None:
    """Both services have TensorFlow Serving's methods, with its request and response types."""
    assert ours.services.keys() == {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
    for name, methods in ours.services.items():
        assert methods == theirs.services[name], name
