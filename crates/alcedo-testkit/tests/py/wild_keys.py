"""Wild files by pyarrow: every key type in every order and every placement of nulls, with a writer's options at random.

Knows pyarrow's writer. The options of a file follow from its number, so that the same number makes the same file.
"""

import pyarrow as pa
import pyarrow.parquet as pq

import neutral
from wild_columns import Column, payload, pool, seeded, table
from wild_layouts import NULLS, ORDERS, lay_out

ROWS = 600
# Name, type, Arrow's type where it is not the plain one, and options that belong to the type.
KEYS = [(name, name, None, {}) for name in sorted(neutral.INTEGERS) + sorted(neutral.FLOATS)]
KEYS += [(f"decimal_{p}_{s}", f"decimal({p},{s})", None, {}) for p, s in [(9, 2), (18, 4), (38, 10), (50, 5), (5, 0)]]
KEYS += [(f"decimal_int_{p}", f"decimal({p},2)", None, {"store_decimal_as_integer": True}) for p in (4, 9, 10, 18, 20)]
KEYS += [("string", "string", None, {}), ("string_large", "string", pa.large_string(), {})]
KEYS += [("string_view", "string", pa.string_view(), {}), ("binary", "binary", None, {})]
KEYS += [("binary_large", "binary", pa.large_binary(), {}), ("binary_view", "binary", pa.binary_view(), {})]
KEYS += [("fixed1", "fixed[1]", None, {}), ("fixed16", "fixed[16]", None, {}), ("fixed70", "fixed[70]", None, {})]
KEYS += [("uuid", "uuid", None, {}), ("bool", "bool", None, {}), ("null", "null", None, {})]
KEYS += [("date32", "date32", None, {}), ("date64", "date32", pa.date64(), {})]
KEYS += [(f"time_{unit}", f"time[{unit}]", None, {}) for unit in ("ms", "us", "ns")]
KEYS += [(f"timestamp_{unit}", f"timestamp[{unit}]", None, {}) for unit in ("s", "ms", "us", "ns")]
KEYS += [(f"instant_{unit}", f"timestamp[{unit},UTC]", None, {}) for unit in ("ms", "us", "ns")]
KEYS += [("instant_zone", "timestamp[us,UTC]", pa.timestamp("us", "Europe/Berlin"), {})]
KEYS += [("int96", "timestamp[ns]", None, {"use_deprecated_int96_timestamps": True})]
KEYS += [(f"duration_{unit}", f"duration[{unit}]", None, {}) for unit in ("s", "us", "ns")]
KEYS += [("category", "string", pa.dictionary(pa.int16(), pa.string()), {})]
KEYS += [("category_int64", "int64", pa.dictionary(pa.int16(), pa.int64()), {})]
KEYS += [("category_binary", "binary", pa.dictionary(pa.int32(), pa.binary()), {})]
CODECS = [("none", None), ("snappy", None), ("gzip", 9), ("brotli", 5), ("zstd", 3), ("zstd", 19), ("lz4", None)]
PAYLOADS = ["string", "int64", "float64", "binary", "decimal(20,3)", "list<int16>", "struct<a:int32,b:string>"]
PAYLOADS += ["list<struct<x:float32,y:list<string>>>", "map<string,int64>", "timestamp[us,UTC]", "bool", "fixed[3]"]
PAYLOADS += ["struct<l:list<map<string,list<int8>>>>", "date32", "float16", "uuid", "list<list<string>>"]
NUMBERS = ("PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT")
TEXTS = ("PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY")


def encodings(kind, options):
    """The encodings of one type's physical type."""
    name = kind[0]
    if name == "bool":
        return ("PLAIN", "RLE")
    if name in ("string", "binary"):
        return TEXTS
    if name in ("float32", "float64"):
        return ("PLAIN", "BYTE_STREAM_SPLIT")
    if name in ("fixed", "uuid", "float16"):
        return ("PLAIN", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT")
    if name == "decimal":
        is_integer = options.get("store_decimal_as_integer") and kind[1] <= 18
        return NUMBERS if is_integer else ("PLAIN", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT")
    return ("PLAIN",) if "use_deprecated_int96_timestamps" in options or name == "null" else NUMBERS


def writer_options(rng, columns, fixed):
    codec, level = rng.choice(CODECS)
    options = {"compression": codec, "compression_level": level, "data_page_version": rng.choice(["1.0", "2.0"])}
    options["data_page_size"] = rng.choice([64, 256, 1024, 1 << 20])
    options["write_batch_size"] = rng.choice([1, 7, 64, 1024])
    options["write_page_index"] = rng.random() < 0.5
    options["write_page_checksum"] = rng.random() < 0.4
    options["write_statistics"] = rng.choice([True, True, True, False, ["n"]])
    options["store_schema"] = rng.random() < 0.8 or any(column.kind.startswith("duration") for column in columns)
    options["use_compliant_nested_type"] = rng.random() < 0.7
    options["max_rows_per_page"] = rng.choice([None, None, 20, 111])
    if rng.random() < 0.5:
        options["dictionary_pagesize_limit"] = rng.choice([1 << 20, 1 << 20, 300, 30])
    else:
        flat = [column for column in columns if column.parsed[0] not in ("list", "struct", "map")]
        options["use_dictionary"] = False
        options["column_encoding"] = {column.name: rng.choice(encodings(column.parsed, fixed)) for column in flat}
    if rng.random() < 0.2 and not any("[ns" in column.kind for column in columns):
        # Older files have neither nanoseconds nor, in the oldest, 32 bits without a sign.
        options["version"] = rng.choice(["1.0", "2.4"])
    has_bloom = rng.random() < 0.3 and columns[0].parsed[0] not in ("bool", "null")
    if has_bloom:
        options["bloom_filter_options"] = {columns[0].name: {"ndv": 200, "fpp": 0.01}}
    return options | fixed


def make(number):
    """The columns, the writer's options and the features of the file of this number."""
    rng = seeded("keys", number)
    name, kind, arrow, fixed = KEYS[number % len(KEYS)]
    order, nulls = ORDERS[number % len(ORDERS)], NULLS[number // len(ORDERS) % len(NULLS)]
    if number % len(KEYS) != number:
        order, nulls = rng.choice(ORDERS), rng.choice(NULLS)
    rows = rng.choice([ROWS, ROWS, 37, 211])
    values = pool(rng, kind, rng.choice([20, rows // 2, rows])) if kind != "null" else []
    if kind.startswith("float") and rng.random() < 0.6:
        values += [float("nan")] * max(len(values) // 10, 1)
    if fixed.get("use_deprecated_int96_timestamps"):
        values += [-9_000_000_000 * 10**9, 9_000_000_000 * 10**9]
    key = Column("k", kind, lay_out(rng, values, order, nulls, rows), arrow, nulls != "none" or kind == "null" or rng.random() < 0.5)
    columns = [key, Column("n", "int32", list(range(rows)), None, False)]
    # As INT96 a payload's moments would lose their unit and their zone.
    kinds = [kind for kind in PAYLOADS if not (kind.startswith("timestamp") and name == "int96")]
    columns += [payload(rng, f"p{place}", kind, rows) for place, kind in enumerate(rng.sample(kinds, 4))]
    rng.shuffle(columns[2:])
    options = writer_options(rng, columns, fixed)
    declares = order == "lying" or order in ("ascending", "descending") and rng.random() < 0.5
    if declares:
        options["sorting_columns"] = [pq.SortingColumn(0, order == "descending", nulls == "first")]
    features = [f"key:{name}", f"order:{order}", f"nulls:{nulls}", f"codec:{options['compression']}"]
    return f"keys_{number:04}_{name}", columns, options, features, rng.choice([50, 128, 200, rows])


def write(path, columns, options, group_rows):
    """Row groups of so many rows each, with an empty one between."""
    rows = len(columns[0].values)
    with pq.ParquetWriter(path, table(columns, 0, 0).schema, **options) as writer:
        for group, start in enumerate(range(0, rows, group_rows)):
            if group == 1:
                writer.write_table(table(columns, 0, 0))
            writer.write_table(table(columns, start, start + group_rows), row_group_size=group_rows)
