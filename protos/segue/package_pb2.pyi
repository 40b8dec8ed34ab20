import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from protos.tensorflow import signature_pb2 as _signature_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelPackage(_message.Message):
    __slots__ = ("schema_version", "created", "source", "tools", "options", "opset", "files", "signatures", "initializers", "unmapped_variables", "notes", "rewritings")
    class ToolsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPSET_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    INITIALIZERS_FIELD_NUMBER: _ClassVar[int]
    UNMAPPED_VARIABLES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    REWRITINGS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    created: _timestamp_pb2.Timestamp
    source: Source
    tools: _containers.ScalarMap[str, str]
    options: _containers.ScalarMap[str, str]
    opset: int
    files: _containers.RepeatedCompositeFieldContainer[File]
    signatures: _containers.RepeatedCompositeFieldContainer[Signature]
    initializers: _containers.RepeatedCompositeFieldContainer[Initializer]
    unmapped_variables: _containers.RepeatedCompositeFieldContainer[Variable]
    notes: _containers.RepeatedScalarFieldContainer[str]
    rewritings: _containers.RepeatedCompositeFieldContainer[Rewriting]
    def __init__(self, schema_version: _Optional[int] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., tools: _Optional[_Mapping[str, str]] = ..., options: _Optional[_Mapping[str, str]] = ..., opset: _Optional[int] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., signatures: _Optional[_Iterable[_Union[Signature, _Mapping]]] = ..., initializers: _Optional[_Iterable[_Union[Initializer, _Mapping]]] = ..., unmapped_variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., rewritings: _Optional[_Iterable[_Union[Rewriting, _Mapping]]] = ...) -> None: ...

class Rewriting(_message.Message):
    __slots__ = ("onnx_file", "opset", "nodes_before", "nodes_after", "applied", "left_out")
    class AppliedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class LeftOutEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ONNX_FILE_FIELD_NUMBER: _ClassVar[int]
    OPSET_FIELD_NUMBER: _ClassVar[int]
    NODES_BEFORE_FIELD_NUMBER: _ClassVar[int]
    NODES_AFTER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    onnx_file: str
    opset: int
    nodes_before: int
    nodes_after: int
    applied: _containers.ScalarMap[str, int]
    left_out: _containers.ScalarMap[str, str]
    def __init__(self, onnx_file: _Optional[str] = ..., opset: _Optional[int] = ..., nodes_before: _Optional[int] = ..., nodes_after: _Optional[int] = ..., applied: _Optional[_Mapping[str, int]] = ..., left_out: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("kind", "digest", "label", "bytes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    digest: str
    label: str
    bytes: int
    def __init__(self, kind: _Optional[str] = ..., digest: _Optional[str] = ..., label: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("path", "sha256", "bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    bytes: int
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("name", "signature_def", "onnx_file", "inputs", "outputs", "batching", "golden")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_DEF_FIELD_NUMBER: _ClassVar[int]
    ONNX_FILE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    signature_def: _signature_pb2.SignatureDef
    onnx_file: str
    inputs: _containers.RepeatedCompositeFieldContainer[Binding]
    outputs: _containers.RepeatedCompositeFieldContainer[Binding]
    batching: Batching
    golden: _containers.RepeatedCompositeFieldContainer[GoldenCase]
    def __init__(self, name: _Optional[str] = ..., signature_def: _Optional[_Union[_signature_pb2.SignatureDef, _Mapping]] = ..., onnx_file: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ..., batching: _Optional[_Union[Batching, _Mapping]] = ..., golden: _Optional[_Iterable[_Union[GoldenCase, _Mapping]]] = ...) -> None: ...

class Binding(_message.Message):
    __slots__ = ("alias", "onnx_name", "tolerance", "proof")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    ONNX_NAME_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    alias: str
    onnx_name: str
    tolerance: Tolerance
    proof: Difference
    def __init__(self, alias: _Optional[str] = ..., onnx_name: _Optional[str] = ..., tolerance: _Optional[_Union[Tolerance, _Mapping]] = ..., proof: _Optional[_Union[Difference, _Mapping]] = ...) -> None: ...

class Tolerance(_message.Message):
    __slots__ = ("absolute", "relative")
    ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_FIELD_NUMBER: _ClassVar[int]
    absolute: float
    relative: float
    def __init__(self, absolute: _Optional[float] = ..., relative: _Optional[float] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("max_absolute", "max_relative", "elements")
    MAX_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    max_absolute: float
    max_relative: float
    elements: int
    def __init__(self, max_absolute: _Optional[float] = ..., max_relative: _Optional[float] = ..., elements: _Optional[int] = ...) -> None: ...

class Batching(_message.Message):
    __slots__ = ("batchable", "reason", "derived")
    BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELD_NUMBER: _ClassVar[int]
    batchable: bool
    reason: str
    derived: bool
    def __init__(self, batchable: _Optional[bool] = ..., reason: _Optional[str] = ..., derived: _Optional[bool] = ...) -> None: ...

class GoldenCase(_message.Message):
    __slots__ = ("origin", "batch", "inputs", "outputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    origin: str
    batch: int
    inputs: _containers.ScalarMap[str, str]
    outputs: _containers.ScalarMap[str, str]
    def __init__(self, origin: _Optional[str] = ..., batch: _Optional[int] = ..., inputs: _Optional[_Mapping[str, str]] = ..., outputs: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Initializer(_message.Message):
    __slots__ = ("onnx_file", "name", "variables", "transposition", "reshaped")
    ONNX_FILE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    TRANSPOSITION_FIELD_NUMBER: _ClassVar[int]
    RESHAPED_FIELD_NUMBER: _ClassVar[int]
    onnx_file: str
    name: str
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    transposition: _containers.RepeatedScalarFieldContainer[int]
    reshaped: bool
    def __init__(self, onnx_file: _Optional[str] = ..., name: _Optional[str] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., transposition: _Optional[_Iterable[int]] = ..., reshaped: _Optional[bool] = ...) -> None: ...

class Variable(_message.Message):
    __slots__ = ("name", "shape", "trainable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    trainable: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., trainable: _Optional[bool] = ...) -> None: ...
