"""Writes a Parquet file of nested, wide and null values with pyarrow, and prints what must be read from it.

Beside what the sample lake has: decimals on both sides of 16 bytes, more nulls than a byte has bits, lists of structs,
maps of lists, a field name that needs quotes. Values are printed as compact_rows.py decodes them.

Usage: every_type.py FILE < null, prints {column: its values}.
"""

import json
import sys
from decimal import Decimal

import pyarrow
import pyarrow.parquet

PLACE = pyarrow.struct([("lat/lon", pyarrow.list_(pyarrow.float32())), ("code", pyarrow.uint16())])
WIDE = "1234567890123456789012345678901234.5678"
WIDER = "-12345678901234567890123456789012345.6789"
INSTANTS = [-1, None, 1_700_000_000_123_456_789]
LONG = [1, None, 3, 4, 5, 6, 7, 8, None, 10, None]

# Name, type, values for pyarrow, and the same values as they must be read.
COLUMNS = [
    ("key", pyarrow.int64(), [1, 2, 3], [1, 2, 3]),
    ("decimal38", pyarrow.decimal128(38, 4), [Decimal(WIDE), None, Decimal("-0.0001")], [WIDE, None, "-0.0001"]),
    ("decimal39", pyarrow.decimal256(39, 4), [Decimal(WIDER), Decimal(0), None], [WIDER, "0.0000", None]),
    ("long", pyarrow.list_(pyarrow.int16()), [LONG, [], None], [LONG, [], None]),
    (
        "places",
        pyarrow.list_(PLACE),
        [[{"lat/lon": [1.5, None], "code": 65535}, None], [{"lat/lon": None, "code": None}], []],
        [[[["1.5", None], 65535], None], [[None, None]], []],
    ),
    (
        "lists",
        pyarrow.map_(pyarrow.string(), pyarrow.list_(pyarrow.bool_())),
        [[("a", [True, None]), ("b", None)], None, []],
        [[["a", [True, None]], ["b", None]], None, []],
    ),
    ("bytes", pyarrow.binary(), [b"\x00\xff", b"", None], ["00ff", "", None]),
    ("fixed", pyarrow.binary(3), [b"abc", None, b"\x00\x01\x02"], ["616263", None, "000102"]),
    ("unsigned", pyarrow.uint64(), [2**64 - 1, 0, None], [2**64 - 1, 0, None]),
    ("single", pyarrow.float32(), [-0.5, None, 2.0**100], ["-0.5", None, repr(2.0**100)]),
    ("day", pyarrow.date32(), [-1, None, 20_000], [-1, None, 20_000]),
    ("clock", pyarrow.time64("us"), [86_399_999_999, 0, None], [86_399_999_999, 0, None]),
    ("instant", pyarrow.timestamp("ns", "UTC"), INSTANTS, INSTANTS),
    ("always_null", pyarrow.null(), [None, None, None], [None, None, None]),
]


def main(path):
    arrays = {name: pyarrow.array(values, kind) for name, kind, values, _ in COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)
    print(json.dumps({name: wanted for name, _, _, wanted in COLUMNS}))


if __name__ == "__main__":
    main(sys.argv[1])
