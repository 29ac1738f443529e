"""A client that knows Alcedo's address and nothing else: services, messages and fields come by server reflection.

Usage: reflected.py ADDRESS COMMAND, with the command's argument as JSON on standard input and its result as JSON on
standard output.

  services  {}                                         the methods of each service
  call      {"service", "method", "request"}           {"response"} or {"code", "message", "details"}
  stream    [{"id", "request"}, ...]                   what LookupStream replied: {"replies", "answers"}

Messages are protobuf's own JSON, with field names as in the .proto files; floating-point numbers are their digits.
"""

import json
import queue
import sys

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import compact_rows
import machine

# No call may hang a test run.
PATIENCE_SECONDS = 30
LOOKUP_SERVICE = "alcedo.v1.LookupService"


class Reflected:
    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        names = self.database.get_services()
        return {name: [method.name for method in self.pool.FindServiceByName(name).methods] for name in names}

    def message(self, name):
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def method(self, service, name):
        """A method that can be called, and the class of its requests."""
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        kind = ["unary", "stream"][method.client_streaming] + "_" + ["unary", "stream"][method.server_streaming]
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        connect = getattr(self.channel, kind)
        writes, reads = request.SerializeToString, response.FromString
        return connect(f"/{service}/{name}", request_serializer=writes, response_deserializer=reads), request

    def plain(self, message):
        return exact(
            json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self.pool)
        )

    def read(self, request, fields):
        return json_format.ParseDict(fields, request(), descriptor_pool=self.pool)


def exact(value):
    """Floating-point numbers as text: not every reader of JSON keeps their last bit."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    return [exact(inner) for inner in value] if isinstance(value, list) else value


def rpc_status():
    """google.rpc.Status, which is in no package that grpcio brings: code = 1, message = 2, details = 3."""
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package="google.rpc", syntax="proto3")
    file.dependency.append(any_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="Status")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="details", number=3, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=".google.protobuf.Any"
    )
    descriptor_pool.Default().Add(file)
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("google.rpc.Status"))


def call(reflected, argument):
    method, request = reflected.method(argument["service"], argument["method"])
    try:
        response = method(reflected.read(request, argument["request"]), timeout=PATIENCE_SECONDS)
        return {"response": reflected.plain(response)}
    except grpc.RpcError as error:
        result = {"code": error.code().name, "message": error.details(), "details": []}
        for key, value in error.trailing_metadata():
            if key == "grpc-status-details-bin":
                status = rpc_status().FromString(value)
                assert status.code == error.code().value[0] and status.message == error.details()
                for detail in status.details:
                    name = detail.TypeName()
                    decoded = reflected.plain(reflected.message(name).FromString(detail.value))
                    result["details"].append({"type": name, "detail": decoded})
        return result


def stream(reflected, argument):
    method, frame = reflected.method(LOOKUP_SERVICE, "LookupStream")
    frames = queue.SimpleQueue()
    for asked in argument:
        frames.put(reflected.read(frame, asked))
    replies, answers, files, schemas = [], {}, {}, {}
    for reply in method(iter(frames.get, None), timeout=PATIENCE_SECONDS):
        body = reply.WhichOneof("body")
        replies.append([reply.id, body])
        if body == "announce":
            files |= {file.handle: file for file in reply.announce.files}
            schemas |= {schema.handle: schema.schema.columns for schema in reply.announce.schemas}
            continue
        answers[reply.id] = rows(reply.answer, files, schemas) if body == "answer" else reflected.plain(reply.failure)
        if len(answers) == len(argument):
            # The last word on this side; the server answers it with the end of the stream.
            frames.put(None)
    return {"replies": replies, "answers": answers}


def rows(answer, files, schemas):
    """Each row of an answer with its file, its key and its column names."""
    found = []
    for file in answer.files:
        columns = schemas[file.schema]
        decoded = compact_rows.decode([column.type for column in columns], file.compact)
        assert len(decoded) == len(file.row_number), "one row number per row"
        keys = file.key_index or [0] * len(decoded)
        for values, number, key in zip(decoded, file.row_number, keys, strict=True):
            row = {"file": files[file.file].url, "version": files[file.file].version, "row": number, "key": key}
            found.append(row | {"columns": [column.name for column in columns], "values": values})
    return found


def main(address, command):
    argument = json.load(sys.stdin)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        reflected = Reflected(channel)
        if command == "services":
            result = reflected.services()
        else:
            result = {"call": call, "stream": stream}[command](reflected, argument)
    machine.end(result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
