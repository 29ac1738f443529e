"""Wild files by pyarrow that are odd in shape: empty, wide, long, many row groups, large values, odd names, nested keys.

Knows pyarrow's writer. Each maker writes one file and returns what is asked of it.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from wild_ask import Asker
from wild_columns import Column, payload, pool, seeded, table

NAMES = ["plain", "with space", "dotted.name", "a.b.c", 'quo"te', "back`tick", "new\nline", "ümläut漢😀", "x" * 300, "",
         " ", "a,b", "semi;colon", "sla/sh", "*", "key", "KEY", "Key", "null", "true", "123", "\\", "'", "\t", "{}", "é", "e\u0301"]


def write(path, columns, group_rows=None, **options):
    rows = len(columns[0].values)
    pq.write_table(table(columns), path, row_group_size=group_rows or max(rows, 1), **options)


def basics(rng, keys, arrow=None, kind="int64"):
    """A key column and three others."""
    rows = len(keys)
    columns = [Column("k", kind, keys, arrow), Column("n", "int32", list(range(rows)), None, False)]
    return columns + [payload(rng, "s", "string", rows), payload(rng, "l", "list<int32>", rows)]


def empty(path, file, rng):
    columns = basics(rng, [])
    write(path, columns)
    asker = Asker(file, columns)
    for key in (0, 1, -1):
        asker.ask("k", key, "miss", None)
    asker.ask("k", None, "null", None)
    return asker


def no_row_groups(path, file, rng):
    columns = basics(rng, [])
    with pq.ParquetWriter(path, table(columns).schema):
        pass
    asker = Asker(file, columns)
    asker.ask("k", 7, "miss", None)
    asker.ask("k", None, "null", None)
    return asker


def empty_groups(path, file, rng):
    """Every second row group is empty, and so are the first and the last."""
    columns = basics(rng, [number // 3 for number in range(90)])
    with pq.ParquetWriter(path, table(columns).schema, write_page_index=True) as writer:
        for start in range(0, 90, 15):
            writer.write_table(table(columns, 0, 0))
            writer.write_table(table(columns, start, start + 15))
        writer.write_table(table(columns, 0, 0))
    return asked(Asker(file, columns), "k", "n")


def one_row(path, file, rng):
    columns = basics(rng, [2**53 + 1])
    write(path, columns)
    return asked(Asker(file, columns), "k", "n", "s")


def one_null(path, file, rng):
    columns = basics(rng, [None])
    write(path, columns, write_page_index=True)
    return asked(Asker(file, columns), "k")


def wide(path, file, rng):
    """Two thousand columns, of which the last is a key as well."""
    rows = 40
    columns = [Column("k", "int64", list(range(rows)))]
    kinds = ["int32", "string", "float64", "bool", "list<int8>", "struct<a:int8,b:string>"]
    columns += [payload(rng, f"c{place:04}", kinds[place % len(kinds)], rows) for place in range(1998)]
    columns.append(Column("z", "string", [f"z{number % 7}" for number in range(rows)]))
    write(path, columns, 20, write_page_index=True)
    asker = asked(Asker(file, columns), "k", "z")
    asker.ask("k", 21, "all columns", None)
    asker.ask("k", 3, "last and first", ["z", "c1997", "k", "c0000", "c0004", "c0005"])
    return asker


def many_groups(path, file, rng):
    """Three thousand row groups of two rows."""
    keys = [number // 5 for number in range(6000)]
    columns = [Column("k", "int64", keys), Column("s", "string", [f"s-{number % 1999}" for number in range(6000)])]
    write(path, columns, 2, compression="none")
    return asked(Asker(file, columns), "k", "s")


def one_huge_group(path, file, rng):
    """Two million rows in one row group, with few data pages because the writer was told so."""
    rows = 2_000_000
    array = pa.array(range(rows))
    columns = [Column("k", "int64", range(rows)), Column("m", "int32", [number % 200_003 for number in range(rows)])]
    arrow = pa.table({"k": array, "m": pa.array(columns[1].values, pa.int32())})
    pq.write_table(arrow, path, row_group_size=rows, max_rows_per_page=rows, data_page_size=1 << 26, compression="zstd")
    asker = Asker(file, columns)
    for key in (0, 1, 999_999, 1_234_567, rows - 1, rows, -1):
        asker.ask("k", key, "huge", None)
    for key in (0, 5, 200_002, 200_003):
        asker.ask("m", key, "huge, unsorted", None)
    asker.ask("k", None, "null", None)
    return asker


def megabytes(path, file, rng):
    """Values of megabytes, also in the key column."""
    keys = ["k" * (1 << 20) + str(number) for number in range(3)] + ["short", None, "k" * (1 << 20)]
    columns = [Column("k", "string", keys), Column("n", "int32", list(range(6)))]
    columns.append(Column("b", "binary", [rng.randbytes(3 << 20), b"", None, b"\0" * (4 << 20), b"x", b"y"]))
    write(path, columns, write_page_index=True, compression="zstd")
    asker = Asker(file, columns)
    for key in ("short", "k" * (1 << 20), "k" * (1 << 20) + "1", "k" * (1 << 20) + "9", "k"):
        # A request has room for keys below 1 MiB.
        asker.ask("k", key, "megabytes", ["n", "k"], {"alt_error": len(key) >= 1 << 20})
    for key in (0, 3, 2):
        asker.ask("n", key, "megabytes", ["b"])
    return asker


def large_answer(path, file, rng):
    """A key with 50,000 rows in all row groups."""
    rows = 60_000
    columns = [Column("k", "string", ["rare" if number % 6 == 5 else "often" for number in range(rows)])]
    columns.append(Column("n", "int64", list(range(rows))))
    write(path, columns, 7_000, max_rows_per_page=1_000)
    asker = Asker(file, columns)
    asker.ask("k", "often", "50,000 rows", ["n"])
    asker.ask("k", "rare", "10,000 rows", ["n", "k"])
    return asker


def odd_names(path, file, rng):
    rows = 30
    columns = [Column(name, "int64", [number * 31 % 37 + place for number in range(rows)])
               for place, name in enumerate(NAMES)]
    write(path, columns, 10, write_page_index=True)
    asker = Asker(file, columns)
    for column in columns:
        if column.name:
            asker.ask(column.name, column.values[7], "odd name", [column.name, "plain"][: 1 if column.name == "plain" else 2])
            asker.ask(column.name, column.values[8], "odd name", None)
    # Whether a column without a name can be asked for is nobody's promise; it is answered or refused.
    asker.ask("", columns[NAMES.index("")].values[3], "no name", ["plain"], {"alt_error": True})
    for name in ("pl", "PLAIN", "dotted", "dotted.", ".name", "x" * 299):
        asker.error({"column": name, "type": "int64", "value": "1"}, "eq", None, "no_such_column")
        asker.error({"column": "plain", "type": "int64", "value": "1"}, "eq", [name], "no_such_column")
    return asker


def same_names(path, file, rng):
    """Two columns of one name: what is not named twice is served as ever."""
    rows = 60
    columns = [Column("k", "int64", [number // 2 for number in range(rows)])]
    columns += [payload(rng, "d", "string", rows), payload(rng, "d", "int32", rows), payload(rng, "t", "float64", rows)]
    pq.write_table(table(columns), path, row_group_size=25)
    asker = Asker(file, columns)
    for key in (0, 12, 29, 30, -1):
        asker.ask("k", key, "beside a double name", ["t", "k"])
        asker.ask("k", key, "double name", None)
    asker.ask("d", 1, "ambiguous", ["k"], {"status": "any"})
    return asker


def dotted_and_struct(path, file, rng):
    """A column `s.id` beside a struct `s` with a field `id`: the name that the file spells so wins."""
    rows = 50
    columns = [Column("s.id", "int64", [number + 1000 for number in range(rows)])]
    columns.append(Column("s", "struct<id:int64,w:string>", [{"id": number, "w": f"w{number}"} for number in range(rows)]))
    write(path, columns, 20)
    asker = Asker(file, columns)
    for key in (1000, 1049, 1007):
        asker.ask("s.id", key, "dotted", ["s.id", "s"])
    asker.ask("s.w", "w7", "leaf", ["s.w"])
    return asker


def leaf_keys(path, file, rng):
    """Keys that are leaves of optional structs, two levels deep."""
    rows = 400
    ids = pool(rng, "int64", 150)
    kind = "struct<id:int64,in:struct<code:string,at:timestamp[us,UTC]>,l:list<int32>>"
    codes, moments = pool(rng, "string", 80), pool(rng, "timestamp[us,UTC]", 80)
    values = []
    for _ in range(rows):
        within = {"code": pick(rng, codes), "at": pick(rng, moments)} if rng.random() < 0.8 else None
        outer = {"id": pick(rng, ids), "in": within, "l": pick(rng, [[], [1, None], [2, 3]])}
        values.append(outer if rng.random() < 0.85 else None)
    columns = [Column("s", kind, values), Column("n", "int32", list(range(rows)), None, False)]
    write(path, columns, 150, write_page_index=True, data_page_size=200, write_batch_size=10)
    asker = asked(Asker(file, columns), "s.id", "s.in.code", "s.in.at")
    leaves = ["s.in.code", "n", "s.id", "s"]
    for number in range(0, rows, 37):
        asker.ask("n", number, "leaves", leaves)
    return asker


def pick(rng, values):
    return None if rng.random() < 0.15 else rng.choice(values)


def asked(asker, *names):
    for name in names:
        asker.all_of(name)
    return asker


MAKERS = [empty, no_row_groups, empty_groups, one_row, one_null, wide, many_groups, one_huge_group, megabytes, large_answer,
          odd_names, same_names, dotted_and_struct, leaf_keys]
