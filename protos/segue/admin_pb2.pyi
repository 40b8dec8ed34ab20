from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetOverviewRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetOverviewReply(_message.Message):
    __slots__ = ("overview",)
    OVERVIEW_FIELD_NUMBER: _ClassVar[int]
    overview: _struct_pb2.Struct
    def __init__(self, overview: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class SetBackendsRequest(_message.Message):
    __slots__ = ("model", "backends")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    backends: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., backends: _Optional[_Iterable[str]] = ...) -> None: ...

class SetBackendsReply(_message.Message):
    __slots__ = ("before",)
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    before: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, before: _Optional[_Iterable[str]] = ...) -> None: ...
