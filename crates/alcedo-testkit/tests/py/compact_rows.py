"""Compact rows, decoded by a stranger: written from the comments in proto/alcedo/v1/values.proto and nothing else.

If this file cannot read what a worker sends, either the worker or the comments are wrong. It must not be made to agree
by looking at any other source.

Values come out as JSON has them: integers, texts, booleans, null, lists (also for structs; a map is a list of pairs),
floating-point numbers and decimals as their digits, bytes in hex.

Usage: compact_rows.py < [{"types": [...], "hex": "..."}, ...], prints the rows of each.
"""

import json
import re
import struct
import sys
import uuid
from decimal import Decimal

# The types of one width: how struct reads them. Numbers are little-endian.
FORMATS = {"bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "float16": "e", "int32": "i"}
FORMATS |= {"uint32": "I", "float32": "f", "date32": "i", "int64": "q", "uint64": "Q", "float64": "d"}
FORMATS |= {"timestamp": "q", "duration": "q"}
FIELD_NAME = re.compile(r'([A-Za-z0-9_]+|"(?:[^"\\]|\\.)*"):')
TYPE_NAME = re.compile(r"([a-z0-9]+)(?:[\[(]([^\])]*)[\])])?")


def parse_type(text, at=0):
    """The type that begins at `at` as (name, its argument or its inner types), and where it ends."""
    name = TYPE_NAME.match(text, at)
    at, inner = name.end(), []
    if name[1] not in ("list", "struct", "map"):
        return (name[1], name[2]), at
    while text[at] != ">":
        at += 1
        if name[1] == "struct":
            if text[at] == ">":
                break
            at = FIELD_NAME.match(text, at).end()
        parsed, at = parse_type(text, at)
        inner.append(parsed)
    return (name[1], inner), at + 1


class Row:
    """Bytes that are read from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        taken = self.data[self.at : self.at + length]
        assert len(taken) == length, f"{length} bytes at {self.at} of {len(self.data)}"
        self.at += length
        return taken

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def fields(self, types):
        nulls = self.take((len(types) + 7) // 8)
        return [None if nulls[i // 8] >> i % 8 & 1 else self.value(kind) for i, kind in enumerate(types)]

    def value(self, kind):
        name, of = kind
        if name in FORMATS or name == "time":
            code = "<" + FORMATS.get(name, "i" if of == "ms" else "q")
            value = struct.unpack(code, self.take(struct.calcsize(code)))[0]
            return repr(value) if isinstance(value, float) else value
        if name == "decimal":
            precision, scale = (int(number) for number in of.split(","))
            unscaled = int.from_bytes(self.take(16 if precision <= 38 else 32), "little", signed=True)
            digits = tuple(int(digit) for digit in str(abs(unscaled)))
            return format(Decimal((int(unscaled < 0), digits, -scale)), "f")
        if name == "uuid":
            return str(uuid.UUID(bytes=self.take(16)))
        if name in ("interval", "fixed"):
            return self.take(12 if name == "interval" else int(of)).hex()
        if name in ("string", "binary"):
            data = self.take(self.uvarint())
            return data.decode() if name == "string" else data.hex()
        if name == "list":
            return self.fields(of * self.uvarint())
        if name == "struct":
            return self.fields(of)
        assert name == "map", f"the type {name} is not in the contract"
        count = self.uvarint()
        keys, values = self.fields(of[:1] * count), self.fields(of[1:] * count)
        return [list(pair) for pair in zip(keys, values)]


def decode(types, data):
    """The rows of one file, each a list of values."""
    types = [parse_type(text)[0] for text in types]
    rows, source = [], Row(data)
    while source.at < len(data):
        row = Row(source.take(source.uvarint()))
        rows.append(row.fields(types))
        assert row.at == len(row.data), "a row is longer than its values"
    return rows


if __name__ == "__main__":
    print(json.dumps([decode(job["types"], bytes.fromhex(job["hex"])) for job in json.load(sys.stdin)]))
