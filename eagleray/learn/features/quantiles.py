"""Numbers to normal scores: the inverse normal of where a value stands among the training values.

As scikit-learn's QuantileTransformer with a normal output, but equal values get their middle rank
and the ends stay finite by themselves.

Legend: C columns scaled so, B rows, Q knots of one column.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np

KNOTS = 1000


@dataclass(frozen=True)
class Quantiles:
    """Piecewise linear curves, one a column.

    Attributes:
        knots: for each of the C columns ascending values over their scores, f64 (2, Q).
    """

    knots: tuple[np.ndarray, ...]
    _values: np.ndarray = field(init=False, repr=False, compare=False)
    _scores: np.ndarray = field(init=False, repr=False, compare=False)
    _gaps: np.ndarray = field(init=False, repr=False, compare=False)
    _rises: np.ndarray = field(init=False, repr=False, compare=False)
    _before: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        last = [[1.0], [0.0]]
        steps = [np.append(np.diff(knots, axis=1), last, axis=1) for knots in self.knots]
        values, scores = np.concatenate([*self.knots, np.empty((2, 0))], axis=1)
        gaps, rises = np.concatenate([*steps, np.empty((2, 0))], axis=1)
        before = np.cumsum([0, *(knots.shape[1] for knots in self.knots)])[:-1, None] - 1
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_scores", scores)
        object.__setattr__(self, "_gaps", gaps)
        object.__setattr__(self, "_rises", rises)
        object.__setattr__(self, "_before", before)

    def apply(self, known: np.ndarray) -> np.ndarray:
        """Scores (C, B) of values (C, B), none beyond its column's first or last knot."""
        pairs = zip(self.knots, known, strict=True)
        place = np.array([knots[0].searchsorted(row, "right") for knots, row in pairs])
        place += self._before
        along = (known - self._values[place]) / self._gaps[place]
        scores: np.ndarray = self._scores[place] + along * self._rises[place]
        return scores


def learn(present: np.ndarray) -> np.ndarray:
    """Knots (2, Q) of a column's values that are not missing; at least one is needed."""
    distinct, counts = np.unique(present, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(present)
    if len(distinct) > KNOTS:
        kept = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], KNOTS)))
        distinct, ranks = distinct[kept], ranks[kept]
    normal = statistics.NormalDist()
    return np.stack([distinct, [normal.inv_cdf(rank) for rank in ranks.tolist()]])
