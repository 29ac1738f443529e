"""A client of another language, made from the published .proto files alone: it asks all lookups of a corpus.

Every lookup goes twice: by the unary call, answered with typed values, and over one LookupStream, answered with compact
rows. Both are compared with what must come, errors by their class too.

Usage: corpus_grpc.py PROTO ADDRESS MOUNT CORPUS, prints {"unary": {"summary", "wrong"}, "stream": {"summary", "wrong"}}.
"""

import base64
import functools
import json
import math
import pathlib
import queue
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

import compact_rows
import machine
import neutral
import reflected

# No call may hang a test run.
PATIENCE_SECONDS = 60
# Unanswered requests of the stream at once, far below what a worker allows. One that has just stood still for seconds
# expects the next lookups to take as long, and turns away what would wait for too many of them.
WINDOW = 16
CLASSES = {"REASON_PARQUET_LIMIT": "corrupt", "REASON_CHECKSUM": "corrupt"}


def compile_protos(directory):
    """The generated modules of the published files."""
    target = tempfile.mkdtemp(prefix="alcedo-protos-")
    files = sorted(str(path.relative_to(directory)) for path in pathlib.Path(directory).rglob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{directory}", f"-I{well_known}", f"--python_out={target}", f"--grpc_python_out={target}"]
    assert protoc.main([*arguments, *files]) == 0, "the .proto files do not compile"
    sys.path.insert(0, target)
    from alcedo.v1 import lookup_pb2, lookup_pb2_grpc, values_pb2

    return lookup_pb2, lookup_pb2_grpc, values_pb2


class Asker:
    def __init__(self, protos, address, mount):
        self.lookup, services, self.values = compile_protos(protos)
        self.channel = grpc.insecure_channel(address, options=[
            ("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 256 << 20)])
        self.stub, self.mount = services.LookupServiceStub(self.channel), mount

    def key(self, query):
        """The key in the branch that its type has; one without a value stays empty."""
        value, kind = query["key"]["value"], query["key"]["type"]
        if query["op"] == "is_null":
            return self.values.Key(null=True)
        if value is None:
            return self.values.Key()
        if isinstance(value, bool):
            return self.values.Key(bool=value)
        name = kind and neutral.parse(kind)[0]
        if name in ("binary", "fixed"):
            return self.values.Key(bytes=base64.b64decode(value))
        if name in neutral.INTEGERS and -(2**63) <= int(value) < 2**64:
            return self.values.Key(int=int(value)) if int(value) < 2**63 else self.values.Key(uint=int(value))
        if name == "float64":
            return self.values.Key(float=float(value))
        return self.values.Key(text=value)

    def request(self, query):
        path = f"{self.mount}/{query['file']}"
        columns = query["project"] or []
        return self.lookup.LookupRequest(path=path, key_column=query["key"]["column"], keys=[self.key(query)],
                                         columns=columns, timeout_us=25_000_000)

    def unary(self, queries):
        for query in queries:
            try:
                reply = self.stub.Lookup(self.request(query), timeout=PATIENCE_SECONDS)
            except grpc.RpcError as error:
                detail = detail_of(error, self.lookup.ErrorDetail())
                # What the worker did not say is gRPC's own trouble, of which all is to be known.
                whole = f"{error.code()}: {error.details()}: {error.debug_error_string()}"
                yield {"error": self.told(detail, error.details() if detail.reason else whole)}
                continue
            schemas = {schema.handle: schema.schema for schema in reply.announce.schemas}
            yield self.rows(reply.answer, schemas, lambda file, kinds: [
                [plain(value, kind) for value, kind in zip(row.values, kinds, strict=True)] for row in file.typed])

    def stream(self, queries):
        """All lookups over one stream, replies in any order."""
        frames, answers, schemas = queue.SimpleQueue(), {}, {}
        waiting = iter(enumerate(queries, 1))

        def send():
            number, query = next(waiting, (0, None))
            frames.put(self.lookup.LookupFrame(id=number, request=self.request(query)) if number else None)

        for _ in range(min(WINDOW, len(queries))):
            send()
        try:
            for reply in self.stub.LookupStream(iter(frames.get, None), timeout=PATIENCE_SECONDS * 4):
                body = reply.WhichOneof("body")
                if body == "announce":
                    schemas |= {schema.handle: schema.schema for schema in reply.announce.schemas}
                    continue
                assert 1 <= reply.id <= len(queries) and reply.id not in answers, f"a reply to {reply.id}"
                if body == "failure":
                    answers[reply.id] = {"error": self.told(reply.failure.detail, reply.failure.message)}
                else:
                    answers[reply.id] = self.rows(reply.answer, schemas, compact)
                send()
        except grpc.RpcError as error:
            raise AssertionError(f"the stream broke after {len(answers)} of {len(queries)} answers") from error
        unanswered = [number for number in range(1, len(queries) + 1) if number not in answers]
        assert not unanswered, f"the stream ended without answers to {unanswered}"
        return [answers[number] for number in range(1, len(queries) + 1)]

    def told(self, detail, message):
        reason = self.lookup.Reason.Name(detail.reason)
        return {"class": CLASSES.get(reason, reason.removeprefix("REASON_").lower()), "message": message}

    def rows(self, answer, schemas, read):
        result = {"rows": [], "types": [], "row_numbers": []}
        assert len(answer.files) <= 1 and len(answer.statuses) == 1
        for file in answer.files:
            columns = schemas[file.schema].columns
            result["types"], result["names"] = [column.type for column in columns], [column.name for column in columns]
            result["rows"] = read(file, [neutral.parse(kind) for kind in result["types"]])
            result["row_numbers"] = list(file.row_number)
        assert (answer.statuses[0] == self.lookup.KEY_STATUS_FOUND) == bool(result["rows"])
        return result


@functools.cache
def status():
    return reflected.rpc_status()


def detail_of(error, detail):
    """The typed detail in the trailer: google.rpc.Status has its `Any`s in field 3."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for found in status().FromString(value).details:
                if found.Unpack(detail):
                    return detail
    return detail


def plain(value, kind):
    """The neutral spelling of a typed value, by the comments in values.proto."""
    branch, name = value.WhichOneof("kind"), kind[0]
    if branch == "null":
        return None
    if name == "list":
        return [plain(item, kind[1]) for item in value.list.values]
    if name == "struct":
        fields = zip(kind[1], value.struct.values, strict=True)
        return {label: plain(item, inner) for (label, inner), item in fields}
    if name == "map":
        entries = zip(value.map.keys, value.map.values, strict=True)
        return [[plain(key, kind[1]), plain(item, kind[2])] for key, item in entries]
    return spelled(getattr(value, branch), name)


def spelled(value, name):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if name in neutral.FLOATS:
        return "NaN" if math.isnan(value) else repr(value) if math.isfinite(value) else "-Infinity"[value > 0 :]
    return str(value) if name in neutral.COUNTS else value


def compact(file, kinds):
    """The neutral spelling of compact rows, which compact_rows.py reads by the comments in values.proto."""
    rows = compact_rows.decode([neutral.text(kind) for kind in kinds], file.compact)
    return [[respelled(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows]


def respelled(value, kind):
    name = kind[0]
    if value is None:
        return None
    if name == "list":
        return [respelled(item, kind[1]) for item in value]
    if name == "struct":
        return {label: respelled(item, inner) for (label, inner), item in zip(kind[1], value, strict=True)}
    if name == "map":
        return [[respelled(key, kind[1]), respelled(item, kind[2])] for key, item in value]
    if name in ("binary", "fixed", "interval"):
        return base64.b64encode(bytes.fromhex(value)).decode()
    if name in neutral.FLOATS:
        return spelled(float(value), name)
    return str(value) if name in neutral.COUNTS else value


def main(protos, address, mount, directory):
    manifest, queries = machine.corpus(directory)
    asker, results = Asker(protos, address, mount), {}
    with asker.channel:
        for form in ("unary", "stream"):
            table, total = neutral.Table(manifest), 0
            for query, answer in zip(queries, getattr(asker, form)(queries), strict=True):
                table.add(query, answer)
                total += 1
            results[form] = {"lookups": total, "summary": table.summary(), "wrong": table.wrong}
    machine.end(results)


if __name__ == "__main__":
    main(*sys.argv[1:])
