"""`binary`: two classes."""

import math

import numpy as np

from eagleray.learn.tasks.classes import Classes
from eagleray.learn.tasks.sanity import Chance
from eagleray.learn.tasks.task import TargetColumn


class Binary(Classes):
    """Two classes, the positive one last."""

    name, metric, positive, min_rows_to_warn = "binary", "roc_auc", 1, 1

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return len(column.classes) == 2

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        return classes == 2 and outputs in (1, 2)

    def chance(self, truth_C: np.ndarray, predicted_C: np.ndarray) -> Chance:
        """ROC-AUC of a random order (Mann and Whitney 1947, normalised)."""
        deviation = math.sqrt((truth_C.sum() + 1) / (12 * max(1, truth_C.prod())))
        return Chance("roc_auc", 0.5, deviation)
