"""Where users' items stand in the lists that are recommended to them, and what follows of it.

Metrics are means over users, as in Järvelin and Kekäläinen (2002) for NDCG; items that a user has
and that are in no list count as missed.

Legend: B rows (a user and an item each), U users, K places of a list.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranks:
    """The place of each row's item in its list, from 0 on; K where it is not listed."""

    rank_B: np.ndarray
    user_B: np.ndarray  # from 0 to U - 1
    depth: int  # K

    def ndcg(self) -> float:
        """Normalised discounted cumulative gain."""
        gain_B = np.where(self.listed_B, 1 / np.log2(self.rank_B + 2.0), 0.0)
        best = np.append(0.0, np.cumsum(1 / np.log2(np.arange(self.depth) + 2.0)))
        return self._mean(gain_B, best[np.minimum(self.own_U, self.depth)])

    def recall(self) -> float:
        """The share of a user's items that is listed."""
        return self._mean(self.listed_B.astype(float), self.own_U)

    def average_precision(self) -> float:
        """The mean of the precisions at the places of a user's items."""
        order = np.lexsort((self.rank_B, self.user_B))
        starts_U = np.cumsum(self.own_U) - self.own_U
        above_B = np.arange(1, len(order) + 1) - np.repeat(starts_U, self.own_U)
        precision_B = np.where(self.listed_B[order], above_B / (self.rank_B[order] + 1.0), 0.0)
        total_U = np.bincount(self.user_B[order], precision_B, minlength=len(self.own_U))
        return float((total_U / np.minimum(self.own_U, self.depth)).mean())

    @property
    def listed_B(self) -> np.ndarray:
        listed_B: np.ndarray = self.rank_B < self.depth
        return listed_B

    @property
    def own_U(self) -> np.ndarray:
        """How many items each user has."""
        return np.bincount(self.user_B)

    def _mean(self, value_B: np.ndarray, most_U: np.ndarray) -> float:
        total_U = np.bincount(self.user_B, value_B, minlength=len(most_U))
        return float((total_U / most_U).mean())


def depth(outputs: np.ndarray) -> int:
    """K of outputs (B, 2 K + 1): scores, items, and the user's number."""
    return int(outputs.shape[1] - 1) // 2


def items(outputs: np.ndarray) -> np.ndarray:
    """The listed items (B, K), -1 where a list ends early."""
    places: np.ndarray = outputs[:, depth(outputs) : -1].astype(np.int64)
    return places


def of(truth_B: np.ndarray, outputs: np.ndarray, user_B: np.ndarray | None = None) -> Ranks:
    """Ranks of true items; users are told apart by `user_B`, else by the outputs' numbers.

    Those without a number are each a user of their own.
    """
    hit_BK = items(outputs) == truth_B[:, None]
    rank_B = np.where(hit_BK.any(1), hit_BK.argmax(1), hit_BK.shape[1])
    if user_B is None:
        number_B = outputs[:, -1].astype(np.int64)
        user_B = np.where(number_B > 0, number_B, -np.arange(1, len(number_B) + 1))
    return Ranks(rank_B, np.unique(user_B, return_inverse=True)[1], hit_BK.shape[1])
