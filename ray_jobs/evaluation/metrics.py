"""Every metric of a task, computed by scikit-learn.

Legend: B rows, C classes.
"""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sk

from eagleray import schema


def score(target: schema.Target, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """All metrics of the target's task.

    Args:
        target: the task and its classes; the last class of a binary task is the positive one.
        truth_B: class indices, or values in the target's unit.
        outputs: probabilities (B, C), or values (B,).

    Returns:
        Value by name of `spec.METRICS`. A metric that these rows do not define (ROC-AUC where one
        class is absent) is left out.
    """
    if target.task == "regression":
        return _regression(truth_B, outputs)
    found = (_binary if target.task == "binary" else _multiclass)(truth_B, outputs)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _regression(truth_B: np.ndarray, value_B: np.ndarray) -> dict[str, float]:
    found = {
        "rmse": sk.root_mean_squared_error(truth_B, value_B),
        "mae": sk.mean_absolute_error(truth_B, value_B),
    }
    if len(truth_B) > 1:
        found["r2"] = sk.r2_score(truth_B, value_B)
    return {name: float(value) for name, value in found.items()}


def _binary(truth_B: np.ndarray, probability_BC: np.ndarray) -> dict[str, float]:
    label_B = probability_BC.argmax(1)
    found = _labels(truth_B, label_B, "binary")
    found["log_loss"] = sk.log_loss(truth_B, probability_BC, labels=[0, 1])
    if 0 < truth_B.sum() < len(truth_B):
        found["roc_auc"] = sk.roc_auc_score(truth_B, probability_BC[:, 1])
        found["pr_auc"] = sk.average_precision_score(truth_B, probability_BC[:, 1])
    return found


def _multiclass(truth_B: np.ndarray, probability_BC: np.ndarray) -> dict[str, float]:
    label_B = probability_BC.argmax(1)
    classes = np.arange(probability_BC.shape[1])
    found = _labels(truth_B, label_B, "macro")
    found["log_loss"] = sk.log_loss(truth_B, probability_BC, labels=classes)
    if len(np.unique(truth_B)) == len(classes):
        onehot_BC = truth_B[:, None] == classes
        found["roc_auc"] = sk.roc_auc_score(onehot_BC, probability_BC, average="macro")
    return found


def _labels(truth_B: np.ndarray, label_B: np.ndarray, average: str) -> dict[str, float]:
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth_B, label_B, average=average, zero_division=0.0
    )
    return {
        "accuracy": sk.accuracy_score(truth_B, label_B),
        "balanced_accuracy": sk.recall_score(
            truth_B, label_B, labels=np.unique(truth_B), average="macro", zero_division=0.0
        ),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
