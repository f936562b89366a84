"""Models that are made fast, as evidence. Legend: B rows, F traits, C classes, K different values.

A prediction is always of a row that its model has not seen. `classes` is 0 for a quantity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import lightgbm

FOLDS = 5
LEAST_ROWS = 50
"""Fewer rows are too few for a model."""
LEAST_OF_A_CLASS = FOLDS
ROUNDS, MOST_TREES = 60, 600
"""Trees of each class, and of all classes together."""
LEAVES = 200
"""Leaves of the tree of one column."""
SURE = 1.645
"""Standard errors below an estimate to its one-sided lower bound at the 5 % level."""
SURELY = 3.0
"""The same of a difference that must not be chance, with many columns tried."""

COPY, NEAR_COPY = 1.0, 0.85
"""Agreement with the target, beyond chance, of a copy and of a near-copy of classes."""
NEAR_CORRELATION = {True: 0.97, False: 0.995}
"""Correlation with the target of a near-copy, as numbers: of classes, and of a quantity."""
NEAR_EQUAL = 0.9
"""Share of values that are those of the target, in a near-copy."""
STRONG, GIVEN_AWAY = 0.9, 0.95
"""Lower bounds of the score of a single column: for a warning, and for an error (a leak)."""
MOST_RUNS, LEAST_RUN = 1000, 3
"""Runs of rows with like values in which a column's skill is bounded, and rows of one at least."""
MOST_CLASSES = 50
"""Classes that models of all columns are made for."""


class Closeness(NamedTuple):
    """How close a column is to the target."""

    agreement: float  # of its values with the target's, one to one, beyond chance; 1: a copy
    correlation: float  # of its numbers with the target's; 0 for names
    skill: float  # of a model of the column alone: 0 by chance or far from `STRONG`, 1 is all
    sure: float  # lower bound of that skill
    near: bool = False  # whether it is a near-copy by one of the first two

    @property
    def copy(self) -> bool:
        return self.agreement >= COPY

    @property
    def gives_away(self) -> bool:
        """Whether the target follows from it, though it is no copy."""
        return not (self.copy or self.near) and self.sure >= GIVEN_AWAY


def closeness(quantity_B: np.ndarray, truth_B: np.ndarray, classes: int) -> Closeness:
    """How close numbers (NaN where missing) or names (None) are to the target."""
    if len(truth_B) < LEAST_ROWS:
        return Closeness(0.0, 0.0, 0.0, 0.0)
    agreed = _agreement(quantity_B, truth_B, classes)
    correlated = _correlation(quantity_B, truth_B)
    known = quantity_B.dtype != object and correlated >= NEAR_CORRELATION[bool(classes)]
    near = known or agreed >= (NEAR_COPY if classes else NEAR_EQUAL)
    hopeless = not near and _most_skill(quantity_B, truth_B, classes) < STRONG
    skill, sure = (0.0, 0.0) if hopeless else alone(quantity_B, truth_B, classes)
    return Closeness(agreed, correlated, skill, sure, near)


def alone(quantity_B: np.ndarray, truth_B: np.ndarray, classes: int) -> tuple[float, float]:
    """The skill of a model of one column, and its lower bound."""
    fold_B = shuffled(truth_B, classes)
    model = _by_name if quantity_B.dtype == object else _by_number
    predicted_B = np.empty(len(truth_B))
    for fold in range(FOLDS):
        test_B = fold_B == fold
        predicted_B[test_B] = model(
            quantity_B[~test_B], truth_B[~test_B], quantity_B[test_B], classes
        )
    whole = hits(truth_B, predicted_B, classes)
    each = [
        hits(truth_B[fold_B == fold], predicted_B[fold_B == fold], classes) for fold in range(FOLDS)
    ]
    return whole, whole - SURE * float(np.std(each, ddof=1)) / FOLDS**0.5


def hits(truth_B: np.ndarray, predicted_B: np.ndarray, classes: int) -> float:
    """Cohen's kappa of predicted classes, R² of values; at least 0."""
    if not classes:
        return max(0.0, _r2(truth_B, predicted_B))
    same = float(np.mean(truth_B == predicted_B))
    counts = [np.bincount(one.astype(int), minlength=classes) for one in (truth_B, predicted_B)]
    chance = float((counts[0] / len(truth_B)) @ (counts[1] / len(truth_B)))
    return max(0.0, (same - chance) / (1 - chance)) if chance < 1 else 0.0


def skill(truth_B: np.ndarray, predicted: np.ndarray, classes: int) -> float | None:
    """How well rows are ordered: 2 · ROC-AUC - 1, a mean over classes; R² of values.

    None where the rows have one class alone.
    """
    from sklearn.metrics import roc_auc_score

    if not classes:
        return max(0.0, _r2(truth_B, predicted))
    found = [
        2 * float(roc_auc_score(truth_B == one, predicted[:, one])) - 1
        for one in range(classes)
        if 0 < np.count_nonzero(truth_B == one) < len(truth_B)
    ]
    return max(0.0, float(np.mean(found))) if found else None


def surely_worse(truth_B: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int) -> bool:
    """Whether the errors of the second predictions of the same rows are larger beyond chance."""
    more_B = _errors(truth_B, second, classes) - _errors(truth_B, first, classes)
    deviation = float(more_B.std()) / len(more_B) ** 0.5
    return bool(more_B.mean() > SURELY * deviation)


def lower_bound(hits: int, rows: int) -> float:
    """Wilson's lower bound of a share at the 95 % level."""
    from scipy.stats import binomtest

    bound: float = binomtest(hits, rows).proportion_ci(method="wilson").low
    return bound


def shuffled(truth_B: np.ndarray, classes: int) -> np.ndarray:
    """A fold for each row (B) by chance, each class spread evenly."""
    order = np.random.default_rng(0).permutation(len(truth_B))
    if classes:
        order = order[np.argsort(truth_B[order], kind="stable")]
    fold_B = np.empty(len(truth_B), np.int64)
    fold_B[order] = np.arange(len(truth_B)) % FOLDS
    return fold_B


def grouped(group_B: np.ndarray) -> np.ndarray:
    """A fold for each row (B): rows of one group, a whole number, share it."""
    groups, inverse = np.unique(group_B, return_inverse=True)
    fold_of = np.random.default_rng(0).permutation(len(groups)) % FOLDS
    return fold_of[inverse]


def out_of_fold(
    traits_BF: np.ndarray, truth_B: np.ndarray, classes: int, fold_B: np.ndarray
) -> np.ndarray:
    """Predict each row by boosted trees of the other folds: probabilities (B, C) or values (B).

    Rows of the fold -1 are learned from, and not predicted.
    """
    predicted = np.zeros((len(truth_B), classes) if classes else len(truth_B))
    for fold in np.unique(fold_B[fold_B >= 0]).tolist():
        test_B = fold_B == fold
        model = _boosted(traits_BF[~test_B], truth_B[~test_B], classes)
        raw = np.asarray(model.predict(traits_BF[test_B]))
        predicted[test_B] = np.stack([1 - raw, raw], 1) if classes == 2 else raw
    return predicted


def _most_skill(quantity_B: np.ndarray, truth_B: np.ndarray, classes: int) -> float:
    """More than a model of the column can have, and much faster: its skill on rows it has seen."""
    if quantity_B.dtype == object:
        run_B, count = _codes(quantity_B)
    else:
        place_B = np.argsort(np.argsort(quantity_B, kind="stable"), kind="stable")
        count = max(1, min(MOST_RUNS, len(place_B) // LEAST_RUN))
        run_B = place_B * count // len(place_B)
    if classes:
        pairs = np.bincount(run_B * classes + truth_B, minlength=count * classes)
        return hits(truth_B, pairs.reshape(count, classes).argmax(axis=1)[run_B], classes)
    rows = np.maximum(1, np.bincount(run_B, minlength=count))
    return hits(truth_B, (np.bincount(run_B, truth_B, minlength=count) / rows)[run_B], classes)


def _boosted(traits_BF: np.ndarray, truth_B: np.ndarray, classes: int) -> lightgbm.Booster:
    import lightgbm

    objective = {0: "l2", 2: "cross_entropy"}.get(classes, "softmax")
    options = {
        "objective": objective,
        "num_class": classes if objective == "softmax" else 1,
        "learning_rate": 0.1,
        "num_leaves": 15,
        "min_data_in_leaf": max(3, min(20, len(truth_B) // 50)),
        "feature_fraction": 0.7,
        "max_bin": 127,
        "seed": 0,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,  # threads that wait for each other stall on a busy machine
        "verbosity": -1,
    }
    rounds = max(10, min(ROUNDS, MOST_TREES // max(1, classes)))
    rows = lightgbm.Dataset(traits_BF, truth_B, params={"verbosity": -1, "max_bin": 127})
    return lightgbm.train(options, rows, rounds)


def _by_number(
    known_B: np.ndarray, truth_B: np.ndarray, asked_B: np.ndarray, classes: int
) -> np.ndarray:
    """Predictions of a decision tree of one number."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind = DecisionTreeClassifier if classes else DecisionTreeRegressor
    tree = kind(max_leaf_nodes=LEAVES, min_samples_leaf=3, random_state=0)
    bounded = [np.clip(one, -1e30, 1e30)[:, None] for one in (known_B, asked_B)]
    predicted: np.ndarray = tree.fit(bounded[0], truth_B).predict(bounded[1])
    return predicted


def _by_name(
    known_B: np.ndarray, truth_B: np.ndarray, asked_B: np.ndarray, classes: int
) -> np.ndarray:
    """The most frequent class, or the mean, of the rows of each name; of all rows for a new one."""
    code_B, count = _codes(np.concatenate([known_B, asked_B]))
    known, asked = code_B[: len(known_B)], code_B[len(known_B) :]
    rows = np.bincount(known, minlength=count)
    if classes:
        pairs = np.bincount(known * classes + truth_B, minlength=count * classes)
        best = pairs.reshape(count, classes).argmax(axis=1)
        usual = float(np.bincount(truth_B).argmax())
    else:
        best = np.bincount(known, truth_B, minlength=count) / np.maximum(rows, 1)
        usual = float(truth_B.mean())
    predicted: np.ndarray = np.where(rows > 0, best, usual)[asked]
    return predicted


def _codes(quantity_B: np.ndarray) -> tuple[np.ndarray, int]:
    """A whole number for each value, missing ones included, and how many there are."""
    import pandas as pd

    code_B, values = pd.factorize(quantity_B, use_na_sentinel=True)
    return np.where(code_B < 0, len(values), code_B), len(values) + 1


def _agreement(quantity_B: np.ndarray, truth_B: np.ndarray, classes: int) -> float:
    """How far values and the target's go together one to one, beyond chance; 1: always."""
    if not classes:
        return _equality(quantity_B, truth_B)
    from scipy.optimize import linear_sum_assignment

    code_B, count = _codes(quantity_B)
    present = len(np.unique(code_B))
    if not 2 <= present <= classes + 2:
        return 0.0
    pairs = np.bincount(code_B * classes + truth_B, minlength=count * classes)
    matrix_KC = pairs.reshape(count, classes) / len(truth_B)
    value_K, class_K = linear_sum_assignment(-matrix_KC)
    same = float(matrix_KC[value_K, class_K].sum())
    chance = float((matrix_KC.sum(1)[value_K] * matrix_KC.sum(0)[class_K]).sum())
    if same >= 1 - 1e-12:
        return 1.0
    return max(0.0, (same - chance) / (1 - chance)) if chance < 1 else 0.0


def _equality(quantity_B: np.ndarray, truth_B: np.ndarray) -> float:
    """The share of numbers that are those of the target, or a straight line of them: then 1."""
    if quantity_B.dtype == object or np.ptp(truth_B) == 0:
        return 0.0
    known_B = ~np.isnan(quantity_B)
    if known_B.all() and _correlation(quantity_B, truth_B) > 1 - 1e-9:
        return 1.0
    close_B = np.isclose(quantity_B, truth_B, rtol=1e-3, atol=1e-6 * float(truth_B.std()))
    often = float(np.unique(truth_B, return_counts=True)[1].max() / len(truth_B))
    same = float(np.mean(close_B))
    return min(max(0.0, (same - often) / (1 - often)), 1 - 1e-9)


def _correlation(quantity_B: np.ndarray, truth_B: np.ndarray) -> float:
    if quantity_B.dtype == object:
        return 0.0
    known_B = ~np.isnan(quantity_B)
    x_B, y_B = np.clip(quantity_B[known_B], -1e30, 1e30), truth_B[known_B].astype(np.float64)
    if len(x_B) < LEAST_ROWS or not (x_B.std() > 0 and y_B.std() > 0):
        return 0.0
    x_B, y_B = (x_B - x_B.mean()) / x_B.std(), (y_B - y_B.mean()) / y_B.std()
    return abs(float(np.mean(x_B * y_B)))


def _errors(truth_B: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Squared errors (B): of values, or of all probabilities of a row."""
    off: np.ndarray = predicted - (np.eye(classes)[truth_B] if classes else truth_B)
    errors_B: np.ndarray = off**2
    return errors_B.sum(axis=1) if classes else errors_B


def _r2(truth_B: np.ndarray, predicted_B: np.ndarray) -> float:
    spread = float(np.mean((truth_B - truth_B.mean()) ** 2))
    return 1 - float(np.mean((truth_B - predicted_B) ** 2)) / spread if spread > 0 else 0.0
