"""Child process: writes the descriptors of TensorFlow's and TensorFlow Serving's own messages to a file.

Run as `python reference_descriptors.py OUT`. It is a process of its own because those packages register the
very symbols that ours do, and one process holds each symbol once.
"""

import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_log_pb2, prediction_service_pb2


def main(out: Path) -> None:
    """Write one FileDescriptorSet with everything that the five entry points reach."""
    found: dict[str, FileDescriptor] = {}

    def visit(file: FileDescriptor) -> None:
        if file.name not in found:
            found[file.name] = file
            for dependency in file.dependencies:
                visit(dependency)

    for module in (
        example_pb2,
        saved_model_pb2,
        prediction_service_pb2,
        model_service_pb2,
        prediction_log_pb2,
    ):
        visit(module.DESCRIPTOR)
    files = descriptor_pb2.FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(files.file.add())
    out.write_bytes(files.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
