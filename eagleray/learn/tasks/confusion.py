"""Which classes a model takes for which: a matrix of few, the most frequent mistakes of many.

Legend: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_CLASSES = 20
"""A matrix of more classes is no longer read by anybody."""
MOST_PAIRS = 10


def matrix(
    classes: Sequence[str], truth_B: np.ndarray, label_B: np.ndarray
) -> list[list[int]] | None:
    """Rows of the truth by columns of the prediction; None for more than `MOST_CLASSES`."""
    count = len(classes)
    if count > MOST_CLASSES:
        return None
    pairs = np.bincount(truth_B * count + label_B, minlength=count**2)
    found: list[list[int]] = pairs.reshape(count, count).tolist()
    return found


def pairs(
    classes: Sequence[str], truth_B: np.ndarray, label_B: np.ndarray
) -> list[tuple[str, str, int]]:
    """The `MOST_PAIRS` most frequent mistakes as truth, prediction and rows."""
    wrong_B = truth_B != label_B
    both = np.stack([truth_B[wrong_B], label_B[wrong_B]], 1)
    found, rows = np.unique(both, axis=0, return_counts=True)
    often = np.argsort(-rows, kind="stable")[:MOST_PAIRS]
    return [
        (classes[truth], classes[label], count)
        for (truth, label), count in zip(found[often].tolist(), rows[often].tolist(), strict=True)
    ]
