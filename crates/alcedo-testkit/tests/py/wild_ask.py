"""What is asked of a wild file, and what must be answered: by the values in memory, without any reader of Parquet.

Knows columns and the form of the corpus's lookups. It must not know how a file is written.
"""

import math
import uuid
from decimal import Decimal

import neutral
import wild_columns

# Rows of one answer with all columns; larger answers are asked for with the key alone.
WHOLE_ROWS = 12


def leaf(columns, name):
    """The values and the type of a column, or of a leaf inside structs."""
    for column in columns:
        if column.name == name:
            return column.values, column.parsed
    column, *path = name.split(".")
    found = next(one for one in columns if one.name == column)
    values, kind = found.values, found.parsed
    for label in path:
        values = [None if value is None else value[label] for value in values]
        kind = dict(kind[1])[label]
    return values, kind


def equal(value, key):
    """Key equality of docs/FORMATS.md: NaN and null equal nothing, a zero its negative."""
    return value is not None and key is not None and value == key


def present(rng, values):
    """Keys that rows have: the first, the last, the most frequent, and any."""
    there = [value for value in values if value is not None and value == value]
    if not there:
        return []
    counts = {}
    for value in there:
        counts[value] = counts.get(value, 0) + 1
    keys = [there[0], there[-1], max(counts, key=counts.get), there[len(there) // 2]]
    keys += [rng.choice(there) for _ in range(7)]
    return list({repr(key): key for key in keys}.values())


def absent(rng, values, kind):
    """Keys near those of the rows, and at and beyond the ends of the type's range."""
    there = {value for value in values if value is not None and value == value}
    near = rng.sample(sorted(there, key=repr), min(4, len(there)))
    candidates = [other for value in near for other in neighbours(value, kind)] + beyond(kind)
    candidates += [wild_columns.one(rng, kind) for _ in range(2)]
    missing = list({repr(key): key for key in candidates if key is not None and key not in there}.values())
    return rng.sample(missing, min(8, len(missing)))


def neighbours(value, kind):
    name = kind[0]
    if name in neutral.COUNTS:
        return [value - 1, value + 1]
    if name in neutral.FLOATS:
        up = value + 0.5 if abs(value) < 1000 else value * 1.5
        return [neutral.rounded(up, name), -value] if math.isfinite(value) else [-value]
    if name == "decimal":
        step = Decimal(1).scaleb(-kind[2])
        # One more digit than the scale has: between two values of the column.
        return [value + step, value - step, value + step / 2]
    if name in ("string", "binary"):
        blank = value[:0]
        zero = "\0" if name == "string" else b"\0"
        return [value + zero, value[:-1], blank, value + value[-1:]]
    if name == "fixed":
        return [value[:-1] + bytes([value[-1] ^ 1]), value[::-1]]
    return [uuid.UUID(int=value.int ^ 1)] if name == "uuid" else [not value] if name == "bool" else []


def beyond(kind):
    name = kind[0]
    if name in neutral.INTEGERS:
        low, high = wild_columns.integer_range(kind)
        return [low - 1, high + 1, low, high, 2**64, -(2**63) - 1, 2**80]
    if name == "date32":
        return [2**31, -(2**31) - 1, 2**31 - 1]
    if name in ("timestamp", "duration"):
        return [2**62, -(2**62)] if name == "duration" else []
    if name == "decimal":
        return [Decimal(10) ** (kind[1] - kind[2]), -(Decimal(10) ** (kind[1] - kind[2])), Decimal(10) ** 60]
    if name in ("string", "binary"):
        return ["\U0010ffff" * 30, "~"] if name == "string" else [b"\xff" * 200, b"\xff" * 21]
    return [math.inf, -math.inf] if name in neutral.FLOATS else []


def spelled(rng, key, kind):
    """The key in the spelling of its own type, or of another that says the same."""
    if kind[0] == "timestamp" and rng.random() < 0.4:
        finer = rng.choice(["s", "ms", "us", "ns"])
        count = key * neutral.PER_SECOND[finer]
        if count % neutral.PER_SECOND[kind[1]] == 0 and abs(count // neutral.PER_SECOND[kind[1]]) < 2**62:
            other = f"timestamp[{finer},{rng.choice(['UTC', 'Europe/Paris'])}]" if kind[2] else f"timestamp[{finer}]"
            return {"type": other, "value": str(count // neutral.PER_SECOND[kind[1]])}
    if kind[0] in neutral.INTEGERS and rng.random() < 0.3:
        other = rng.choice(["int64", "uint64", "int32", None])
        return {"type": other, "value": str(key)}
    if kind[0] == "decimal":
        exact = str(key) if "E" not in str(key) else format(key, "f")
        return {"type": rng.choice([neutral.text(kind), None]), "value": exact}
    if kind[0] in ("binary", "fixed") and rng.random() < 0.3:
        return {"type": "binary" if kind[0] == "fixed" else f"fixed[{len(key)}]", "value": neutral.spell(key, ("binary",))}
    return {"type": neutral.text(kind), "value": neutral.spell(key, kind)}


class Asker:
    """The lookups of one file."""

    def __init__(self, file, columns, status="ok"):
        self.file, self.columns, self.status = file, columns, status
        self.rng = wild_columns.seeded(file, "ask")
        self.queries = []

    def all_of(self, name):
        """Everything that can be asked of a key column."""
        values, kind = leaf(self.columns, name)
        if kind[0] != "null":
            for key in present(self.rng, values):
                self.ask(name, key, "hit")
            for key in absent(self.rng, values, kind):
                self.ask(name, key, "miss")
            if kind[0] in neutral.FLOATS:
                for key in (0.0, -0.0):
                    self.ask(name, key, "zero")
                self.ask(name, math.nan, "nan")
        self.ask(name, None, "null")

    def ask(self, name, key, tag, project="rotate", extra=None):
        values, kind = leaf(self.columns, name)
        wanted = [number for number, value in enumerate(values) if (value is None if key is None else equal(value, key))]
        columns = self.projection(name, len(wanted)) if project == "rotate" else project
        asked = {"type": neutral.text(kind), "value": None} if key is None else spelled(self.rng, key, kind)
        self.add({"column": name} | asked, "is_null" if key is None else "eq", columns, wanted, tag, extra or {})

    def projection(self, name, rows):
        if rows > WHOLE_ROWS * 4:
            return [name]
        names = [column.name for column in self.columns]
        few = self.rng.sample(names, min(len(names), self.rng.randint(1, 4)))
        kinds = [[name], few] if rows > WHOLE_ROWS or len(names) > 60 else [None, None, [name], few, [*few, name]]
        chosen = self.rng.choice(kinds)
        return chosen if chosen is None or len(set(chosen)) == len(chosen) else few

    def add(self, key, op, project, wanted, tag, extra):
        names = [column.name for column in self.columns] if project is None else project
        leaves = [leaf(self.columns, name) for name in names] if project else [(c.values, c.parsed) for c in self.columns]
        rows = [[neutral.spell(values[number], kind) for values, kind in leaves] for number in wanted]
        columns = [{"name": name, "type": neutral.text(kind)} for name, (_, kind) in zip(names, leaves)]
        expect = {"status": self.status, "columns": columns, "row_numbers": wanted, "rows": rows} | extra
        qid = f"{self.file.removesuffix('.parquet')}#{len(self.queries):03}"
        query = {"qid": qid, "file": self.file, "op": op, "key": key, "project": project, "expect": expect, "tags": [tag]}
        self.queries.append(query)

    def error(self, key, op, project, error):
        """A lookup that must be refused."""
        qid = f"{self.file.removesuffix('.parquet')}#{len(self.queries):03}"
        expect = {"status": "error", "class": error}
        query = {"qid": qid, "file": self.file, "op": op, "key": key, "project": project, "expect": expect, "tags": []}
        self.queries.append(query)
