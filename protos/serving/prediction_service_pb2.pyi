from protos.serving import inference_pb2 as _inference_pb2
from protos.serving import metadata_pb2 as _metadata_pb2
from protos.serving import predict_pb2 as _predict_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
