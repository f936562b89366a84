"""Checks of rows that repeat others, which `eagleray.learn.repeats` tells apart. Legend: B rows."""

from collections.abc import Iterator

import numpy as np

from eagleray import messages
from eagleray.audit.table import Table
from eagleray.findings import Finding, noted, warned, wrong
from eagleray.learn import columns, repeats

MANY, MOST, FEW = 0.01, 0.4, 3
"""Shares of rows that repeat others that are warned of, and that are an error between parts; fewer
rows than so many are noted alone."""


def duplicates(table: Table) -> Iterator[Finding]:
    """Rows that are equal to an earlier one, in all that `data.duplicates` compares."""
    rows = table.hashes
    places = np.flatnonzero(rows.repeated_B)
    if not len(places):
        return
    share = len(places) / len(table)
    tell = warned if share >= MANY else noted
    yield tell(
        f"{len(places):,} of {len(table):,} rows ({messages.percent(share)}) repeat an earlier row",
        _drop(table),
        evidence=_pairs(table, rows.whole_B, np.arange(len(table)), places),
        numbers={"rows": len(places), "share": share},
        rows=table.numbers(places[:100]),
    )


def near_duplicates(table: Table) -> Iterator[Finding]:
    """Rows that are equal to an earlier one but for small differences."""
    near = repeats.rows(table, table.beside, blurred=True)
    new_B = columns.first_of_each(table.hashes.inputs_B)
    again_B = ~columns.first_of_each(near.inputs_B) & new_B
    places = np.flatnonzero(again_B & near.telling_B)
    if not len(places):
        return
    share = len(places) / len(table)
    tell = warned if share >= MANY else noted
    yield tell(
        f"{len(places):,} of {len(table):,} rows ({messages.percent(share)}) nearly repeat an "
        "earlier row: numbers to three digits, names and texts but for case, blanks and signs",
        evidence=_pairs(table, near.inputs_B, np.arange(len(table)), places),
        numbers={"rows": len(places), "share": share},
        rows=table.numbers(places[:100]),
    )


def across_parts(table: Table) -> Iterator[Finding]:
    """Rows of validation and test whose inputs are those of a training row."""
    import pandas as pd

    rows, train = table.hashes, table.parts["training"]
    shares: dict[str, float] = {}
    numbers: dict[str, float] = {}
    found = np.empty(0, np.int64)
    for part in ("validation", "test"):
        places = table.parts[part]
        seen_B = pd.Series(rows.inputs_B[places]).isin(rows.inputs_B[train]).to_numpy()
        shared = places[seen_B & rows.telling_B[places]]
        shares[part] = len(shared) / max(1, len(places))
        numbers |= {f"{part} rows": len(shared), f"{part} share": shares[part]}
        found = np.concatenate([shared, found])
    if not len(found):
        return
    worst = max(shares.values())
    many = worst >= MANY and len(found) >= FEW
    tell = wrong if many and worst >= MOST else warned if many else noted
    leaves_B = pd.Series(rows.whole_B[found]).isin(rows.whole_B[train]).to_numpy()
    others = len(found) - int(leaves_B.sum())
    differ = f"{others:,} of these {len(found):,} rows differ in {_marks(table)}, and would stay"
    stay = [differ] if others else []
    yield tell(
        f"{messages.percent(shares['test'])} of the rows of the test part and "
        f"{messages.percent(shares['validation'])} of the validation part have the inputs of a "
        "training row, so that a model that remembers rows looks better than it is",
        _drop(table) if leaves_B.any() else "",
        evidence=(*stay, *_pairs(table, rows.inputs_B, train, found)),
        numbers=numbers | {"other rows": others},
        rows=table.numbers(found[:100]),
    )


def _marks(table: Table) -> str:
    """Names of the columns other than inputs in which rows with equal inputs differ."""
    split = table.experiment.data.split
    keys = [column.name for column, _ in table.keys]
    named = [table.schema.target.name, *keys, *filter(None, (split.group, split.time))]
    return " or ".join(named)


def _drop(table: Table) -> str:
    """The line that leaves repeated rows out; empty where the file cannot have it, or has it."""
    able = not table.streamed and table.experiment.data.duplicates == "keep"
    return messages.setting({"data": {"duplicates": "drop"}}).strip("`") if able else ""


def _pairs(
    table: Table, hash_B: np.ndarray, among: np.ndarray, places: np.ndarray
) -> tuple[str, ...]:
    """Sample rows, each with the number of the row that it repeats."""
    lines = []
    for place, shown in zip(places.tolist(), table.shown(places), strict=False):
        first = among[np.argmax(hash_B[among] == hash_B[place])]
        lines.append(shown.replace(": ", f" is like row {table.rows[first]:,}: ", 1))
    return tuple(lines)
