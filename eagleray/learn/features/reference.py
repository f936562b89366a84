"""Statistics of the training part by column: stored in the bundle, compared with later rows.

    of numbers   `edges` of bins of about equal counts, and `shares` of rows in each
    of names     `names` of the most frequent, and `shares` of rows with each and with others

Both have `missing`, the share of missing rows; `shares` are of the rows that are not missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features.scales import LARGEST

if TYPE_CHECKING:
    from eagleray.learn import schema

BINS = 10
MOST_NAMES = 50


def describe(known: schema.Schema, columns: schema.Columns) -> dict[str, dict[str, Any]]:
    """Statistics by column, as JSON values."""
    return {column.name: column.kind.statistics(columns[column.name]) for column in known.columns}


def statistics(quantity_B: np.ndarray) -> dict[str, Any]:
    """Statistics of numbers, NaN where missing, or of names, None where missing."""
    present = _present(quantity_B)
    missing = 1 - len(present) / max(1, len(quantity_B))
    found = _of_names(present) if quantity_B.dtype == object else _of_numbers(present)
    return {"missing": missing, **found, "shares": shares(found, quantity_B)}


def shares(statistics: Mapping[str, Any], quantity_B: np.ndarray) -> list[float]:
    """Share of rows per bin of `statistics`, or per name and, last, of all other names."""
    present = _present(quantity_B)
    if "names" in statistics:
        counted = Counter(present.tolist())
        known = [counted[name] for name in statistics["names"]]
        counts = [*known, len(present) - sum(known)]
    else:
        edges = np.array(statistics["edges"])
        bins = np.searchsorted(edges, present)
        counts = np.bincount(bins, minlength=len(edges) + 1).tolist()
    return [count / max(1, len(present)) for count in counts]


def _present(quantity_B: np.ndarray) -> np.ndarray:
    if quantity_B.dtype == object:
        names: np.ndarray = quantity_B[quantity_B != None]  # noqa: E711 (each value)
        return names
    numbers: np.ndarray = np.clip(quantity_B[~np.isnan(quantity_B)], -LARGEST, LARGEST)
    return numbers


def _of_names(present: np.ndarray) -> dict[str, Any]:
    counts = Counter(present.tolist())
    return {"names": sorted(counts, key=lambda name: (-counts[name], name))[:MOST_NAMES]}


def _of_numbers(present: np.ndarray) -> dict[str, Any]:
    if not len(present):
        return {"mean": None, "deviation": None, "edges": []}
    levels = np.arange(1, BINS) / BINS
    edges = np.unique(np.quantile(present, levels, method="inverted_cdf"))
    return {
        "mean": float(present.mean()),
        "deviation": float(present.std()),
        "edges": edges[edges < present.max()].tolist(),  # a value on an edge is in the bin below
    }
