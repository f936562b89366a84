"""What the training part looked like, column by column: kept in the bundle, compared for drift.

    of numbers   `edges` of bins of about equal counts, and `shares` of rows in each
    of names     `names` of the most frequent, `shares` of each and of the rest

Both have `missing`, the share of missing rows; shares are of the rows that are not missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from eagleray.learn import schema

BINS = 10
MOST_NAMES = 50


def describe(known: schema.Schema, columns: schema.Columns) -> dict[str, dict[str, Any]]:
    """Statistics by column, as JSON may hold them."""
    return {column.name: column.kind.statistics(columns[column.name]) for column in known.columns}


def of_numbers(quantity_B: np.ndarray) -> dict[str, Any]:
    """Statistics of numbers, NaN where missing."""
    present = _present(quantity_B)
    edges = _edges(present)
    return {
        "missing": 1 - len(present) / max(1, len(quantity_B)),
        "mean": float(present.mean()) if len(present) else None,
        "deviation": float(present.std()) if len(present) else None,
        "edges": edges.tolist(),
        "shares": _bin_shares(edges, present),
    }


def shares_of_numbers(statistics: Mapping[str, Any], quantity_B: np.ndarray) -> list[float]:
    """Shares of other rows in the bins of `statistics`."""
    return _bin_shares(np.array(statistics["edges"]), _present(quantity_B))


def of_names(names_B: np.ndarray) -> dict[str, Any]:
    """Statistics of names, None where missing."""
    values = [value for value in names_B.tolist() if value is not None]
    counts = Counter(values)
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_NAMES]
    missing = 1 - len(values) / max(1, len(names_B))
    return {"missing": missing, "names": names, "shares": _name_shares(names, values)}


def shares_of_names(statistics: Mapping[str, Any], names_B: np.ndarray) -> list[float]:
    """Shares of other rows in the names of `statistics`, and of the rest."""
    values = [value for value in names_B.tolist() if value is not None]
    return _name_shares(statistics["names"], values)


def _present(quantity_B: np.ndarray) -> np.ndarray:
    present: np.ndarray = np.clip(quantity_B[~np.isnan(quantity_B)], -1e30, 1e30)
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
