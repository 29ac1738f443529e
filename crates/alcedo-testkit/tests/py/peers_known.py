"""Where pyarrow and DuckDB are known to differ from what must come, and why Alcedo does not do as they do.

Every reason stands in docs/FORMATS.md word for word. An entry that is no longer seen fails the test as well, so a new
version of a peer makes list and document shorter.

Usage: peers_known.py, prints the list.
"""

import fnmatch
import json
import re

VIEWS = "a filter over a string view or binary view column is not implemented"
EXTENSIONS = "UUID and JSON columns with statistics cannot be compared"
HALVES = "float16 columns cannot be compared"
TWICE = "a file with two columns of one name is refused as a whole"
INIT = "wide deltas of 32-bit columns end in an error"
DICTIONARIES = "dictionary columns that are encoded as DELTA_BYTE_ARRAY are refused"
NANOS = "INT96 beyond the years of 64-bit nanoseconds wraps around"
SPLIT = "BYTE_STREAM_SPLIT of fixed-length bytes is refused"
MILLIS = "a key of a time in milliseconds is compared with statistics in another unit, and rows are lost"
NAN = "NaN equals NaN"
WIDE = "decimals of more than 38 digits are read as doubles"
CASE = "names are compared without regard to case"
MICROS = "INT96 is read in microseconds, the nanoseconds are dropped"
MASKED = "nullable integers and booleans by fastparquet come out as other values"
DEPRECATED = "deprecated bounds of texts are trusted, and rows are lost"
LEGACY = "a two-level list of structs of one field is read as a list of that field"
FIXED = "rows of a fixed-length column in DELTA_BYTE_ARRAY count as null that are not"

# (peer, file, what is said of the difference, reason)
KNOWN = [
    ("pyarrow", "keys_*_string_view.parquet", "no kernel matching input types .string_view", VIEWS),
    ("pyarrow", "keys_*_binary_view.parquet", "no kernel matching input types .binary_view", VIEWS),
    ("pyarrow", "*.parquet", "no kernel matching input types .halffloat, halffloat", HALVES),
    ("pyarrow", "*.parquet", "greater_equal.*extension<arrow", EXTENSIONS),
    ("pyarrow", "same_names.parquet", "duplicate field names", TWICE),
    ("pyarrow", "duck_*_v2.parquet", "InitBlock EOF", INIT),
    ("pyarrow", "keys_*_category_binary.parquet", "DictAccumulator for DeltaByteArrayDecoder", DICTIONARIES),
    ("pyarrow", "int96_far.parquet", "timestamp.ns", NANOS),
    ("DuckDB", "*.parquet", "BYTE_STREAM_SPLIT encoding is only supported for", SPLIT),
    ("DuckDB", "keys_*_time_ms.parquet", "^rows", MILLIS),
    ("DuckDB", "clocks.parquet", "^rows", MILLIS),
    ("DuckDB", "keys_*_float*.parquet", "^rows", NAN),
    ("DuckDB", "nan_only.parquet", "^rows", NAN),
    ("DuckDB", "keys_*_decimal_50_5.parquet", "", WIDE),
    ("DuckDB", "keys_*_fixed16.parquet", "^rows", FIXED),
    ("DuckDB", "odd_names.parquet", "", CASE),
    ("DuckDB", "fast_unsorted.parquet", r"'t' is .*timestamp\[us\]", MICROS),
    ("DuckDB", "fast_*.parquet", "^row", MASKED),
    ("DuckDB", "cr_deprecated_stats_utf8_signed.parquet", "^rows", DEPRECATED),
    ("DuckDB", "spark_legacy_nested.parquet", "'st' is", LEGACY),
]


def find(peer, query, difference):
    """The place in the list of the first entry that explains a difference."""
    for place, (of, file, said, _) in enumerate(KNOWN):
        if of == peer and fnmatch.fnmatch(query["file"], file) and re.search(said, difference, re.DOTALL):
            return place
    return None


if __name__ == "__main__":
    print(json.dumps(KNOWN))
