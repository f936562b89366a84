"""`multiclass`: three or more classes."""

import math

import numpy as np

from eagleray.learn.tasks.classes import Classes
from eagleray.learn.tasks.sanity import Chance
from eagleray.learn.tasks.task import TargetColumn


class Multiclass(Classes):
    """Three or more classes; it also fits a single class, which `describe` refuses."""

    name, metric, min_rows_to_warn = "multiclass", "accuracy", 5
    telling = ("accuracy", "balanced_accuracy", "f1", "log_loss")

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return len(column.classes) not in (0, 2)

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        return classes == outputs > 2

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        right = 100 * float((truth_B == self.decide(outputs)).mean())
        return f"is right about {self.target.name} for {right:.0f} of 100 rows"

    def chance(self, truth_C: np.ndarray, predicted_C: np.ndarray) -> Chance:
        """Balanced accuracy of labels drawn with the shares in which the model predicts them."""
        present = truth_C > 0
        share_C = predicted_C[present] / predicted_C.sum()
        variance = float((share_C * (1 - share_C) / truth_C[present]).sum())
        deviation = math.sqrt(variance) / int(present.sum())
        return Chance("balanced_accuracy", float(share_C.mean()), deviation)
