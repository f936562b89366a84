"""Checks of rows that repeat others. Legend: B rows, F columns.

Rows of few different values repeat by chance. A row whose values are so frequent that another one
may have them by chance is not counted; columns are taken for less independent than they look.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eagleray import messages
from eagleray.audit.table import Table
from eagleray.findings import Finding, noted, warned, wrong
from eagleray.learn import columns

MANY, MOST, FEW = 0.01, 0.4, 3
"""Shares of rows that repeat others that are warned of, and that are an error between parts; fewer
rows than so many are noted alone."""
DEPENDENT, SPARE_BITS, RICH_BITS = 0.6, 2.0, 1000.0
"""Share of a row's bits that counts, bits above those of the rows' number from which a repetition
is no chance, and bits of a text or a picture."""
DROP = "data: {duplicates: drop}"


@dataclass(frozen=True)
class Rows:
    """A hash of each row's inputs (B), and whether another row can hardly have them by chance."""

    hash_B: np.ndarray
    telling_B: np.ndarray


def duplicates(table: Table) -> Iterator[Finding]:
    """Rows that are equal to an earlier one, target included."""
    rows = _rows(table)
    whole_B = columns.hashed_rows([table.targets, *table.columns.values()])
    places = np.flatnonzero(~columns.first_of_each(whole_B) & rows.telling_B)
    if not len(places):
        return
    share = len(places) / len(table)
    tell = warned if share >= MANY else noted
    yield tell(
        f"{len(places):,} of {len(table):,} rows ({messages.percent(share)}) repeat an earlier row",
        "" if table.streamed else DROP,
        evidence=_pairs(table, whole_B, np.arange(len(table)), places),
        numbers={"rows": len(places), "share": share},
        rows=table.numbers(places[:100]),
    )


def near_duplicates(table: Table) -> Iterator[Finding]:
    """Rows that are equal to an earlier one but for small differences."""
    exact = _rows(table)
    near = _rows(table, blurred=True)
    again_B = ~columns.first_of_each(near.hash_B) & columns.first_of_each(exact.hash_B)
    places = np.flatnonzero(again_B & near.telling_B)
    if not len(places):
        return
    share = len(places) / len(table)
    tell = warned if share >= MANY else noted
    yield tell(
        f"{len(places):,} of {len(table):,} rows ({messages.percent(share)}) nearly repeat an "
        "earlier row: numbers to three digits, names and texts but for case, blanks and signs",
        evidence=_pairs(table, near.hash_B, np.arange(len(table)), places),
        numbers={"rows": len(places), "share": share},
        rows=table.numbers(places[:100]),
    )


def across_parts(table: Table) -> Iterator[Finding]:
    """Rows of validation and test whose inputs are those of a training row."""
    import pandas as pd

    rows, train = _rows(table), table.parts["training"]
    shares: dict[str, float] = {}
    numbers: dict[str, float] = {}
    found = np.empty(0, np.int64)
    for part in ("validation", "test"):
        places = table.parts[part]
        seen_B = pd.Series(rows.hash_B[places]).isin(rows.hash_B[train]).to_numpy()
        shared = places[seen_B & rows.telling_B[places]]
        shares[part] = len(shared) / max(1, len(places))
        numbers |= {f"{part} rows": len(shared), f"{part} share": shares[part]}
        found = np.concatenate([shared, found])
    if not len(found):
        return
    worst = max(shares.values())
    many = worst >= MANY and len(found) >= FEW
    tell = wrong if many and worst >= MOST else warned if many else noted
    yield tell(
        f"{messages.percent(shares['test'])} of the rows of the test part and "
        f"{messages.percent(shares['validation'])} of the validation part have the inputs of a "
        "training row, so that a model that remembers rows looks better than it is",
        "" if table.streamed else DROP,
        evidence=_pairs(table, rows.hash_B, train, found),
        numbers=numbers,
        rows=table.numbers(found[:100]),
    )


def _rows(table: Table, *, blurred: bool = False) -> Rows:
    hashes, bits_B = [], np.zeros(len(table))
    for column, array in table:
        column_B = columns.hashed(column.kind.blurred(array) if blurred else array)
        present_B = ~columns.missing_rows(array)
        bits_B += present_B * (RICH_BITS if column.kind.is_rich else _bits(column_B))
        hashes.append(column_B)
    telling_B = bits_B * DEPENDENT >= np.log2(max(2, len(table))) + SPARE_BITS
    return Rows(columns.hashed_rows(hashes), telling_B)


def _bits(hash_B: np.ndarray) -> np.ndarray:
    """How little each value is to be expected (B), in bits."""
    import pandas as pd

    code_B, _ = pd.factorize(hash_B)
    bits_B: np.ndarray = -np.log2(np.bincount(code_B) / len(hash_B))[code_B]
    return bits_B


def _pairs(
    table: Table, hash_B: np.ndarray, among: np.ndarray, places: np.ndarray
) -> tuple[str, ...]:
    """Sample rows, each with the number of the row that it repeats."""
    lines = []
    for place, shown in zip(places.tolist(), table.shown(places), strict=False):
        first = among[np.argmax(hash_B[among] == hash_B[place])]
        lines.append(shown.replace(": ", f" is like row {table.rows[first]:,}: ", 1))
    return tuple(lines)
