"""Asks all lookups of a corpus by `alcedo get --requests -` and compares the answers with what must come.

Knows the machine form of docs/FORMATS.md and the form of a corpus. It must not know which corpus it is.

Usage: machine.py ALCEDO ENDPOINT MOUNT CORPUS, prints {"summary", "wrong"}: (group, files, lookups, right, wrong, errors
as expected) of each group, and what was wrong.
"""

import json
import os
import pathlib
import subprocess
import sys

import neutral


def end(result):
    """Prints the result and ends the process at once.

    Threads of gRPC's own may outlive its channels for a moment. An interpreter or a library that is taken down under
    them may crash, which says nothing about what was answered.
    """
    print(json.dumps(result), flush=True)
    os._exit(0)


def corpus(directory):
    directory = pathlib.Path(directory)
    with open(directory / "queries.jsonl") as lines:
        queries = [json.loads(line) for line in lines]
    return json.loads((directory / "manifest.json").read_text()), queries


def request(query, mount):
    path = f"{mount}/{query['file']}"
    return {"path": path, "key": query["key"], "op": query["op"], "select": query["project"]}


def main(alcedo, endpoint, mount, directory):
    manifest, queries = corpus(directory)
    lines = "".join(json.dumps(request(query, mount), ensure_ascii=False) + "\n" for query in queries)
    command = [alcedo, "get", "--requests", "-", "-e", endpoint, "--timeout", "25s"]
    said = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, timeout=590, check=True)
    answers = said.stdout.decode().splitlines()
    assert len(answers) == len(queries), f"{len(answers)} answers to {len(queries)} lookups"
    table = neutral.Table(manifest)
    for query, answer in zip(queries, answers):
        table.add(query, json.loads(answer))
    print(json.dumps({"summary": table.summary(), "wrong": table.wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
