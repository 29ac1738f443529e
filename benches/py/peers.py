"""Asks other programs for single rows of a generated Parquet file and compares each with the truth.

usage: peers.py FILE ROWS STORES

FILE has ROWS rows as benches/src/table.rs makes them. Peers of the kind `file` read FILE itself, prepared and cached as
well as they allow; peers of the kind `store` hold a copy of the rows below the directory STORES, made once. Says `ready`,
then for each line `ROUND SECONDS` on standard input one line of JSON: what each peer took, asked for so long.
"""

import json
import os
import shutil
import sqlite3
import struct
import sys
import time

import datafusion
import duckdb
import lance
import polars
import pyarrow.dataset
import pyarrow.parquet
import rocksdict

MASK = (1 << 64) - 1
WORDS = (
    "amber birch copper delta ember fjord granite harbor indigo juniper kestrel lantern meadow nectar orchid pebble"
).split()
# A slow peer answers at least so many questions in a round, however long that takes.
FEWEST = 5
# Rows that are copied at once.
BATCH = 65_536
# Questions before the first round, so that every cache holds what it wants to hold.
WARM = 4


def mixed(value):
    """SplitMix64, as in table.rs."""
    bits = (value + 0x9E37_79B9_7F4A_7C15) & MASK
    bits = ((bits ^ bits >> 30) * 0xBF58_476D_1CE4_E5B9) & MASK
    bits = ((bits ^ bits >> 27) * 0x94D0_49BB_1331_11EB) & MASK
    return bits ^ bits >> 31


def truth(row):
    """Note and score of a row."""
    bits = mixed(row ^ 1 << 62)
    note = " ".join(WORDS[bits >> 4 * place & 15] for place in range(8))
    return note, (mixed(row ^ 1 << 61) >> 11) / (1 << 53) * 1000.0


def only(table):
    """The values of a pyarrow table's only row."""
    assert table.num_rows == 1, f"{table.num_rows} rows"
    return table.column("note")[0].as_py(), table.column("score")[0].as_py()


def duckdb_file(path, _):
    connection = duckdb.connect()
    connection.execute("SET enable_object_cache = true")
    connection.execute(f"PREPARE one AS SELECT note, score FROM read_parquet('{path}') WHERE id = ?")
    return lambda key: connection.execute(f"EXECUTE one({key})").fetchone()


def datafusion_file(path, _):
    config = datafusion.SessionConfig().set("datafusion.execution.parquet.pushdown_filters", "true")
    config = config.set("datafusion.execution.parquet.reorder_filters", "true")
    context = datafusion.SessionContext(config)
    context.register_parquet("t", path)
    context.sql("PREPARE one(BIGINT) AS SELECT note, score FROM t WHERE id = $1").collect()
    return lambda key: only(context.sql(f"EXECUTE one({key})").to_arrow_table())


def pyarrow_file(path, _):
    fragment = next(pyarrow.dataset.dataset(path, format="parquet").get_fragments())
    fragment.ensure_complete_metadata()
    field = pyarrow.dataset.field("id")
    return lambda key: only(fragment.to_table(columns=["note", "score"], filter=field == key))


def polars_file(path, _):
    frame = polars.scan_parquet(path)
    return lambda key: frame.filter(polars.col("id") == key).select("note", "score").collect().row(0)


def batches(path):
    """The rows that a store copies, some at once."""
    return pyarrow.parquet.ParquetFile(path).iter_batches(BATCH, columns=["id", "note", "score"])


def lance_store(path, home):
    place = os.path.join(home, "rows.lance")
    if not os.path.exists(place):
        schema = pyarrow.parquet.read_schema(path)
        schema = pyarrow.schema([schema.field(name) for name in ("id", "note", "score")])
        reader = pyarrow.RecordBatchReader.from_batches(schema, batches(path))
        lance.write_dataset(reader, place).create_scalar_index("id", "BTREE")
    dataset = lance.dataset(place)
    return lambda key: only(dataset.to_table(columns=["note", "score"], filter=f"id = {key}"))


def sqlite_store(path, home):
    connection = sqlite3.connect(os.path.join(home, "rows.sqlite"))
    connection.execute("PRAGMA mmap_size = 1073741824")
    connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, note TEXT, score REAL)")
    if connection.execute("SELECT count(*) FROM t").fetchone() == (0,):
        for batch in batches(path):
            columns = batch.to_pydict()
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", zip(*columns.values()))
        connection.commit()
    return lambda key: connection.execute("SELECT note, score FROM t WHERE id = ?", (key,)).fetchone()


def duckdb_store(path, home):
    connection = duckdb.connect(os.path.join(home, "rows.duckdb"))
    connection.execute("CREATE TABLE IF NOT EXISTS t (id BIGINT PRIMARY KEY, note VARCHAR, score DOUBLE)")
    if connection.execute("SELECT count(*) FROM t").fetchone() == (0,):
        connection.execute(f"INSERT INTO t SELECT id, note, score FROM read_parquet('{path}')")
        connection.execute("CHECKPOINT")
    connection.execute("PREPARE one AS SELECT note, score FROM t WHERE id = ?")
    return lambda key: connection.execute(f"EXECUTE one({key})").fetchone()


def rocksdb_store(path, home):
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(256 << 20))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    store = rocksdict.Rdict(os.path.join(home, "rows.rocksdb"), options)
    if store.get(b"whole") is None:
        for batch in batches(path):
            write = rocksdict.WriteBatch(raw_mode=True)
            for key, note, score in zip(*batch.to_pydict().values()):
                write.put(struct.pack(">q", key), struct.pack("<d", score) + note.encode())
            store.write(write)
        store.flush()
        store.compact_range(None, None)
        store.put(b"whole", b"")

    def ask(key):
        value = store.get(struct.pack(">q", key))
        return value[8:].decode(), struct.unpack_from("<d", value)[0]

    return ask


PEERS = [
    ("file", "DuckDB on the file", duckdb_file),
    ("file", "DataFusion on the file", datafusion_file),
    ("file", "pyarrow on the file", pyarrow_file),
    ("file", "polars on the file", polars_file),
    ("store", "Lance with a BTREE index", lance_store),
    ("store", "SQLite by primary key", sqlite_store),
    ("store", "DuckDB's own table by primary key", duckdb_store),
    ("store", "RocksDB by key", rocksdb_store),
]


def ask_for(ask, rows, questions, seconds):
    """Asks for so long; the times in microseconds, each answer compared."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        row = mixed(next(questions)) % rows
        began = time.perf_counter_ns()
        found = ask(row * 3 + 1)
        times.append((time.perf_counter_ns() - began) / 1000)
        assert tuple(found) == truth(row), f"row {row}: {found}, the truth is {truth(row)}"
    return sorted(times)


def counted():
    """Numbers that no earlier question had."""
    number = 1 << 56
    while True:
        number += 1
        yield number


def main():
    path, rows, home = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    # Copies of another table, or of an interrupted run, are made again.
    stamp = os.path.join(home, f"of-{os.path.basename(path)}")
    if not os.path.exists(stamp):
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(home)
    questions = counted()
    peers = [(kind, name, make(path, home)) for kind, name, make in PEERS]
    with open(stamp, "w", encoding="utf-8"):
        pass
    for _, _, ask in peers:
        for _ in range(WARM):
            ask_for(ask, rows, questions, 0)
    print("ready", flush=True)
    for line in sys.stdin:
        number, seconds = line.split()
        said = []
        turn = int(number) % len(peers)
        for kind, name, ask in peers[turn:] + peers[:turn]:
            times = ask_for(ask, rows, questions, float(seconds))
            middle, late = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
            said.append({"kind": kind, "name": name, "p50_us": middle, "p99_us": late, "count": len(times)})
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
