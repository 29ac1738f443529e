"""Asks pyarrow and DuckDB the lookups of a corpus, by a filter on the key, and compares their rows with what must come.

Knows both peers and the corpus's form. It must not know Alcedo, whose answers are compared elsewhere with the same
expectations. A difference is no fault of this program: those that are known stand in peers_known.py with their reasons.

Usage: agree.py CORPUS MOST, prints {peer: {"version", "asked", "agreed", "left_out", "unknown", "known"}}; of each file at
most so many lookups are asked. `unknown` are differences that are not in the list, `known` the entries that were seen.
"""

import base64
import json
import pathlib
import struct
import sys
import uuid
import warnings
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

import machine
import neutral
import peers_known

# Files with thousands of columns, row groups or rows a key.
SLOW = {"wide.parquet", "many_groups.parquet", "one_huge_group.parquet", "megabytes.parquet", "large_answer.parquet"}
TEMPORAL = {"date32[day]": pa.int32(), "time32[s]": pa.int32(), "time32[ms]": pa.int32()}


class LeftOut(Exception):
    """The lookup cannot be put to this peer: its key has no value of the column's type."""


def in_memory(value, kind):
    """A neutral key as a value in memory."""
    name = kind[0]
    if value is None or name == "bool":
        return value
    if name in neutral.COUNTS:
        return int(value)
    if name in neutral.FLOATS:
        return float(value)
    if name == "decimal":
        return Decimal(value)
    if name == "uuid":
        return uuid.UUID(value)
    return base64.b64decode(value) if name in ("binary", "fixed") else value


def key_of(query, kind):
    """The key as a value of the column's type."""
    spelled = query["key"]["type"]
    if query["key"]["value"] is None:
        # No key at all.
        raise LeftOut
    own = neutral.parse(spelled) if spelled else kind
    value = in_memory(query["key"]["value"], own)
    if own[0] in neutral.FLOATS:
        value = neutral.rounded(value, own[0])
    if own[0] == kind[0] == "timestamp" and own[1] != kind[1]:
        nanos = neutral.nanos(value, own)
        value, rest = divmod(nanos, 10**9 // neutral.PER_SECOND[kind[1]])
        if rest:
            raise LeftOut
    if kind[0] in neutral.INTEGERS:
        bits = int(kind[0].split("int")[1])
        low, high = (0, 2**bits) if kind[0][0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        if not low <= value < high:
            raise LeftOut
    if kind[0] == "decimal" and (value != round(value, kind[2]) or abs(value) >= Decimal(10) ** (kind[1] - kind[2])):
        raise LeftOut
    return value


def kind_of(arrow):
    """The type of an Arrow column in the grammar."""
    if pa.types.is_interval(arrow):
        return ("interval",)
    if isinstance(arrow, pa.BaseExtensionType):
        return ("uuid",) if arrow.extension_name == "arrow.uuid" else kind_of(arrow.storage_type)
    if pa.types.is_dictionary(arrow):
        return kind_of(arrow.value_type)
    if pa.types.is_decimal(arrow):
        return ("decimal", arrow.precision, arrow.scale)
    if pa.types.is_timestamp(arrow):
        return ("timestamp", arrow.unit, arrow.tz is not None)
    if pa.types.is_time(arrow) or pa.types.is_duration(arrow):
        return ("duration" if pa.types.is_duration(arrow) else "time", arrow.unit)
    if pa.types.is_date(arrow):
        return ("date32",)
    if pa.types.is_fixed_size_binary(arrow):
        return ("fixed", str(arrow.byte_width))
    if pa.types.is_map(arrow):
        return ("map", kind_of(arrow.key_type), kind_of(arrow.item_type))
    if pa.types.is_struct(arrow):
        return ("struct", tuple((field.name, kind_of(field.type)) for field in arrow))
    if pa.types.is_nested(arrow):
        return ("list", kind_of(arrow.value_type))
    name = str(arrow).removeprefix("large_").removesuffix("_view")
    return ({"halffloat": "float16", "float": "float32", "double": "float64"}.get(name, name),)


def plain(array):
    """An Arrow array's values in memory, moments and times as their counts."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return [value if value is None else uuid.UUID(bytes=value) for value in plain(array.storage)] \
            if kind.extension_name == "arrow.uuid" else plain(array.storage)
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_date64(kind):
        return plain(array.cast(pa.date32()))
    if pa.types.is_interval(kind):
        spans = array.to_pylist()
        return [span and struct.pack("<III", span.months, span.days, span.nanoseconds // 10**6) for span in spans]
    if pa.types.is_temporal(kind):
        return array.view(TEMPORAL.get(str(kind), pa.int64())).to_pylist()
    valid = array.is_valid().to_pylist()
    if pa.types.is_map(kind):
        pairs, offsets = list(zip(plain(array.keys), plain(array.items))), array.offsets.to_pylist()
        return [pairs[offsets[at] : offsets[at + 1]] if there else None for at, there in enumerate(valid)]
    if pa.types.is_struct(kind):
        fields = [(field.name, plain(array.field(place))) for place, field in enumerate(kind)]
        return [{name: values[at] for name, values in fields} if there else None for at, there in enumerate(valid)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values, offsets = plain(array.values), array.offsets.to_pylist()
        return [values[offsets[at] : offsets[at + 1]] if there else None for at, there in enumerate(valid)]
    if pa.types.is_nested(kind):
        return [value if value is None else plain(pa.array(value, kind.value_type)) for value in array.to_pylist()]
    return array.to_pylist()


def answer_of(table):
    kinds = [kind_of(field.type) for field in table.schema]
    columns = [plain(pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type))
               for column in table.columns]
    spelled = [[neutral.spell(value, kind) for value in values] for values, kind in zip(columns, kinds)]
    rows = [list(row) for row in zip(*spelled)]
    return {"rows": rows, "types": [neutral.text(kind) for kind in kinds]}


class PyArrow:
    version = f"pyarrow {pa.__version__}"

    def __init__(self, path):
        self.dataset = ds.dataset(path, format="parquet")
        self.names = self.dataset.schema.names

    def field(self, name):
        return pc.field(name) if name in self.names else pc.field(*name.split("."))

    def kind(self, name):
        kind = self.dataset.schema
        for part in [name] if name in self.names else name.split("."):
            kind = kind.field(part)
            kind = kind.type
        return kind

    def ask(self, query):
        if query["expect"].get("class") == "encrypted":
            # A scan of a column that it has no key for never ends.
            raise LeftOut
        name = query["key"]["column"]
        arrow = self.kind(name)
        field = self.field(name)
        if query["op"] == "is_null":
            chosen = field.is_null()
        else:
            kind = kind_of(arrow)
            value = key_of(query, kind)
            value = value.bytes if kind[0] == "uuid" else value
            try:
                own = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
                is_extension = isinstance(arrow, pa.BaseExtensionType)
                own = arrow.storage_type if is_extension else own
                scalar = pa.scalar(value, pa.date32() if pa.types.is_date64(own) else own)
            except (pa.ArrowInvalid, OverflowError) as error:
                raise LeftOut from error
            field = field.cast(own) if is_extension else field
            chosen = field == scalar
        names = query["project"] or self.names
        answer = answer_of(self.dataset.to_table(columns={name: self.field(name) for name in names}, filter=chosen))
        # A scan does not tell where rows are; how many there are it does.
        wanted = query["expect"].get("row_numbers", [])
        count = len(answer["rows"])
        return answer | {"row_numbers": wanted if count == len(wanted) else f"{count} of them"}


class DuckDB:
    version = f"DuckDB {duckdb.__version__}"
    connection = duckdb.connect(config={"threads": 2})

    def __init__(self, path):
        self.connection.execute("SET TimeZone = 'UTC'")
        self.source = f"read_parquet({quote(path)}, file_row_number = true)"
        described = self.connection.execute(f"DESCRIBE SELECT * FROM {self.source}").fetchall()
        self.types = {}
        self.names = [row[0] for row in described if row[0] != "file_row_number"]

    def column(self, name):
        if name in self.names:
            return '"' + name.replace('"', '""') + '"'
        return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))

    def ask(self, query):
        name = self.column(query["key"]["column"])
        projected = query["project"] or self.names
        columns = ["file_row_number", *[f"{self.column(one)} AS c{place}" for place, one in enumerate(projected)]]
        # A key need not be JSON to be looked for among JSON texts.
        compared = f"{name}::VARCHAR" if self.type_of(name) == "JSON" else name
        chosen = f"{name} IS NULL" if query["op"] == "is_null" else f"{compared} = {self.literal(query, name)}"
        sql = f"SELECT {', '.join(columns)} FROM {self.source} WHERE {chosen} ORDER BY 1"
        table = self.connection.execute(sql).to_arrow_table()
        answer = answer_of(table.drop(["file_row_number"]))
        return answer | {"row_numbers": table["file_row_number"].to_pylist()}

    def literal(self, query, name):
        own = self.type_of(name)
        kind = duck_kind(own)
        value = key_of(query, kind)
        if kind[0] == "timestamp":
            maker = {"us": "make_timestamp", "ms": "make_timestamp_ms", "ns": "make_timestamp_ns"}[kind[1]]
            return f"{maker}({value}::BIGINT)" + ("::TIMESTAMPTZ" if kind[2] else "")
        if kind[0] == "date32":
            if not -(2**31) < value < 2**31 - 1:
                raise LeftOut
            return f"DATE '1970-01-01' + {value}::INTEGER"
        if kind[0] == "time":
            micros, rest = divmod(neutral.nanos(value, kind), 1000)
            if rest or kind[1] == "ns" or not 0 <= micros < 86_400_000_000:
                raise LeftOut
            return f"TIME '00:00:00' + to_microseconds({micros}::BIGINT)"
        if kind[0] == "binary":
            return f"from_hex('{value.hex()}')"
        text = str(value) if not isinstance(value, float) else repr(value)
        return f"{quote(text)}::{'VARCHAR' if own == 'JSON' else own}"

    def type_of(self, column):
        if column not in self.types:
            rows = self.connection.execute(f"SELECT typeof({column}) FROM {self.source} LIMIT 1").fetchall()
            self.types[column] = rows[0][0] if rows else "BIGINT"
        return self.types[column]


def quote(text):
    return "'" + text.replace("'", "''") + "'"


DUCK_KINDS = {"BOOLEAN": "bool", "TINYINT": "int8", "SMALLINT": "int16", "INTEGER": "int32", "BIGINT": "int64",
              "UTINYINT": "uint8", "USMALLINT": "uint16", "UINTEGER": "uint32", "UBIGINT": "uint64", "FLOAT": "float32",
              "DOUBLE": "float64", "VARCHAR": "string", "JSON": "string", "BLOB": "binary", "UUID": "uuid",
              "DATE": "date32", "TIME": "time[us]", "TIME_NS": "time[ns]", "TIMESTAMP": "timestamp[us]",
              "TIME WITH TIME ZONE": "time[us]", "TIMESTAMP_MS": "timestamp[ms]", "TIMESTAMP_NS": "timestamp[ns]",
              "TIMESTAMP WITH TIME ZONE": "timestamp[us,UTC]"}


def duck_kind(name):
    if name.startswith("DECIMAL"):
        return neutral.parse(name.lower())
    if name not in DUCK_KINDS:
        raise LeftOut
    return neutral.parse(DUCK_KINDS[name])


PEERS = {"pyarrow": PyArrow, "DuckDB": DuckDB}


def compare(query, peer):
    """How a peer's answer differs from what must come; None where it does not."""
    try:
        answer = peer.ask(query)
    except LeftOut:
        raise
    except Exception as error:  # Whatever a peer raises is its answer.
        answer = {"error": {"class": type(error).__name__, "message": str(error)}}
    expect = query["expect"]
    if expect["status"] == "error":
        return None if "error" in answer else "answered what must be refused"
    if "error" in answer:
        return f"error: {answer['error']['class']}: {answer['error']['message'][:200]}"
    accepted = [expect] + [expect | alternative for alternative in expect.get("alternatives") or []]
    differences = [neutral.difference(answer, one, neutral.alike) for one in accepted]
    return None if None in differences else differences[0]


def run(name, make, queries, files):
    result = {"asked": 0, "agreed": 0, "left_out": 0, "version": make.version, "unknown": []}
    known, opened = set(), {}
    for query in queries:
        file = query["file"]
        try:
            if file not in opened:
                opened.clear()
                opened[file] = make(str(files / file))
        except Exception as error:
            opened[file] = Unreadable(error)
        try:
            difference = compare(query, opened[file])
        except LeftOut:
            result["left_out"] += 1
            continue
        result["asked"] += 1
        if difference is None:
            result["agreed"] += 1
            continue
        entry = peers_known.find(name, query, difference)
        if entry is None:
            result["unknown"].append({"qid": query["qid"], "key": query["key"], "project": query["project"], "why": difference})
        else:
            known.add(entry)
    result["known"] = sorted(known)
    return result


class Unreadable:
    """A file that a peer does not open at all."""

    def __init__(self, error):
        self.error = error

    def ask(self, _):
        raise self.error


def spread(queries, most):
    """At most so many lookups of each file, from all over it; fewer where one costs a peer seconds."""
    by_file = {}
    for query in queries:
        # Files where everything is allowed have no answer to agree on.
        if query["expect"]["status"] in ("ok", "error"):
            by_file.setdefault(query["file"], []).append(query)
    for file, lookups in by_file.items():
        step = -(-len(lookups) // (2 if file in SLOW else most))
        yield from lookups[::step]


def main(directory, most):
    manifest, queries = machine.corpus(directory)
    asked = list(spread(queries, int(most)))
    files = pathlib.Path(directory) / "files"
    warnings.filterwarnings("ignore", message="Arrow output on a DB-API result")
    print(json.dumps({name: run(name, make, asked, files) for name, make in PEERS.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
