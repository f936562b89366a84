"""Plain models on the same rows as a winner: majority or mean, linear, default boosting.

Legend: B rows.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eagleray.evaluation import intervals
from eagleray.learn import features, metrics, tasks
from eagleray.state.evaluations import Baseline

CONSTANT = "always the same"
MOST_ROWS, MOST_CELLS = 100_000, 5_000_000
"""Maximum number of training rows that baselines are fitted on, and of rows times classes."""


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them, and their targets."""

    inputs: features.Inputs
    target_B: np.ndarray


def most_rows(task: tasks.Task) -> int:
    """How many training rows baselines are fitted on at most."""
    return min(MOST_ROWS, MOST_CELLS // max(1, task.width))


def outputs(
    task: tasks.Task, shape: features.Shape, train: Encoded, test: Encoded
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each baseline's name and its outputs for the test rows."""
    constant = task.constant(train.target_B, len(test.target_B))
    if constant is not None:
        yield CONSTANT, constant
    if len(np.unique(train.target_B)) < 2:
        return
    known, asked = (matrix(one.inputs, shape, len(one.target_B)) for one in (train, test))
    for name, estimator in task.estimators().items():
        with warnings.catch_warnings(action="ignore"):  # of convergence, of names of columns
            yield name, task.estimate(estimator.fit(known, train.target_B), asked)


def judge(
    ours: intervals.Judged, found: Iterator[tuple[str, np.ndarray]], metric: str
) -> Iterator[Baseline]:
    """Yield each baseline with its metrics, and the verdict on ours beside it."""
    sign = 1 if metrics.REGISTRY[metric].mode == "max" else -1
    names = tuple(dict.fromkeys([metric, *tasks.REGISTRY[ours.target.task].telling]))
    for name, plain in found:
        theirs = intervals.Judged(ours.target, ours.truth_B, plain, names)
        yield Baseline(
            name=name,
            metrics=intervals.estimates(theirs),
            verdict=intervals.verdict(ours, theirs, metric),
            beaten=bool(sign * (ours.values[metric] - theirs.values[metric]) > 0),
        )


def matrix(inputs: features.Inputs, shape: features.Shape, rows: int) -> object:
    """All inputs side by side, sparse: categories as one-hot columns, tokens as a bag."""
    from scipy import sparse

    blocks = []
    for name, array in inputs.items():
        if name == "categories":
            blocks.append(_scattered(array, np.ones(array.shape), shape.table))
        elif name == "tokens":
            blocks.append(_scattered(array, inputs["weights"], shape.tokens))
        elif name != "weights":
            blocks.append(sparse.csr_matrix(array.reshape(rows, -1).astype(np.float64)))
    whole = sparse.hstack(blocks).tocsr()
    return whole if shape.tokens or shape.table else whole.toarray()


def _scattered(columns_BT: np.ndarray, values_BT: np.ndarray, width: int) -> object:
    from scipy import sparse

    row = np.repeat(np.arange(len(columns_BT)), columns_BT.shape[1])
    entries = (values_BT.ravel().astype(np.float64), (row, columns_BT.ravel()))
    return sparse.csr_matrix(entries, shape=(len(columns_BT), width))
