"""What the training part looked like, column by column: kept in the bundle, compared for drift.

    numeric, boolean, datetime  `edges` of bins of about equal counts, and `shares` of rows in each
    categorical                 `names` of the most frequent, `shares` of each and of the rest
    text                        as numeric, of the number of words
    image                       as numeric, of the mean brightness

All have `missing`, the share of missing rows; shares are of the rows that are not missing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from eagleray import schema

BINS = 10
MOST_NAMES = 50


def describe(known: schema.Schema, columns: schema.Columns) -> dict[str, dict[str, Any]]:
    """Statistics by column, as JSON may hold them."""
    return {column.name: _column(column.type, columns[column.name]) for column in known.columns}


def shares(measure: dict[str, Any], kind: schema.ColumnType, array: np.ndarray) -> list[float]:
    """Shares of other rows in the bins or categories of one column's `measure`, see `describe`."""
    if kind == "categorical":
        values = [value for value in array.tolist() if value is not None]
        return _name_shares(measure["names"], values)
    return _bin_shares(np.array(measure["edges"]), _present(kind, array))


def _column(kind: schema.ColumnType, array: np.ndarray) -> dict[str, Any]:
    if kind == "categorical":
        values = [value for value in array.tolist() if value is not None]
        counts = Counter(values)
        names = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_NAMES]
        missing = 1 - len(values) / max(1, len(array))
        return {"missing": missing, "names": names, "shares": _name_shares(names, values)}
    present = _present(kind, array)
    edges = _edges(present)
    return {
        "missing": 1 - len(present) / max(1, len(array)),
        "mean": float(present.mean()) if len(present) else None,
        "deviation": float(present.std()) if len(present) else None,
        "edges": edges.tolist(),
        "shares": _bin_shares(edges, present),
    }


def _present(kind: schema.ColumnType, array: np.ndarray) -> np.ndarray:
    """The rows that are not missing, one number for each."""
    if kind == "text":
        words = [len(text.split()) for text in array.tolist() if text is not None]
        return np.array(words, np.float64)
    numbers = array.mean(axis=(1, 2, 3), dtype=np.float64) if kind == "image" else array
    present: np.ndarray = np.clip(numbers[~np.isnan(numbers)], -1e30, 1e30)
    return present


def _edges(present: np.ndarray) -> np.ndarray:
    """Inner edges of at most `BINS` bins; a value on an edge belongs to the bin below it."""
    if not len(present):
        return np.empty(0)
    levels = np.arange(1, BINS) / BINS
    edges: np.ndarray = np.unique(np.quantile(present, levels, method="inverted_cdf"))
    below: np.ndarray = edges[edges < present.max()]
    return below


def _bin_shares(edges: np.ndarray, present: np.ndarray) -> list[float]:
    counts = np.bincount(np.searchsorted(edges, present), minlength=len(edges) + 1)
    shares: list[float] = (counts / max(1, len(present))).tolist()
    return shares


def _name_shares(names: list[str], values: list[str]) -> list[float]:
    counts = Counter(values)
    known = [counts[name] for name in names]
    return [count / max(1, len(values)) for count in [*known, len(values) - sum(known)]]
