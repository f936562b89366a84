"""Warnings about a model from its test part: leakage or no skill. Legend: B rows, C classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eagleray import messages

LEAST_ROWS = 30  # with fewer rows a perfect score, or one no better than chance, may be luck
LEAST_OTHERS = 5  # minimum rows outside the largest class for a perfect score to be suspicious
ONE_SIDED = 1.645  # z of a one-sided test at the 5 % level
_MENDED = (
    "train.loss: weighted_cross_entropy weights rare classes more, decide.maximize: f1 chooses a"
    " threshold of two classes, decide.costs makes missing them dearer"
)
NEARLY_ALL = 0.999  # R² from which a regression counts as perfect, since it is never exactly right


class Chance(NamedTuple):
    """Distribution of a metric for a model without skill."""

    metric: str
    mean: float
    deviation: float


def value_warnings(truth_B: np.ndarray, scores: Mapping[str, float]) -> Iterator[str]:
    """Warnings about predicted numbers; none if `scores` lack `r2` or `mae`."""
    off_B = np.abs(truth_B - truth_B.mean())
    if len(truth_B) < LEAST_ROWS or not off_B.any() or not {"r2", "mae"} <= scores.keys():
        return
    if scores["r2"] >= NEARLY_ALL:
        yield _leak(f"R² {scores['r2']:.5f} on {len(truth_B):,} rows")
    if scores["r2"] <= 0 and scores["mae"] >= off_B.mean():
        yield (
            "is no better than always predicting the mean: on the test part its mae is"
            f" {scores['mae']:.4g}, that of the mean {off_B.mean():.4g}"
        )


def class_warnings(
    names: Sequence[str],
    truth_C: np.ndarray,
    missed_C: np.ndarray,
    scores: Mapping[str, float],
    chance: Chance,
) -> Iterator[str]:
    """Warnings about predicted classes; `missed_C` marks frequent ones that are never predicted."""
    rows = truth_C.sum()
    if missed_C.any():
        yield _never_predicted(names, truth_C, np.flatnonzero(missed_C))
    if rows < LEAST_ROWS:
        return
    perfect = [metric for metric in ("accuracy", "roc_auc") if scores.get(metric, 0.0) >= 1]
    if perfect and rows - truth_C.max() >= LEAST_OTHERS:
        yield _leak(f"{perfect[0]} 1 on {rows:,} rows")
    score, error = scores.get(chance.metric), ONE_SIDED * chance.deviation
    if score is not None and score <= chance.mean + error:
        yield (
            f"is no better than chance: {chance.metric} {score:.4f} on {rows:,} rows of"
            f" the test part, where chance gives {chance.mean:.4f} ± {error:.4f}"
        )


def _never_predicted(names: Sequence[str], truth_C: np.ndarray, missed: np.ndarray) -> str:
    often = missed[np.argsort(-truth_C[missed], kind="stable")]
    counts = [(names[one], truth_C[one]) for one in often]
    named = [f"{name!r} ({n:,} row{'' if n == 1 else 's'})" for name, n in counts]
    return (
        f"never predicts {messages.listed(named)} on the test part of {truth_C.sum():,} rows;"
        f" {_MENDED}"
    )


def none_found(name: str, rows: int, alarms: int) -> str:
    """A warning that all of the rows predicted as a class are of others."""
    return (
        f"finds none of the {rows:,} rows of {name!r}: all {alarms:,} alarms are wrong; {_MENDED}"
    )


def _leak(score: str) -> str:
    return (
        f"is perfect on the test part: {score}; on real data this mostly means leakage: a column"
        " that holds the target or is only known after it (data.drop leaves one out), or the same"
        " rows in training and test (data.split.group keeps them together)"
    )
