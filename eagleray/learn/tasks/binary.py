"""`binary`: two classes."""

import math
from collections.abc import Mapping

import numpy as np

from eagleray.learn.tasks import sanity
from eagleray.learn.tasks.classes import Classes
from eagleray.learn.tasks.sanity import Chance
from eagleray.learn.tasks.task import Evaluation, TargetColumn

LEAST_MISSED = 5  # rows of the positive class of which finding none is told


class Binary(Classes):
    """Two classes, the positive one last."""

    name, metric, positive, min_rows_to_warn = "binary", "roc_auc", 1, 1
    calibrations = ("platt", "none", "temperature", "isotonic")
    telling = ("roc_auc", "recall", "precision", "brier")

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return len(column.classes) == 2

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        return classes == 2 and outputs in (1, 2)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """The positive class from the target's `threshold` on, else the more probable one."""
        if self.target.threshold is None:
            return super().decide(outputs)
        return (outputs[:, 1].astype(np.float64) >= self.target.threshold).astype(np.int64)

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        true_B, alarm_B = truth_B == 1, self.decide(outputs) == 1
        where, hits = f"{self.target.name} is {self.target.classes[1]}", (true_B & alarm_B).sum()
        if not alarm_B.any():
            return f"finds none of the rows where {where}"
        found, right = (100 * hits / max(1, one.sum()) for one in (true_B, alarm_B))
        return f"finds {found:.0f} of 100 rows where {where}; {right:.0f} of 100 alarms are right"

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        found, is_B = super().evaluate(truth_B, outputs, scores), truth_B == 1
        alarm_B = self.decide(outputs) == 1
        if is_B.sum() < LEAST_MISSED or not alarm_B.any() or (is_B & alarm_B).any():
            return found
        name, rows, alarms = self.target.classes[1], int(is_B.sum()), int(alarm_B.sum())
        return found._replace(warnings=[sanity.none_found(name, rows, alarms), *found.warnings])

    def chance(self, truth_C: np.ndarray, predicted_C: np.ndarray) -> Chance:
        """ROC-AUC of a random order (Mann and Whitney 1947, normalised)."""
        deviation = math.sqrt((truth_C.sum() + 1) / (12 * max(1, truth_C.prod())))
        return Chance("roc_auc", 0.5, deviation)
