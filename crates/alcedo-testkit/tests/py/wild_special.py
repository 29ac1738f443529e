"""Wild files by pyarrow that are special inside: nested types, encodings, codecs, old INT96 moments, encryption.

Knows pyarrow's writer. Each maker writes one file and returns what is asked of it.
"""

import base64
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption

import neutral
from wild_ask import Asker
from wild_columns import Column, arrow_type, payload, pool, seeded, table
from wild_layouts import lay_out

NESTED = ["list<int32>", "list<string>", "list<list<int64>>", "struct<a:int64,b:struct<c:string,d:list<float64>>>",
          "map<string,int32>", "map<int32,list<string>>", "map<string,struct<x:int8,y:map<string,bool>>>",
          "list<struct<a:int32,b:list<string>>>", "list<map<string,int64>>", "struct<l:list<map<int32,string>>>",
          "list<list<list<bool>>>", "struct<s:struct<s:struct<s:struct<v:string>>>>", "list<timestamp[us,UTC]>",
          "list<decimal(12,3)>", "struct<u:fixed[16],f:fixed[4],h:float16,d:date32,t:time[us]>", "list<binary>",
          "map<date32,decimal(5,1)>", "list<struct<k:map<string,list<struct<z:uint64>>>>>"]


def nested(options, large=None):
    """Every nested type at once, with nulls at every level, beside a key."""

    def make(path, file, rng):
        rows = 230
        columns = [Column("k", "int64", [number // 2 for number in range(rows)])]
        # Spark's moments are INT96, which has neither unit nor zone.
        kinds = [kind for kind in NESTED if not ("flavor" in options and "timestamp" in kind)]
        for place, kind in enumerate(kinds):
            arrow = large(arrow_type(neutral.parse(kind))) if large else None
            columns.append(payload(rng, f"c{place}", kind, rows, rng.choice([0, 0.3, 1]) if place > 4 else 0.2, arrow))
        pq.write_table(table(columns), path, row_group_size=100, **options)
        asker = Asker(file, columns)
        for key in range(0, 115, 6):
            asker.ask("k", key, "nested", None)
        for column in columns[1:]:
            asker.ask("k", rng.randrange(115), "nested", [column.name])
            asker.ask("k", rng.randrange(115), "nested", [column.name, "k"])
        asker.error({"column": "c0", "type": "int32", "value": "1"}, "eq", None, "unsupported")
        asker.error({"column": "c4", "type": "int32", "value": "1"}, "eq", None, "unsupported")
        return asker

    return make


def large_lists(kind):
    return pa.large_list(kind.value_type) if pa.types.is_list(kind) else kind


def view_lists(kind):
    return pa.list_view(kind.value_type) if pa.types.is_list(kind) else kind


def fixed_lists(path, file, rng):
    rows = 120
    columns = [Column("k", "string", [f"k{number:03}" for number in range(rows)])]
    vectors = [None if number % 7 == 0 else [rng.randint(-9, 9) for _ in range(3)] for number in range(rows)]
    columns.append(Column("v", "list<int32>", vectors, pa.list_(pa.int32(), 3)))
    floats = [[neutral.rounded(rng.random(), "float32") for _ in range(8)] for _ in range(rows)]
    columns.append(Column("e", "list<float32>", floats, pa.list_(pa.field("item", pa.float32(), False), 8), False))
    pq.write_table(table(columns), path, row_group_size=50, write_page_index=True)
    asker = Asker(file, columns)
    asker.all_of("k")
    return asker


def long_lists(path, file, rng):
    """Lists of thousands of values: rows that are longer than a data page."""
    rows = 40
    columns = [Column("k", "int32", list(range(rows)))]
    columns.append(Column("l", "list<int64>", [list(range(number * 200)) for number in range(rows)]))
    columns.append(Column("s", "list<string>", [[f"{n}"] * 500 if n % 3 else [] for n in range(rows)]))
    pq.write_table(table(columns), path, row_group_size=15, data_page_size=512, data_page_version="2.0",
                   write_page_index=True, write_batch_size=100)
    asker = Asker(file, columns)
    for key in range(0, rows + 2, 3):
        asker.ask("k", key, "long lists", None)
    return asker


def fallback(version):
    """A dictionary that is given up in the middle of a chunk, for every kind of key."""

    def make(path, file, rng):
        rows = 900
        kinds = {"i": "int64", "s": "string", "b": "binary", "f": "float64", "x": "fixed[16]", "d": "decimal(20,2)"}
        columns = [Column(name, kind, lay_out(rng, pool(rng, kind, 500), "unsorted", "mixed", rows))
                   for name, kind in kinds.items()]
        pq.write_table(table(columns), path, row_group_size=450, dictionary_pagesize_limit=500, data_page_size=300,
                       write_batch_size=20, data_page_version=version)
        asker = Asker(file, columns)
        for column in columns:
            asker.all_of(column.name)
        return asker

    return make


def codec(name, level, size):
    """Pages of some size, so that block boundaries of the codec are inside."""

    def make(path, file, rng):
        rows = 3000
        columns = [Column("k", "int64", [number * 7 for number in range(rows)])]
        columns.append(Column("s", "string", [f"{number % 50}-" * 40 for number in range(rows)]))
        columns.append(Column("r", "binary", [rng.randbytes(60) for _ in range(rows)]))
        pq.write_table(table(columns), path, row_group_size=2000, compression=name, compression_level=level,
                       use_dictionary=False, data_page_size=size, write_page_index=True, write_page_checksum=True)
        asker = Asker(file, columns)
        for key in (0, 7, 8, 7 * 1999, 7 * 2000, 7 * 2999, 7 * 3000, 7 * 1234):
            asker.ask("k", key, "codec", None)
        asker.ask("s", columns[1].values[11], "codec", ["k"])
        asker.ask("r", columns[2].values[2500], "codec", ["k", "s"])
        return asker

    return make


def old_moments(path, file, rng):
    """INT96 of the years 1600 and 9999, which no count of nanoseconds in 64 bits reaches."""
    second = 10**6
    far = [-11_644_473_600, -11_676_096_000, 253_402_300_799, -62_135_596_800, 0, 1, -1]
    values = [moment * second + extra for moment in far for extra in (0, 999_999)] + [None]
    columns = [Column("k", "timestamp[us]", values), Column("n", "int32", list(range(len(values))), None, False)]
    pq.write_table(table(columns), path, use_deprecated_int96_timestamps=True)
    asker = Asker(file, columns)
    for number in range(len(values)):
        asker.ask("n", number, "int96", ["k"])
    for value in values:
        asker.ask("k", value, "int96", ["n"])
    asker.ask("k", 253_402_300_800 * second, "int96", ["n"])
    return asker


def nan_only(path, file, rng):
    """Row groups of NaN alone, of zeros of both signs alone, and of both."""
    values = [math.nan] * 20 + [-0.0] * 10 + [0.0] * 10 + [math.nan, 0.0, -0.0, 1.0] * 5 + [1.0, math.inf, -math.inf]
    columns = [Column("k", "float64", values), Column("g", "float32", values), Column("h", "float16", values)]
    columns.append(Column("n", "int32", list(range(len(values)))))
    pq.write_table(table(columns), path, row_group_size=20, write_page_index=True, use_dictionary=False)
    asker = Asker(file, columns)
    for name in ("k", "g", "h"):
        for key in (0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 2.0):
            asker.ask(name, key, "nan", ["n", name])
    return asker


def clocks(path, file, rng):
    """TIME columns that say they are UTC, seconds in 32 bits, and JSON texts."""
    rows = 50
    columns = [Column("t", "time[us]", [number * 1_000_003 for number in range(rows)])]
    columns.append(Column("s", "time[ms]", [number * 1000 for number in range(rows)], pa.time32("s")))
    columns.append(Column("j", "string", [f'{{"a":{number}}}' for number in range(rows)], pa.json_()))
    columns[1:2] = [Column("s", "time[ms]", [number * 1000 for number in range(rows)])]
    arrays = [columns[0].array(), columns[1].array(), pa.array(columns[2].values).cast(pa.json_())]
    pq.write_table(pa.table(arrays, names=["t", "s", "j"]), path, write_time_adjusted_to_utc=True)
    columns[2].arrow = None
    asker = Asker(file, columns)
    for name in ("t", "s", "j"):
        asker.all_of(name)
    return asker


class Keys(encryption.KmsClient):
    """Wraps keys by nothing: only the files matter here."""

    def __init__(self, _):
        encryption.KmsClient.__init__(self)

    def wrap_key(self, key_bytes, master_key_identifier):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return base64.b64decode(wrapped_key)


def encrypted(plaintext_footer, uniform=False):
    def make(path, file, rng):
        rows = 300
        columns = [Column("k", "int64", list(range(rows))), Column("s", "string", [f"s{n % 90}" for n in range(rows)])]
        columns += [Column("secret", "int64", [n * 2 for n in range(rows)]), payload(rng, "p", "list<int32>", rows)]
        column_keys = {} if uniform else {"column_keys": {"c": ["secret"]}}
        configuration = encryption.EncryptionConfiguration(
            footer_key="f", plaintext_footer=plaintext_footer, uniform_encryption=uniform, **column_keys)
        factory = encryption.CryptoFactory(Keys)
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), configuration)
        pq.write_table(table(columns), path, row_group_size=100, encryption_properties=properties)
        asker = Asker(file, columns)
        key = {"column": "k", "type": "int64", "value": "7"}
        if not plaintext_footer:
            asker.error(key, "eq", None, "encrypted")
            asker.error(key, "is_null", ["k"], "encrypted")
            return asker
        if not uniform:
            for number in (0, 7, 99, 100, 299, 300):
                asker.ask("k", number, "plain beside encrypted", ["k", "s", "p"])
            asker.ask("s", "s7", "plain beside encrypted", ["k"])
        asker.error(key, "eq", None, "encrypted")
        asker.error(key, "eq", ["k", "secret"], "encrypted")
        asker.error({"column": "secret", "type": "int64", "value": "14"}, "eq", ["k"], "encrypted")
        return asker

    return make


MAKERS = [("nested", f"nested_{name}", nested(options)) for name, options in [
    ("plain", {}), ("pages", {"data_page_size": 64, "write_batch_size": 5, "write_page_index": True}),
    ("v2", {"data_page_version": "2.0", "data_page_size": 100, "write_batch_size": 3, "compression": "zstd"}),
    ("old", {"use_compliant_nested_type": False, "store_schema": False, "version": "1.0"}),
    ("spark", {"flavor": "spark"}), ("delta", {"use_dictionary": False, "version": "2.4"})]]
MAKERS += [("nested", "nested_large", nested({}, large_lists)), ("nested", "nested_views", nested({}, view_lists))]
MAKERS += [("nested", "fixed_lists", fixed_lists), ("nested", "long_lists", long_lists)]
MAKERS += [("encoding", f"fallback_{version[0]}", fallback(version)) for version in ("1.0", "2.0")]
MAKERS += [("codec", f"codec_{name}_{level}_{size}", codec(name, level, size))
           for name, level in [("none", None), ("snappy", None), ("gzip", 1), ("brotli", 11), ("zstd", 22), ("lz4", None)]
           for size in (2_000, 1 << 20)]
MAKERS += [("keys", "int96_far", old_moments), ("keys", "nan_only", nan_only), ("keys", "clocks", clocks)]
MAKERS += [("encrypted", "encrypted_columns", encrypted(True)), ("encrypted", "encrypted_footer", encrypted(False))]
MAKERS += [("encrypted", "encrypted_all_plain_footer", encrypted(True, True))]
