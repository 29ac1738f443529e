"""Writes Parquet files of all kinds with several writers, in the form of the corpus: files, manifest and lookups.

Usage: wild.py DIRECTORY [SEED [KEY_FILES]], prints {"files", "lookups"}. Another SEED is another set of files; KEY_FILES is
how many there are by key type, so that more than a test's worth can be asked for.
"""

import json
import pathlib
import sys

import wild_keys
import wild_shapes
import wild_special
import wild_writers
from wild_ask import Asker
from wild_columns import seeded

KEY_FILES = len(wild_keys.KEYS) * 2


class Corpus:
    """What has been written so far."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.files = self.directory / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.manifest, self.queries = [], []

    def path(self, name):
        return str(self.files / f"{name}.parquet")

    def add(self, name, group, features, asker):
        rows = len(asker.columns[0].values) if asker.columns else 0
        schema = {column.name: column.kind for column in asker.columns[:50]}
        entry = {"file": f"{name}.parquet", "group": group, "features": features, "rows": rows, "schema": schema}
        self.manifest.append(entry)
        self.queries += asker.queries

    def close(self):
        (self.directory / "manifest.json").write_text(json.dumps(self.manifest, indent=1))
        lines = [json.dumps(query, ensure_ascii=False) + "\n" for query in self.queries]
        (self.directory / "queries.jsonl").write_text("".join(lines))


def write_keys(corpus, seed, count):
    for number in range(seed * KEY_FILES, seed * KEY_FILES + count):
        name, columns, options, features, group_rows = wild_keys.make(number)
        wild_keys.write(corpus.path(name), columns, options, group_rows)
        asker = Asker(f"{name}.parquet", columns)
        asker.all_of("k")
        corpus.add(name, "keys", features, asker)


def main(directory, seed=0, count=KEY_FILES):
    corpus, seed = Corpus(directory), int(seed)
    write_keys(corpus, seed, int(count))
    makers = [("shape", make.__name__, make) for make in wild_shapes.MAKERS] + wild_special.MAKERS
    makers += [("writers", name, make) for name, make in wild_writers.MAKERS]
    for group, name, make in makers:
        asker = make(corpus.path(name), f"{name}.parquet", seeded(name, seed))
        corpus.add(name, group, [], asker)
    corpus.close()
    print(json.dumps({"files": len(corpus.manifest), "lookups": len(corpus.queries)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
