"""Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019). Legend: B rows."""

from collections.abc import Callable

import numpy as np

from eagleray.learn import metrics, schema
from eagleray.state.evaluations import Estimate, Importance

REPEATS = 5
MOST_ROWS = 1000
MOST_COLUMNS = 60
"""Maximum number of columns that are measured; those after are left out."""
_T = 2.776  # of a 95 % interval of the mean of five repeats, 4 degrees of freedom


def measure(
    target: schema.Target,
    metric: str,
    columns: schema.Columns,
    truth_B: np.ndarray,
    predict: Callable[[schema.Columns], np.ndarray],
) -> list[Importance]:
    """How much a metric falls when a column's values change places, the largest fall first.

    `predict` gives outputs for canonical columns. At most `MOST_ROWS` evenly spaced rows are taken.
    """
    places = np.linspace(0, len(truth_B) - 1, min(len(truth_B), MOST_ROWS)).astype(int)
    rows, truth = {name: array[places] for name, array in columns.items()}, truth_B[places]
    sign = 1 if metrics.REGISTRY[metric].mode == "max" else -1

    def score(moved: schema.Columns) -> float:
        return sign * metrics.score(target, truth, predict(moved)).get(metric, np.nan)

    whole, random, found = score(rows), np.random.default_rng(0), []
    for name in list(rows)[:MOST_COLUMNS]:
        orders = (random.permutation(len(truth)) for _ in range(REPEATS))
        drops = np.array([whole - score(rows | {name: rows[name][order]}) for order in orders])
        if np.isfinite(drops).all():
            mean, reach = float(drops.mean()), float(_T * drops.std(ddof=1) / np.sqrt(REPEATS))
            drop = Estimate(value=mean, low=mean - reach, high=mean + reach)
            found.append(Importance(column=name, drop=drop))
    return sorted(found, key=lambda one: -one.drop.value)
