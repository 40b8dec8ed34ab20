"""grpc.reflection: lets tools such as grpcurl ask which services there are, and for their protos.

Answers from the files that our services are generated from. The published servicer is not used because it needs a
thread for each stream.
"""

from collections.abc import Callable, Iterable

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2

from server.errors import MalformedRequest, SegueError
from server.services.edge import MOST_BYTES
from server.services.statuses import Code, parse
from server.services.transport import Rpc

# Both versions of the protocol have the same messages. Only the first has a descriptor here, so only it is listed.
SERVICES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
METHOD = "ServerReflectionInfo"

# Open at once. They are for people, who look at a server now and then.
_MOST_STREAMS = 256

_POOL = descriptor_pool.Default()


class Reflection:
    """Describes one server."""

    def __init__(self, services: Iterable[str]) -> None:
        """Describe these services, by their full names."""
        self._services = sorted({*services, SERVICES[0]})
        self._open: set[Rpc] = set()
        self._finished = False

    def begin(self, rpc: Rpc, fail: Callable[[SegueError], None]) -> None:
        """Answer each message of a stream until the client has no more."""

        def on_message(data: bytes | None) -> None:
            if data is None:
                rpc.end(Code.OK)
                return
            try:
                if len(data) > MOST_BYTES:
                    raise MalformedRequest(f"it has {len(data)} bytes; such a request has at most {MOST_BYTES}")
                request = parse(reflection_pb2.ServerReflectionRequest, data)
            except SegueError as error:
                fail(error)
                return
            rpc.send(self._answer(request).SerializeToString(), lambda: rpc.receive(on_message))

        if self._finished or len(self._open) >= _MOST_STREAMS:
            rpc.end(Code.UNAVAILABLE, "no further streams")
            return
        self._open.add(rpc)
        rpc.when_over(lambda: self._open.discard(rpc))
        rpc.receive(on_message)

    def finish(self) -> None:
        """End the streams that are open, and those that come."""
        self._finished = True
        for rpc in tuple(self._open):
            rpc.end(Code.UNAVAILABLE, "the server ends")

    def _answer(self, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        reply = reflection_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in self._services:
                    reply.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                _add_file(reply, _POOL.FindFileByName(request.file_by_filename))
            elif kind == "file_containing_symbol":
                _add_file(reply, _POOL.FindFileContainingSymbol(request.file_containing_symbol))
            elif kind in {"file_containing_extension", "all_extension_numbers_of_type"}:
                _fail(reply, Code.NOT_FOUND, "no message here has extensions")
            else:
                _fail(reply, Code.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            _fail(reply, Code.NOT_FOUND, "there is nothing of that name")
        return reply


def _add_file(reply: reflection_pb2.ServerReflectionResponse, file: FileDescriptor) -> None:
    """Add a file and all that it imports, each once, what imports first."""
    seen: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop(0)
        if each.name not in seen:
            proto = descriptor_pb2.FileDescriptorProto()
            each.CopyToProto(proto)
            seen[each.name] = proto.SerializeToString()
            waiting += each.dependencies
    reply.file_descriptor_response.file_descriptor_proto.extend(seen.values())


def _fail(reply: reflection_pb2.ServerReflectionResponse, code: Code, text: str) -> None:
    reply.error_response.error_code = code.value[0]
    reply.error_response.error_message = text
