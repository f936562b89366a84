"""Contributions of columns to a prediction: Shapley values by sampling permutations.

Strumbelj and Kononenko, "Explaining prediction models and individual predictions with feature
contributions", 2014: a column contributes what a prediction changes by when a background row's
value is replaced by the row's own, averaged over background rows and orders of replacement. Each
order is walked in reverse too, which lowers the variance.

Legend: F columns, R background rows, N walks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eagleray.learn.columns import Columns

MOST_PREDICTIONS = 4096
"""Predictions for one row; more columns get fewer background rows and orders."""
_CHUNK = 256  # predictions at once


class Contributions(NamedTuple):
    """`mean` plus all contributions is the prediction; both are in its unit."""

    mean: float  # prediction of the background rows that were used
    by_column: dict[str, float]


def contributions(
    predict: Callable[[Columns], np.ndarray], row: Columns, background: Columns, *, seed: int = 0
) -> Contributions:
    """Contributions of the columns of one row (1 each) against background rows (R each).

    `predict` gives a number for each row. The same arguments give the same result.
    """
    names = list(row)
    rows, pairs = _sizes(len(names), len(background[names[0]]))
    random = np.random.default_rng(seed)
    half_NF = np.array([random.permutation(len(names)) for _ in range(rows * pairs)])
    orders_NF = np.concatenate([half_NF, half_NF[:, ::-1]])
    from_N = np.tile(np.arange(rows), 2 * pairs)
    both = {name: np.concatenate([background[name][:rows], row[name]]) for name in names}
    walked_NS = _walked(predict, both, orders_NF, from_N)
    steps_NF, totals_F = np.diff(walked_NS), np.zeros(len(names))
    np.add.at(totals_F, orders_NF, steps_NF)
    by_column = dict(zip(names, (totals_F / len(orders_NF)).tolist(), strict=True))
    return Contributions(float(walked_NS[:, 0].mean()), by_column)


def _sizes(columns: int, background: int) -> tuple[int, int]:
    """The number of background rows, and of pairs of orders for each."""
    pair = 2 * (columns + 1)
    rows = max(1, min(background, MOST_PREDICTIONS // pair))
    return rows, max(1, MOST_PREDICTIONS // (pair * rows))


def _walked(
    predict: Callable[[Columns], np.ndarray],
    both: Columns,
    orders_NF: np.ndarray,
    from_N: np.ndarray,
) -> np.ndarray:
    """Predictions (N, F + 1) on each walk; the last row of `both` is the explained one."""
    walks, columns = orders_NF.shape
    own = len(next(iter(both.values()))) - 1
    ranks_NF = np.argsort(orders_NF, axis=1)
    steps = np.arange(columns + 1)
    source = {
        name: np.where(ranks_NF[:, [index]] < steps, own, from_N[:, None]).ravel()
        for index, name in enumerate(both)
    }
    total, outputs = walks * (columns + 1), []
    for start in range(0, total, _CHUNK):
        part = {name: both[name][at[start : start + _CHUNK]] for name, at in source.items()}
        outputs.append(predict(part))
    return np.concatenate(outputs).reshape(walks, columns + 1)
