"""Plain models on the same rows as a winner: majority or mean, linear, default boosting.

Legend: B rows.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from eagleray.evaluation import intervals
from eagleray.learn import features, metrics, tasks
from eagleray.state.evaluations import Baseline

CONSTANT = "always the same"
MOST_ROWS, MOST_CELLS = 100_000, 5_000_000
"""Maximum number of training rows that baselines are fitted on, and of rows times classes."""
MOST_INPUTS = 20_000_000
"""Maximum number of rows times inputs, of the training and of the test part: 160 MB each."""

Made = Callable[[], np.ndarray]
"""Fits a baseline and returns its outputs for the test rows; its library may raise anything."""


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them, and their targets."""

    inputs: features.Inputs
    target_B: np.ndarray


def most_rows(task: tasks.Task, inputs: float) -> int:
    """How many training rows of so many inputs baselines are fitted on at most."""
    return min(MOST_ROWS, MOST_CELLS // max(1, task.width), int(MOST_INPUTS / max(1, inputs)))


def constant(task: tasks.Task, target_B: np.ndarray, rows: int) -> Iterator[tuple[str, Made]]:
    """Yield the baseline that takes no inputs, if the task has one, for so many test rows."""
    outputs = task.constant(target_B, rows)
    if outputs is not None:
        yield CONSTANT, lambda: outputs


def fitted(
    task: tasks.Task, shape: features.Shape, train: Encoded, test: Encoded
) -> Iterator[tuple[str, Made]]:
    """Yield each baseline that learns from the training rows."""
    if len(np.unique(train.target_B)) < 2:
        return
    known, asked = (matrix(one.inputs, shape, len(one.target_B)) for one in (train, test))
    for name, estimator in task.estimators().items():
        yield name, partial(_fit, task, estimator, known, train.target_B, asked)


def judge(ours: intervals.Judged, name: str, outputs: np.ndarray, metric: str) -> Baseline:
    """A baseline with its metrics, and the verdict on ours beside it."""
    sign = 1 if metrics.REGISTRY[metric].mode == "max" else -1
    names = tuple(dict.fromkeys([metric, *tasks.REGISTRY[ours.target.task].telling]))
    theirs = ours.beside(outputs, names=names)
    return Baseline(
        name=name,
        metrics=intervals.estimates(theirs),
        verdict=intervals.verdict(ours, theirs, metric),
        beaten=bool(sign * (ours.values[metric] - theirs.values[metric]) > 0),
    )


def matrix(inputs: features.Inputs, shape: features.Shape, rows: int) -> object:
    """All inputs side by side; with categories (one-hot) or tokens (a bag) sparse."""
    from scipy import sparse

    if not (shape.tokens or shape.table):
        arrays = [array.reshape(rows, -1) for array in inputs.values()]
        return np.concatenate(arrays, axis=1, dtype=np.float64)
    blocks = []
    for name, array in inputs.items():
        if name == "categories":
            blocks.append(_scattered(array, np.ones(array.shape), shape.table))
        elif name == "tokens":
            blocks.append(_scattered(array, inputs["weights"], shape.tokens))
        elif name != "weights":
            blocks.append(sparse.csr_matrix(array.reshape(rows, -1).astype(np.float64)))
    return sparse.hstack(blocks).tocsr()


def _fit(
    task: tasks.Task, estimator: Any, known: object, target_B: np.ndarray, asked: object
) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"):  # of convergence, of names of columns
        return task.estimate(estimator.fit(known, target_B), asked)


def _scattered(columns_BT: np.ndarray, values_BT: np.ndarray, width: int) -> object:
    from scipy import sparse

    row = np.repeat(np.arange(len(columns_BT)), columns_BT.shape[1])
    entries = (values_BT.ravel().astype(np.float64), (row, columns_BT.ravel()))
    return sparse.csr_matrix(entries, shape=(len(columns_BT), width))
