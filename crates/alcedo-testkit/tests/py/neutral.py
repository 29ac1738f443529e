"""Values in the neutral spelling of docs/FORMATS.md, and when two of them are the same.

Knows the grammar of types and JSON. It must not know files, lookups or any reader of Parquet.

A type is parsed into a tuple: ("int64",), ("decimal", 9, 2), ("timestamp", "us", True), ("list", type),
("struct", ((name, type), ...)), ("map", key, value).

A value in memory, from which the spelling is made: integers and counts are int, floating-point numbers float, decimals
Decimal, texts str, bytes bytes, a list is a list, a struct a dict, a map a list of pairs, null is None.
"""

import base64
import decimal
import math
import re
import struct
from decimal import Decimal

# Decimals have more digits than Python keeps by default.
decimal.getcontext().prec = 100
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
FLOATS = {"float16", "float32", "float64"}
COUNTS = INTEGERS | {"date32", "time", "timestamp", "duration"}
FIELD = re.compile(r'([A-Za-z0-9_]+|"(?:[^"\\]|\\.)*"):')
NAME = re.compile(r"([a-z0-9]+)(?:[\[(]([^\])]*)[\])])?")


def parse(text):
    parsed, end = parse_at(text, 0)
    if end != len(text):
        raise ValueError(f"{text}: what is after {end} is not a type")
    return parsed


def parse_at(text, at):
    name = NAME.match(text, at)
    kind, arguments, at = name[1], name[2], name.end()
    if kind == "struct":
        fields, at = [], at + 1
        while text[at] != ">":
            field = FIELD.match(text, at)
            label = field[1][1:-1].replace('\\"', '"').replace("\\\\", "\\") if field[1][0] == '"' else field[1]
            inner, at = parse_at(text, field.end())
            fields.append((label, inner))
            at += text[at] == ","
        return ("struct", tuple(fields)), at + 1
    if kind in ("list", "map"):
        inner, at = parse_at(text, at + 1)
        if kind == "list":
            return ("list", inner), at + 1
        value, at = parse_at(text, at + 1)
        return ("map", inner, value), at + 1
    if kind == "decimal":
        precision, scale = arguments.split(",")
        return ("decimal", int(precision), int(scale)), at
    if kind == "timestamp":
        unit, _, zone = arguments.partition(",")
        return ("timestamp", unit, bool(zone)), at
    return ((kind,) if arguments is None else (kind, arguments)), at


def text(kind):
    """A type in the grammar."""
    name = kind[0]
    if name == "list":
        return f"list<{text(kind[1])}>"
    if name == "map":
        return f"map<{text(kind[1])},{text(kind[2])}>"
    if name == "struct":
        fields = [f"{quoted(label)}:{text(inner)}" for label, inner in kind[1]]
        return f"struct<{','.join(fields)}>"
    if name == "timestamp":
        return f"timestamp[{kind[1]}{',UTC' if kind[2] else ''}]"
    if name == "decimal":
        return f"decimal({kind[1]},{kind[2]})"
    return name if len(kind) == 1 else f"{name}[{kind[1]}]"


def quoted(label):
    plain = label and all(letter.isascii() and (letter.isalnum() or letter == "_") for letter in label)
    return label if plain else '"' + label.replace("\\", "\\\\").replace('"', '\\"') + '"'


def spell(value, kind):
    """The neutral spelling of a value in memory."""
    name = kind[0]
    if value is None or name == "bool":
        return value
    if name in COUNTS:
        return str(value)
    if name in FLOATS:
        return spell_float(value, name)
    if name == "decimal":
        return format(value.quantize(Decimal(1).scaleb(-kind[2])), "f") if value == value else "NaN"
    if name in ("string", "uuid"):
        return str(value)
    if name in ("binary", "fixed", "interval"):
        return base64.b64encode(value).decode()
    if name == "list":
        return [spell(item, kind[1]) for item in value]
    if name == "struct":
        return {label: spell(value[label], inner) for label, inner in kind[1]}
    if name == "map":
        return [[spell(key, kind[1]), spell(item, kind[2])] for key, item in value]
    raise ValueError(f"no spelling of {kind}")


def spell_float(value, width):
    """The shortest digits that read back as the same number of this width."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    texts = (repr(float(f"{value:.{digits}g}")) for digits in range(1, 17))
    return next((text for text in texts if rounded(float(text), width) == value), repr(value))


def rounded(value, width):
    """The nearest number of this width, or an infinity beyond its range."""
    code = {"float16": "<e", "float32": "<f", "float64": "<d"}[width]
    try:
        return struct.unpack(code, struct.pack(code, value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def same(got, got_kind, want, want_kind):
    """Whether a value that was read is the one that is wanted, by value: see the rules in the corpus's README."""
    if got is None or want is None:
        return got is want
    name, wanted = got_kind[0], want_kind[0]
    if name in INTEGERS and wanted in INTEGERS:
        return int(got) == int(want)
    if name in FLOATS and wanted in FLOATS:
        narrower = min(name, wanted, key=["float16", "float32", "float64"].index)
        got, want = rounded(float(got), narrower), rounded(float(want), narrower)
        return got == want or math.isnan(got) and math.isnan(want)
    if name == "int64" and wanted == "duration":
        # Parquet has no durations: that a column is one stands in its writer's advice alone.
        return got == want
    if {name, wanted} <= {"interval", "fixed"}:
        return got == want
    if name != wanted:
        return False
    if name == "timestamp":
        return got_kind[2] == want_kind[2] and nanos(got, got_kind) == nanos(want, want_kind)
    if name in ("time", "duration"):
        return nanos(got, got_kind) == nanos(want, want_kind)
    if name == "decimal":
        return Decimal(got) == Decimal(want)
    if name == "list":
        return len(got) == len(want) and all(same(g, got_kind[1], w, want_kind[1]) for g, w in zip(got, want))
    if name == "struct":
        labels = [label for label, _ in want_kind[1]]
        if [label for label, _ in got_kind[1]] != labels or list(got) != labels:
            return False
        fields = zip(got_kind[1], want_kind[1])
        return all(same(got[label], inner, want[label], wants) for (label, inner), (_, wants) in fields)
    if name == "map":
        pairs = [same(g[0], got_kind[1], w[0], want_kind[1]) and same(g[1], got_kind[2], w[1], want_kind[2])
                 for g, w in zip(got, want)]
        return len(got) == len(want) and all(pairs)
    return got == want


def nanos(count, kind):
    return int(count) * 10**9 // PER_SECOND[kind[1]]


def alike(got, got_kind, want, want_kind):
    """The same to the eye of a reader that has fewer types: bytes without a length, UUIDs as bytes or texts."""
    if same(got, loosened(got_kind), want, loosened(want_kind)):
        return True
    if want_kind[0] != "uuid" or None in (got, want):
        return False
    return got == want or got == base64.b64encode(bytes.fromhex(want.replace("-", ""))).decode()


def loosened(kind):
    if kind[0] == "struct":
        return ("struct", tuple((label, loosened(inner)) for label, inner in kind[1]))
    if kind[0] in ("list", "map"):
        return (kind[0], *map(loosened, kind[1:]))
    return ("binary",) if kind[0] in ("fixed", "interval") else kind


def difference(answer, expect, same=same):
    """What is wrong with an answer of rows, in words; None where nothing is.

    `answer` has `row_numbers`, `types` and `rows`, and `names` where the form tells them.
    """
    if answer["row_numbers"] != expect["row_numbers"]:
        return f"rows {brief(answer['row_numbers'])}, wanted {brief(expect['row_numbers'])}"
    if not expect["row_numbers"]:
        return None
    columns = expect["columns"]
    if "names" in answer and answer["names"] != [column["name"] for column in columns]:
        return f"columns {brief(answer['names'])}, wanted {brief([column['name'] for column in columns])}"
    if len(answer["types"]) != len(columns) or len(answer["rows"]) != len(expect["rows"]):
        return f"{len(answer['rows'])} rows of {len(answer['types'])} columns, wanted {len(columns)} columns"
    kinds = [(parse(got), parse(column["type"])) for got, column in zip(answer["types"], columns)]
    for number, (row, wanted) in enumerate(zip(answer["rows"], expect["rows"])):
        if len(row) != len(kinds):
            return f"a row of {len(row)} values"
        for place, (got, want) in enumerate(zip(row, wanted)):
            if not same(got, kinds[place][0], want, kinds[place][1]):
                told = f"{brief(got)} ({answer['types'][place]}), wanted {brief(want)} ({columns[place]['type']})"
                return f"row {expect['row_numbers'][number]}, {columns[place]['name']!r} is {told}"
    return None


def brief(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def verdict(answer, expect):
    """("right" | "error" | "wrong", why): `answer` is rows, or {"error": {"class", "message"}}."""
    status, error = expect["status"], answer.get("error")
    if error:
        if status == "error" and error["class"] != expect["class"]:
            return "wrong", f"{error['class']} ({error['message']}), wanted {expect['class']}"
        tolerated = status in ("any", "error", "rows_or_error") or expect.get("alt_error")
        return ("error", None) if tolerated else ("wrong", f"{error['class']}: {error['message']}")
    if status == "error":
        return "wrong", f"{len(answer['rows'])} rows, wanted the error {expect['class']}"
    if status == "any":
        return "right", None
    accepted = [expect] + [expect | alternative for alternative in expect.get("alternatives") or []]
    problems = [difference(answer, one) for one in accepted]
    return ("right", None) if None in problems else ("wrong", problems[0])


class Table:
    """Lookups by group of files, as the corpora's summary has them."""

    def __init__(self, manifest):
        self.groups = {entry["file"]: entry["group"] for entry in manifest}
        self.lines, self.wrong = {}, []

    def add(self, query, answer):
        # No key at all is a lookup that may be refused.
        refusable = query["op"] == "eq" and query["key"]["value"] is None
        outcome, why = verdict(answer, query["expect"] | ({"alt_error": True} if refusable else {}))
        group = self.groups[query["file"]]
        line = self.lines.setdefault(group, {"files": set(), "lookups": 0, "right": 0, "wrong": 0, "error": 0})
        line["files"].add(query["file"])
        line["lookups"] += 1
        line[outcome] += 1
        if why:
            asked = {name: query[name] for name in ("file", "op", "key", "project")}
            self.wrong.append({"qid": query["qid"], "asked": asked, "why": why})

    def summary(self):
        """(group, files, lookups, right, wrong, errors as expected) a line, the sum last."""
        lines = [[group, len(line["files"]), *[line[name] for name in ("lookups", "right", "wrong", "error")]]
                 for group, line in sorted(self.lines.items())]
        return lines + [["all", *[sum(line[place] for line in lines) for place in range(1, 6)]]]
