"""Signs on the test part that a winner is not what its metrics suggest.

Few and sound ones: each is a fact that a person would want to know before the model answers
anybody. They are no audit of the data.

Legend: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEAST_ROWS = 30
"""With fewer rows a perfect score, or one no better than chance, may be luck."""
LEAST_OTHERS = 5
"""A perfect score says nothing where nearly all rows are of one class."""
LEAST_OF_A_CLASS = 5
"""Of many classes, one with fewer rows may be missed by chance; of two, none may."""
NAMED = 3
"""Maximum number of classes that a warning names."""
ONE_SIDED = 1.645
"""Standard deviations above which chance gets in one case of twenty."""
NEARLY_ALL = 0.999
"""R² from which on a regression counts as perfect: its outputs are never exactly right."""


class Chance(NamedTuple):
    """What a model without skill reaches: mean and deviation of a metric, of rows by class."""

    metric: str
    law: Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def of_values(truth_B: np.ndarray, scores: Mapping[str, float]) -> Iterator[str]:
    """What is suspicious of numbers.

    Args:
        truth_B: values in the target's unit.
        scores: metrics of these rows; without `r2` and `mae` nothing is said.
    """
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


def of_classes(
    names: Sequence[str],
    counts: tuple[np.ndarray, np.ndarray],
    scores: Mapping[str, float],
    *,
    chance: Chance,
    least: int,
) -> Iterator[str]:
    """What is suspicious of classes.

    Args:
        names: the classes (C).
        counts: rows by true class, and by predicted class.
        scores: metrics of these rows.
        chance: what a model without skill reaches.
        least: rows of a class from which on never to predict it is suspicious.
    """
    truth_C, said_C = counts
    yield from _never_predicted(names, truth_C, said_C, least)
    if truth_C.sum() >= LEAST_ROWS:
        yield from _perfect(truth_C, scores)
        yield from _by_chance(truth_C, said_C, scores, chance)


def _never_predicted(
    names: Sequence[str], truth_C: np.ndarray, said_C: np.ndarray, least: int
) -> Iterator[str]:
    missed = np.flatnonzero((truth_C >= least) & (said_C == 0))
    if not len(missed):
        return
    often = missed[np.argsort(-truth_C[missed], kind="stable")]
    named = ", ".join(f"{names[one]!r} ({_rows(truth_C[one])})" for one in often[:NAMED])
    rest = f" and {len(often) - NAMED:,} more classes" if len(often) > NAMED else ""
    yield (
        f"never predicts {named}{rest} on the test part of {truth_C.sum():,} rows;"
        " train.loss: weighted_cross_entropy counts rare classes more, and a threshold of your own"
        " on the probability is another way"
    )


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _perfect(truth_C: np.ndarray, scores: Mapping[str, float]) -> Iterator[str]:
    if truth_C.sum() - truth_C.max() < LEAST_OTHERS:
        return
    for metric in ("accuracy", "roc_auc"):
        if scores.get(metric, 0.0) >= 1:
            yield _leak(f"{metric} 1 on {truth_C.sum():,} rows")
            return


def _leak(score: str) -> str:
    return (
        f"is perfect on the test part: {score}; on real data this mostly means leakage: a column"
        " that holds the target or is only known after it (data.drop leaves one out), or the same"
        " rows in training and test (data.split.group keeps them together)"
    )


def _by_chance(
    truth_C: np.ndarray, said_C: np.ndarray, scores: Mapping[str, float], chance: Chance
) -> Iterator[str]:
    """Outputs that do not depend on the truth."""
    metric = chance.metric
    expected, deviation = chance.law(truth_C, said_C)
    if metric in scores and scores[metric] <= expected + ONE_SIDED * deviation:
        yield (
            f"is no better than chance: {metric} {scores[metric]:.4f} on {truth_C.sum():,} rows of"
            f" the test part, where chance gives {expected:.4f} ± {ONE_SIDED * deviation:.4f}"
        )


def _of_ranking(truth_C: np.ndarray, _: np.ndarray) -> tuple[float, float]:
    """ROC-AUC of an order by chance: Mann and Whitney 1947, normalised."""
    return 0.5, math.sqrt((truth_C.sum() + 1) / (12 * truth_C.prod()))


def _of_labels(truth_C: np.ndarray, said_C: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of labels drawn with the shares that the model gave them."""
    met = truth_C > 0
    share_C = said_C[met] / said_C.sum()
    variance = float((share_C * (1 - share_C) / truth_C[met]).sum())
    return float(share_C.mean()), math.sqrt(variance) / int(met.sum())


RANKING = Chance("roc_auc", _of_ranking)
"""Of two classes."""
LABELS = Chance("balanced_accuracy", _of_labels)
"""Of more."""
