"""Wild files by other writers than pyarrow: DuckDB, polars and fastparquet, each with its own options.

Knows these three. Each maker writes one file and returns what is asked of it.
"""

import struct

import duckdb
import fastparquet
import pandas
import polars
import pyarrow as pa

from wild_ask import Asker
from wild_columns import Column, payload, pool, table
from wild_layouts import NULLS, ORDERS, lay_out

ROWS = 2600
# More row groups than one need more rows than a DuckDB vector has.
VECTOR = 2048
SIMPLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string", "binary",
          "bool", "date32", "decimal(4,1)", "decimal(9,3)", "decimal(18,5)", "decimal(38,8)"]
DUCK = [*SIMPLE, "uuid", "time[us]", "timestamp[us]", "timestamp[ms]", "timestamp[ns]", "timestamp[us,UTC]"]
POLARS = [*SIMPLE, "time[ns]", "timestamp[ms]", "timestamp[us]", "timestamp[ns]", "timestamp[us,UTC]", "duration[us]"]
NESTED = ["list<int32>", "struct<a:int64,b:struct<c:string>>", "list<struct<x:string,y:list<float64>>>"]


def keyed(rng, kinds, rows=ROWS):
    """A key column of each kind, each in an order and with nulls of its own."""
    columns = [Column("n", "int32", list(range(rows)))]
    for place, kind in enumerate(kinds):
        order, nulls = rng.choice(ORDERS), rng.choice([*NULLS, "none", "mixed"])
        values = lay_out(rng, pool(rng, kind, rng.choice([30, rows])), order, nulls, rows)
        columns.append(Column(f"k{place}", kind, values))
    return columns


def asked(file, columns):
    asker = Asker(file, columns)
    for column in columns:
        if column.parsed[0] not in ("list", "struct", "map"):
            asker.all_of(column.name)
    return asker


def duck(codec, version, options=""):
    def make(path, file, rng):
        columns = keyed(rng, rng.sample(DUCK, 9))
        columns += [payload(rng, f"p{place}", kind, ROWS) for place, kind in enumerate([*NESTED, "map<string,int32>"])]
        # DuckDB's maps have distinct keys.
        columns[-1].values = [pairs and list(dict(pairs).items()) for pairs in columns[-1].values]
        connection = duckdb.connect()
        connection.register("lake", table(columns))
        target = path.replace("'", "''")
        written = f"FORMAT parquet, COMPRESSION {codec}, PARQUET_VERSION {version}, ROW_GROUP_SIZE {VECTOR} {options}"
        connection.execute(f"COPY (SELECT * FROM lake) TO '{target}' ({written})")
        return asked(file, columns)

    return make


def duck_kinds(path, file, rng):
    """What DuckDB has and others have not: enumerations, bit strings, hugeints, JSON, arrays, times with an offset."""
    rows = 100
    connection = duckdb.connect()
    connection.execute(
        f"COPY (SELECT i AS n, ['a','b','c'][1 + i % 3]::ENUM('a','b','c') AS e, i::HUGEINT AS h, i::BIT::VARCHAR AS b, "
        f"to_days(i) + to_months(i) AS iv, '[1]'::JSON AS j, [i, i + 1]::INT[2] AS a, (i::VARCHAR)::BLOB AS o "
        f"FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet)")
    numbers = range(rows)
    columns = [Column("n", "int64", list(numbers)), Column("e", "string", [list("abc")[n % 3] for n in numbers])]
    columns.append(Column("h", "float64", [float(n) for n in numbers]))
    columns.append(Column("b", "string", [f"{n:064b}" for n in numbers]))
    columns.append(Column("iv", "interval", [struct.pack("<III", n, n, 0) for n in numbers]))
    columns += [Column("j", "string", ["[1]"] * rows), Column("a", "list<int32>", [[n, n + 1] for n in numbers])]
    columns.append(Column("o", "binary", [str(n).encode() for n in numbers]))
    asker = Asker(file, columns)
    for name in ("n", "e", "h", "b", "j", "o"):
        asker.all_of(name)
    return asker


def pole(**options):
    def make(path, file, rng):
        columns = keyed(rng, rng.sample(POLARS, 9))
        columns += [payload(rng, f"p{place}", kind, ROWS) for place, kind in enumerate(NESTED)]
        polars.from_arrow(table(columns)).write_parquet(path, **options)
        return asked(file, columns)

    return make


def pole_kinds(path, file, rng):
    """Categories, enumerations, arrays and a column of nulls."""
    rows = 500
    words = [f"word-{rng.randrange(40)}" for _ in range(rows)]
    columns = [Column("c", "string", words), Column("e", "string", [["x", "y", None][n % 3] for n in range(rows)])]
    columns += [Column("a", "list<int64>", [[n, 2 * n] for n in range(rows)]), Column("z", "null", [None] * rows)]
    series = [polars.Series("c", words, polars.Categorical), polars.Series("e", columns[1].values, polars.Enum(["x", "y"])),
              polars.Series("a", columns[2].values, polars.Array(polars.Int64, 2)), polars.Series("z", [None] * rows)]
    polars.DataFrame(series).write_parquet(path, row_group_size=200, data_page_size=500)
    asker = Asker(file, columns)
    for name in ("c", "e", "z"):
        asker.all_of(name)
    return asker


def fast(order, nulls, **options):
    """fastparquet: pandas' own columns, and those with a mask."""

    def make(path, file, rng):
        rows = 900
        kinds = {"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u8": "uint8", "u32": "uint32", "f32": "float32",
                 "f64": "float64", "b": "bool", "s": "string"}
        columns = [Column(name, kind, lay_out(rng, pool(rng, kind, 200), order, "none", rows)) for name, kind in kinds.items()]
        masked = {"I64": ("int64", "Int64"), "U16": ("uint16", "UInt16"), "B": ("bool", "boolean")}
        columns += [Column(name, kind, lay_out(rng, pool(rng, kind, 200), order, nulls, rows))
                    for name, (kind, _) in masked.items()]
        frame = {column.name: pandas.Series(column.values, dtype=masked.get(column.name, (0, pandas_type(column.kind)))[1])
                 for column in columns}
        # As INT96, fastparquet writes moments of nanoseconds alone.
        unit = "ns" if options.get("times") == "int96" else "us"
        moments = [rng.randint(-(2**53), 2**53) for _ in range(200)]
        columns.append(Column("t", f"timestamp[{unit}]", lay_out(rng, moments, order, "none", rows)))
        moments = pa.array(columns[-1].values, pa.timestamp(unit)).to_numpy()
        frame["t"] = pandas.Series(moments, dtype=f"datetime64[{unit}]")
        columns.append(Column("c", "string", [f"c{n % 11}" for n in range(rows)]))
        frame["c"] = pandas.Series(columns[-1].values).astype("category")
        columns.append(Column("x", "binary", lay_out(rng, pool(rng, "binary", 99), order, nulls, rows)))
        frame["x"] = pandas.Series(columns[-1].values, dtype=object)
        encodings = {name: "infer" for name in frame} | {"x": "bytes", "s": "utf8"}
        fastparquet.write(path, pandas.DataFrame(frame), object_encoding=encodings, write_index=False, **options)
        return asked(file, columns)

    return make


def pandas_type(kind):
    return {"string": object}.get(kind, kind)


MAKERS = [(f"duck_{codec}_{version}", duck(codec, version, options)) for codec, version, options in [
    ("uncompressed", "v1", ""), ("snappy", "v2", ", DICTIONARY_SIZE_LIMIT 1"), ("gzip", "v1", ""), ("brotli", "v2", ""),
    ("zstd", "v2", ", BLOOM_FILTER_FALSE_POSITIVE_RATIO 0.001"), ("lz4_raw", "v1", ", DICTIONARY_SIZE_LIMIT 100000"),
    ("lz4", "v2", ", STRING_DICTIONARY_PAGE_SIZE_LIMIT 1000")]]
MAKERS += [("duck_kinds", duck_kinds), ("polars_kinds", pole_kinds)]
MAKERS += [(f"polars_{codec}", pole(compression=codec, **options)) for codec, options in [
    ("uncompressed", {"data_page_size": 400}), ("snappy", {"row_group_size": 300}), ("gzip", {"statistics": False}),
    ("brotli", {"statistics": "full"}), ("zstd", {"row_group_size": 1000, "data_page_size": 2000}), ("lz4", {})]]
MAKERS += [(f"fast_{order}", fast(order, nulls, **options)) for order, nulls, options in [
    ("ascending", "first", {"row_group_offsets": 200}), ("descending", "last", {"compression": "GZIP"}),
    ("clustered", "mixed", {"compression": "SNAPPY", "stats": True, "row_group_offsets": 333}),
    ("unsorted", "mixed", {"compression": "ZSTD", "times": "int96"}),
    ("lying", "none", {"compression": "BROTLI", "stats": False, "has_nulls": False})]]
