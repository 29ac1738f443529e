"""What pyarrow reads of a directory of Parquet files: the rows of each key, by a filter on the whole data set.

Values come out as those of compact_rows.py do.

Usage: pyarrow_rows.py DIRECTORY COLUMN < [key, ...], prints the rows of each key.
"""

import json
import sys
from decimal import Decimal

import pyarrow
import pyarrow.dataset


def plain(value):
    if isinstance(value, float):
        return repr(value)
    return format(value, "f") if isinstance(value, Decimal) else value


def main(directory, column):
    dataset = pyarrow.dataset.dataset(directory, format="parquet")
    rows_of_keys = []
    for key in json.load(sys.stdin):
        table = dataset.to_table(filter=pyarrow.dataset.field(column) == key)
        for index, field in enumerate(table.schema):
            if pyarrow.types.is_timestamp(field.type):
                table = table.set_column(index, field.name, table.column(index).cast(pyarrow.int64()))
        rows_of_keys.append([[plain(value) for value in row.values()] for row in table.to_pylist()])
    print(json.dumps(rows_of_keys))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
