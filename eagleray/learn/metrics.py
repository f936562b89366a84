"""Every metric of a task, by scikit-learn's definitions; tests hold each to scikit-learn.

Written out, because a trial scores itself after every epoch: scikit-learn's checks of its arguments
took a third of a short trial (0.018 s an epoch on 10 classes; 0.001 s here), and importing it a
fourth of a worker's start.

Legend: B rows, C classes, N rows that are not of the class.
"""

from __future__ import annotations

import numpy as np

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
    task = {"regression": _regression, "binary": _binary, "multiclass": _multiclass}[target.task]
    found = task(truth_B, outputs)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _regression(truth_B: np.ndarray, value_B: np.ndarray) -> dict[str, float]:
    truth_B, value_B = truth_B.astype(float), value_B.astype(float)
    error_B = truth_B - value_B
    found = {"rmse": np.sqrt(np.mean(error_B**2)), "mae": np.abs(error_B).mean()}
    if len(truth_B) > 1:
        found["r2"] = _r2(np.sum(error_B**2), np.sum((truth_B - truth_B.mean()) ** 2))
    return found


def _r2(residual: float, total: float) -> float:
    """R²; of a constant truth it is 1 where every value is right, else 0."""
    return 1 - residual / total if total else float(residual == 0)


def _binary(truth_B: np.ndarray, probability_BC: np.ndarray) -> dict[str, float]:
    found = _labels(truth_B, probability_BC, averaged=np.array([1]))
    if 0 < truth_B.sum() < len(truth_B):
        found["roc_auc"] = _roc_auc(truth_B == 1, probability_BC[:, 1])
        found["pr_auc"] = _average_precision(truth_B == 1, probability_BC[:, 1])
    return found


def _multiclass(truth_B: np.ndarray, probability_BC: np.ndarray) -> dict[str, float]:
    classes = range(probability_BC.shape[1])
    met = np.union1d(truth_B, probability_BC.argmax(1))
    found = _labels(truth_B, probability_BC, averaged=met)
    if len(np.unique(truth_B)) == len(classes):
        areas_C = [_roc_auc(truth_B == one, probability_BC[:, one]) for one in classes]
        found["roc_auc"] = float(np.mean(areas_C))
    return found


def _labels(
    truth_B: np.ndarray, probability_BC: np.ndarray, *, averaged: np.ndarray
) -> dict[str, float]:
    """What follows from the labels; precision, recall and F1 are means over the `averaged` ones."""
    label_B, classes = probability_BC.argmax(1), probability_BC.shape[1]
    pairs = np.bincount(truth_B * classes + label_B, minlength=classes**2)
    pairs_CC = pairs.reshape(classes, classes).astype(float)
    hit_C, truth_C, said_C = pairs_CC.diagonal(), pairs_CC.sum(1), pairs_CC.sum(0)
    recall_C = hit_C / np.maximum(truth_C, 1)
    true_B = probability_BC[np.arange(len(truth_B)), truth_B]
    return {
        "accuracy": hit_C.sum() / len(truth_B),
        "balanced_accuracy": recall_C[truth_C > 0].mean(),
        "precision": (hit_C / np.maximum(said_C, 1))[averaged].mean(),
        "recall": recall_C[averaged].mean(),
        "f1": (2 * hit_C / np.maximum(truth_C + said_C, 1))[averaged].mean(),
        "log_loss": -np.log(true_B.clip(np.finfo(float).eps)).mean(),
    }


def _roc_auc(is_B: np.ndarray, score_B: np.ndarray) -> float:
    """How often a row of the class outscores one that is not; a tie counts half."""
    other_N, own = np.sort(score_B[~is_B]), score_B[is_B]
    above = np.searchsorted(other_N, own, "left") + np.searchsorted(other_N, own, "right")
    return float(above.mean() / 2 / len(other_N))


def _average_precision(is_B: np.ndarray, score_B: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall that the threshold adds."""
    order = np.argsort(-score_B, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score_B[order]) != 0, True))
    hits = np.cumsum(is_B[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
