"""How key values lie in a wild file: their order, and where the nulls are.

Knows lists of values. It must not know files or how they are written.
"""

import math

ORDERS = ["ascending", "descending", "clustered", "unsorted", "lying"]
NULLS = ["none", "first", "last", "mixed", "all"]


def rank(value):
    """Sorts values of one type; NaN last, texts as their bytes, since that is Parquet's order."""
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value)
    return value.encode() if isinstance(value, str) else value


def lay_out(rng, values, order, nulls, rows):
    """`rows` values of the pool in this order; many of them several times, so that they cross data pages."""
    if nulls == "all" or not values:
        return [None] * rows
    chosen = [rng.choice(values) for _ in range(rows)]
    if len(values) > 3:
        # One value fills several data pages, another is at both ends of the row groups.
        chosen[: rows // 5] = [values[len(values) // 2]] * (rows // 5)
        chosen[-3:] = [values[-1]] * 3
    ordered = sorted(chosen, key=rank, reverse=order == "descending")
    if order == "clustered":
        pieces = [ordered[at : at + 40] for at in range(0, rows, 40)]
        rng.shuffle(pieces)
        ordered = [value for piece in pieces for value in piece]
    if order in ("unsorted", "lying"):
        rng.shuffle(ordered)
    missing = rows // 4
    if nulls == "first":
        ordered = [None] * missing + ordered[: rows - missing]
    if nulls == "last":
        ordered = ordered[: rows - missing] + [None] * missing
    if nulls == "mixed":
        ordered = [None if rng.random() < 0.25 else value for value in ordered]
    return ordered
