"""Numbers to normal scores: the inverse normal of a value's rank among the training values.

As scikit-learn's QuantileTransformer with a normal output, but equal values get their middle rank,
so that the ends stay finite.

Legend: C columns with this scale, B rows, Q knots of one column.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np

KNOTS = 1000


@dataclass(frozen=True)
class Quantiles:
    """Piecewise linear curves, one a column.

    Attributes:
        knots: for each of the C columns ascending values over their scores, f64 (2, Q).
    """

    knots: tuple[np.ndarray, ...]

    @cached_property
    def _segments(self) -> tuple[np.ndarray, ...]:
        """Start, score, length and rise of all segments, and each column's first one less 1."""
        last = [[1.0], [0.0]]
        steps = [np.append(np.diff(knots, axis=1), last, axis=1) for knots in self.knots]
        before = np.cumsum([0, *(knots.shape[1] for knots in self.knots)])[:-1, None] - 1
        return (*np.concatenate(self.knots, axis=1), *np.concatenate(steps, axis=1), before)

    def apply(self, known: np.ndarray) -> np.ndarray:
        """Scores (C, B) of values (C, B), none beyond its column's first or last knot."""
        values, scores, gaps, rises, before = self._segments
        pairs = zip(self.knots, known, strict=True)
        place = np.array([knots[0].searchsorted(row, "right") for knots, row in pairs])
        place += before
        along = (known - values[place]) / gaps[place]
        scored: np.ndarray = scores[place] + along * rises[place]
        return scored


def fit(present: np.ndarray) -> np.ndarray:
    """Knots (2, Q) of a column's values that are not missing; at least one is needed."""
    distinct, counts = np.unique(present, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(present)
    if len(distinct) > KNOTS:
        chosen = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], KNOTS)))
        distinct, ranks = distinct[chosen], ranks[chosen]
    normal = statistics.NormalDist()
    return np.stack([distinct, [normal.inv_cdf(rank) for rank in ranks.tolist()]])
