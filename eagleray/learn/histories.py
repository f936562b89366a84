"""What users have chosen, which is not recommended to them again.

Legend: B rows, U users, N choices.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Histories:
    """The items of each user, ascending: those of user u are `items[starts[u] : starts[u + 1]]`."""

    starts: np.ndarray  # int64 (U + 1)
    items: np.ndarray  # int32 (N)

    @classmethod
    def of(cls, user_N: np.ndarray, item_N: np.ndarray, users: int) -> "Histories":
        """Histories of `users` users from their choices, which may be repeated."""
        width = int(item_N.max(initial=0)) + 1
        choices = np.unique(user_N.astype(np.int64) * width + item_N)
        starts = np.searchsorted(choices, np.arange(users + 1) * width)
        return cls(starts, (choices % width).astype(np.int32))

    def joined(self, user_N: np.ndarray, item_N: np.ndarray) -> "Histories":
        """These and further choices."""
        known_N = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        users, items = np.append(known_N, user_N), np.append(self.items, item_N)
        return Histories.of(users, items, len(self.starts) - 1)

    def places(self, user_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and item of all choices of some users."""
        first_B, count_B = self.starts[user_B], np.diff(self.starts)[user_B]
        row_N = np.repeat(np.arange(len(user_B)), count_B)
        within_N = np.arange(len(row_N)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        items = self.items[np.repeat(first_B, count_B) + within_N]
        return row_N, items.astype(np.int64)

    def counts(self, items: int) -> np.ndarray:
        """How many users have chosen each item."""
        return np.bincount(self.items, minlength=items)
