"""Columns of the wild files: their types, values in memory and Arrow arrays.

Knows pyarrow's types. It must not know how a file is laid out, written or asked. Values are made here from nothing but a
seeded generator, so that what a file must answer is known without any reader of Parquet.
"""

import math
import random
import string
import uuid
from dataclasses import dataclass, field
from decimal import Decimal

import pyarrow as pa

import neutral

ARROW = {"bool": pa.bool_(), "float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}
ARROW |= {"string": pa.string(), "binary": pa.binary(), "uuid": pa.uuid(), "date32": pa.date32(), "null": pa.null()}
ARROW |= {name: getattr(pa, name)() for name in neutral.INTEGERS}
DAY = 86_400
LONG_PREFIX = "shared-prefix/" * 6
ALPHABET = string.ascii_letters + string.digits + " äß漢é😀/'\"\\\n"


@dataclass
class Column:
    name: str
    # In the grammar of docs/FORMATS.md.
    kind: str
    values: list
    # Where Arrow has several types for one of Parquet.
    arrow: pa.DataType = None
    nullable: bool = True
    parsed: tuple = field(init=False)

    def __post_init__(self):
        self.parsed = neutral.parse(self.kind)

    def array(self, start=0, end=None):
        return arrow_array(self.values[start:end], self.parsed, self.arrow)

    def field(self):
        return pa.field(self.name, self.arrow or arrow_type(self.parsed), self.nullable)


def table(columns, start=0, end=None):
    return pa.Table.from_arrays(
        [column.array(start, end) for column in columns], schema=pa.schema([column.field() for column in columns])
    )


def arrow_type(kind):
    name = kind[0]
    if name in ARROW:
        return ARROW[name]
    if name == "decimal":
        return pa.decimal128(kind[1], kind[2]) if kind[1] <= 38 else pa.decimal256(kind[1], kind[2])
    if name == "fixed":
        return pa.binary(int(kind[1]))
    if name == "time":
        return pa.time32("ms") if kind[1] == "ms" else pa.time64(kind[1])
    if name == "timestamp":
        return pa.timestamp(kind[1], "UTC" if kind[2] else None)
    if name == "duration":
        return pa.duration(kind[1])
    if name == "list":
        return pa.list_(arrow_type(kind[1]))
    if name == "struct":
        return pa.struct([(label, arrow_type(inner)) for label, inner in kind[1]])
    return pa.map_(arrow_type(kind[1]), arrow_type(kind[2]))


def arrow_array(values, kind, arrow=None):
    arrow = arrow or arrow_type(kind)
    if pa.types.is_dictionary(arrow):
        return arrow_array(values, kind, arrow.value_type).dictionary_encode().cast(arrow)
    if pa.types.is_date64(arrow):
        return pa.array([None if value is None else value * DAY * 1000 for value in values], arrow)
    if kind[0] == "uuid":
        return pa.array([None if value is None else value.bytes for value in values], pa.binary(16)).cast(arrow)
    if pa.types.is_run_end_encoded(arrow):
        return arrow_array(values, kind, arrow.value_type)
    return pa.array(values, arrow)


def pool(rng, kind, count):
    """About so many distinct values, with those at the edges of the type among them."""
    kind = neutral.parse(kind) if isinstance(kind, str) else kind
    values = list(edges(kind)) + [one(rng, kind) for _ in range(count)]
    seen, distinct = set(), []
    for value in values:
        # A zero and its negative are both kept: they are equal keys.
        identity = (repr(value), type(value))
        if identity not in seen:
            seen.add(identity)
            distinct.append(value)
    return distinct[: max(count, 12)]


def integer_range(kind):
    bits = int(kind[0].split("int")[1])
    return (0, 2**bits - 1) if kind[0].startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def edges(kind):
    name = kind[0]
    if name in neutral.INTEGERS:
        low, high = integer_range(kind)
        return [low, high, 0, 1, high // 2, high // 2 + 1, max(low, -1)]
    if name in neutral.FLOATS:
        tiny = {"float16": 2.0**-24, "float32": 2.0**-149, "float64": 5e-324}[name]
        return [0.0, -0.0, math.inf, -math.inf, tiny, -tiny, 1.5, -1.5, neutral.rounded(0.1, name)]
    if name == "decimal":
        top = Decimal(10**kind[1] - 1).scaleb(-kind[2])
        return [top, -top, Decimal(0), Decimal(1).scaleb(-kind[2]), Decimal(-1).scaleb(-kind[2])]
    if name in ("string", "binary"):
        texts = ["", " ", "a", "aa", LONG_PREFIX, LONG_PREFIX + "a", LONG_PREFIX + "b", "\0", "\x7f", "é", "漢" * 30]
        texts += ["😀", "\U0010ffff" * 20, "\uffff" * 30, "null", "NaN", "1"]
        if name == "string":
            return texts
        return [text.encode() for text in texts] + [b"\xff" * size for size in (1, 20, 64, 100)] + [b"\x80", b"\xfe\xff"]
    if name == "fixed":
        size = int(kind[1])
        return [b"\0" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), b"\x80" + b"\0" * (size - 1)]
    if name == "uuid":
        return [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=2**127), uuid.UUID(int=2**127 - 1)]
    if name == "bool":
        return [False, True]
    if name == "date32":
        return [-1, 0, 1, -719_162, 2_932_896]
    if name == "time":
        return [0, 1, DAY * neutral.PER_SECOND[kind[1]] - 1]
    if name == "timestamp":
        far = 9_000_000_000 if kind[1] == "ns" else 200_000_000_000
        return [moment * neutral.PER_SECOND[kind[1]] for moment in (-1, 0, 1, -far // 10, far)] + [-1, 1]
    return [-1, 0, 1, 2**40] if name == "duration" else []


def one(rng, kind):
    """A value of the type."""
    name = kind[0]
    if name in neutral.INTEGERS:
        low, high = integer_range(kind)
        return rng.randint(low, high) if rng.random() < 0.3 else rng.randint(max(low, -9999), min(high, 9999))
    if name in neutral.FLOATS:
        return neutral.rounded(rng.uniform(-1000, 1000) * (1 if name == "float16" else 10 ** rng.randint(-9, 9)), name)
    if name == "decimal":
        digits = rng.choice([kind[1], kind[1], max(kind[1] // 2, 1)])
        return Decimal(rng.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-kind[2])
    if name == "string":
        prefix = LONG_PREFIX if rng.random() < 0.4 else ""
        return prefix + "".join(rng.choices(ALPHABET, k=rng.randint(1, 12)))
    if name == "binary":
        prefix = b"\xff" * 70 if rng.random() < 0.3 else b""
        return prefix + rng.randbytes(rng.randint(1, 10))
    if name == "fixed":
        return rng.randbytes(int(kind[1]))
    if name == "uuid":
        return uuid.UUID(bytes=rng.randbytes(16))
    if name == "bool":
        return rng.random() < 0.5
    if name == "date32":
        return rng.randint(-30_000, 60_000)
    if name == "time":
        return rng.randrange(DAY * neutral.PER_SECOND[kind[1]])
    if name in ("timestamp", "duration"):
        return rng.randint(-(10**9), 4 * 10**9) * neutral.PER_SECOND[kind[1]] + rng.randint(0, 999)
    if name == "list":
        return [maybe(rng, kind[1]) for _ in range(rng.choice([0, 1, 2, 5]))]
    if name == "struct":
        return {label: maybe(rng, inner) for label, inner in kind[1]}
    if name == "map":
        return [(one(rng, kind[1]), maybe(rng, kind[2])) for _ in range(rng.choice([0, 1, 3]))]
    return None


def maybe(rng, kind, nulls=0.2):
    return None if rng.random() < nulls else one(rng, kind)


def payload(rng, name, kind, rows, nulls=0.2, arrow=None):
    """A column that is only read, never asked."""
    parsed = neutral.parse(kind)
    return Column(name, kind, [maybe(rng, parsed, nulls) for _ in range(rows)], arrow)


def seeded(*words):
    return random.Random("/".join(str(word) for word in words))
