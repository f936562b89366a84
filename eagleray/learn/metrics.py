"""Metrics by name, by scikit-learn's definitions; tests compare each with scikit-learn.

A trial computes them after every epoch: scikit-learn's argument checks took a third of a short
trial (0.018 s an epoch on 10 classes; 0.001 s here), and its import a fourth of a worker's start.

A metric is added as a function of `Rows` and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`.

Legend: B rows, C classes, N rows that are not of the class.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from eagleray import plugins
from eagleray.learn import ranks, schema, tasks
from eagleray.learn.tasks.quantiles import pinball


def _most_probable(outputs_BC: np.ndarray) -> np.ndarray:
    label_B: np.ndarray = outputs_BC.argmax(1)
    return label_B


@dataclass(frozen=True)
class Rows:
    """Truth and outputs of B rows, and intermediate results that metrics share.

    Attributes:
        truth_B: class indices, or values in the target's unit.
        outputs: probabilities (B, C), or values (B,).
        positive: index of the positive class; None where there is none.
        decide: gives the predicted classes (B), see `Task.decide`; by default the most probable.
        levels: those of outputs (B, C) that are quantiles.
        classes: the number of the target's classes.
        unit_B: the unit of each row, such as its user, where rows do not count one by one.
    """

    truth_B: np.ndarray
    outputs: np.ndarray
    positive: int | None = None
    decide: Callable[[np.ndarray], np.ndarray] = _most_probable
    levels: tuple[float, ...] = ()
    classes: int = 0
    unit_B: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        target: schema.Target,
        truth_B: np.ndarray,
        outputs: np.ndarray,
        unit_B: np.ndarray | None = None,
    ) -> "Rows":
        """Rows of a target, whose threshold or costs decide."""
        task, classes = tasks.of(target), len(target.classes)
        return cls(truth_B, outputs, task.positive, task.decide, target.quantiles, classes, unit_B)

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By class: rows predicted correctly, rows of the class, and rows predicted as it."""
        classes = self.outputs.shape[1]
        pairs = np.bincount(
            self.truth_B * classes + self.decide(self.outputs), minlength=classes**2
        )
        pairs_CC = pairs.reshape(classes, classes).astype(float)
        return pairs_CC.diagonal(), pairs_CC.sum(1), pairs_CC.sum(0)

    @cached_property
    def ranks(self) -> ranks.Ranks:
        """Of recommended items: the place of each row's item in its list."""
        return ranks.of(self.truth_B, self.outputs, self.unit_B)

    @cached_property
    def error_B(self) -> np.ndarray:
        value_B = self.decide(self.outputs) if self.levels else self.outputs
        error_B: np.ndarray = self.truth_B.astype(float) - value_B.astype(float)
        return error_B

    def mean(self, score_C: np.ndarray) -> float:
        """The score of the positive class, or the mean over classes that occur."""
        if self.positive is not None:
            return float(score_C[self.positive])
        _, truth_C, predicted_C = self.counts
        return float(score_C[truth_C + predicted_C > 0].mean())


@dataclass(frozen=True)
class Metric:
    """A metric of the named `tasks`; `measure` returns NaN where the rows do not define it.

    `by_class` says that its time grows with the number of classes, `selects` that trials may be
    compared by it, `resampled` whether the mean of resamples is that of the rows, so that they give
    an interval, `proportion` that it is one of the rows, which has an interval also at 0 and 1.
    """

    mode: Literal["max", "min"]
    tasks: frozenset[str]
    measure: Callable[[Rows], float]
    by_class: bool = False
    selects: bool = True
    resampled: bool = True
    proportion: bool = False


def score(target: schema.Target, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """The task's metrics by name, except those that these rows do not define; see `Rows`."""
    task, rows = tasks.REGISTRY[target.task], Rows.of(target, truth_B, outputs)
    found = {name: float(REGISTRY[name].measure(rows)) for name in fitting(task)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def tie_breaker(found: Mapping[str, float]) -> float:
    """What decides between equal scores, the lower the better: the log loss, or else the loss."""
    return found.get("log_loss", found.get("loss", math.inf))


def fitting(task: type[tasks.Task]) -> list[str]:
    """Names of the metrics that fit a task."""
    own = [name for name in REGISTRY if task.name in REGISTRY[name].tasks]
    return [*own, *sorted(task.metrics)]


def _accuracy(rows: Rows) -> float:
    return float(rows.counts[0].sum() / len(rows.truth_B))


def _balanced_accuracy(rows: Rows) -> float:
    hit_C, truth_C, _ = rows.counts
    return float((hit_C / np.maximum(truth_C, 1))[truth_C > 0].mean())


def _f1(rows: Rows) -> float:
    hit_C, truth_C, predicted_C = rows.counts
    return rows.mean(2 * hit_C / np.maximum(truth_C + predicted_C, 1))


def _precision(rows: Rows) -> float:
    hit_C, _, predicted_C = rows.counts
    return rows.mean(hit_C / np.maximum(predicted_C, 1))


def _recall(rows: Rows) -> float:
    hit_C, truth_C, _ = rows.counts
    return rows.mean(hit_C / np.maximum(truth_C, 1))


def _log_loss(rows: Rows) -> float:
    true_B = rows.outputs[np.arange(len(rows.truth_B)), rows.truth_B]
    return float(-np.log(true_B.clip(np.finfo(float).eps)).mean()) + 0.0  # never -0.0


def _brier(rows: Rows) -> float:
    """Mean squared error of the positive class's probability, or summed over all classes."""
    if rows.positive is not None:
        is_B = rows.truth_B == rows.positive
        return float(np.mean((rows.outputs[:, rows.positive] - is_B) ** 2))
    true_B = rows.outputs[np.arange(len(rows.truth_B)), rows.truth_B]
    return float(np.mean((rows.outputs**2).sum(1) - 2 * true_B + 1))


def _mcc(rows: Rows) -> float:
    """Matthews' correlation, of several classes as Gorodkin (2004) has it; 0 if one is constant."""
    hit_C, truth_C, predicted_C = rows.counts
    total = len(rows.truth_B)
    spread = [total**2 - float((one**2).sum()) for one in (truth_C, predicted_C)]
    product = spread[0] * spread[1]
    covariance = total * float(hit_C.sum()) - float((truth_C * predicted_C).sum())
    return covariance / float(np.sqrt(product)) if product > 0 else 0.0


def _roc_auc(rows: Rows) -> float:
    """The area of the positive class, or the mean over all classes."""
    if not rows.counts[1].all():
        return np.nan
    classes = range(rows.outputs.shape[1]) if rows.positive is None else [rows.positive]
    return float(np.mean([_area(rows.truth_B == one, rows.outputs[:, one]) for one in classes]))


def _area(is_B: np.ndarray, score_B: np.ndarray) -> float:
    """How often a row of the class outscores one that is not; a tie counts half."""
    other_N, own = np.sort(score_B[~is_B]), score_B[is_B]
    above = np.searchsorted(other_N, own, "left") + np.searchsorted(other_N, own, "right")
    return float(above.mean() / 2 / len(other_N))


def _pr_auc(rows: Rows) -> float:
    """Precision at each threshold, weighted by the recall that the threshold adds."""
    is_B, score_B = rows.truth_B == rows.positive, rows.outputs[:, rows.positive]
    if is_B.all() or not is_B.any():
        return np.nan
    order = np.argsort(-score_B, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score_B[order]) != 0, True))
    hits = np.cumsum(is_B[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


def _r2(rows: Rows) -> float:
    """R²; of a constant truth it is 1 where every value is right, else 0."""
    if len(rows.truth_B) < 2:
        return np.nan
    truth_B = rows.truth_B.astype(float)
    residual, total = np.sum(rows.error_B**2), np.sum((truth_B - truth_B.mean()) ** 2)
    return float(1 - residual / total if total else residual == 0)


def _pinball(rows: Rows) -> float:
    return float(pinball(rows.levels, rows.truth_B, rows.outputs).mean())


def _coverage(rows: Rows) -> float:
    """The share of true values between the lowest and the highest quantile."""
    truth_B = rows.truth_B.astype(float)
    held_B = (rows.outputs[:, 0] <= truth_B) & (truth_B <= rows.outputs[:, -1])
    return float(held_B.mean()) if len(rows.levels) > 1 else np.nan


def _interval_width(rows: Rows) -> float:
    """The mean distance of the lowest from the highest quantile."""
    width = float((rows.outputs[:, -1] - rows.outputs[:, 0]).mean())
    return width if len(rows.levels) > 1 else np.nan


def _listed(rows: Rows) -> float:
    """The share of all items that are in a list."""
    listed = np.unique(ranks.items(rows.outputs))
    return float((listed >= 0).sum() / max(1, rows.classes))


REGISTRY = plugins.Registry(
    "metric",
    {
        "accuracy": Metric("max", tasks.CLASSES, _accuracy, proportion=True),
        "balanced_accuracy": Metric("max", tasks.CLASSES, _balanced_accuracy),
        "f1": Metric("max", tasks.CLASSES, _f1),
        "precision": Metric("max", tasks.CLASSES, _precision),
        "recall": Metric("max", tasks.CLASSES, _recall),
        "roc_auc": Metric("max", tasks.CLASSES, _roc_auc, by_class=True),
        "pr_auc": Metric("max", tasks.BINARY, _pr_auc),
        "log_loss": Metric("min", tasks.CLASSES, _log_loss),
        "brier": Metric("min", tasks.CLASSES, _brier),
        "mcc": Metric("max", tasks.CLASSES, _mcc),
        "rmse": Metric("min", tasks.VALUES, lambda rows: float(np.sqrt(np.mean(rows.error_B**2)))),
        "mae": Metric("min", tasks.VALUES, lambda rows: float(np.abs(rows.error_B).mean())),
        "r2": Metric("max", tasks.VALUES, _r2),
        "pinball": Metric("min", tasks.QUANTILES, _pinball),
        "coverage": Metric("max", tasks.QUANTILES, _coverage, selects=False),
        "interval_width": Metric("min", tasks.QUANTILES, _interval_width, selects=False),
        "ndcg_at_k": Metric("max", tasks.RANKING, lambda rows: rows.ranks.ndcg()),
        "recall_at_k": Metric("max", tasks.RANKING, lambda rows: rows.ranks.recall()),
        "map_at_k": Metric("max", tasks.RANKING, lambda rows: rows.ranks.average_precision()),
        "coverage_at_k": Metric("max", tasks.RANKING, _listed, resampled=False),
    },
)


class _Selecting:
    def __iter__(self) -> Iterator[str]:
        return (name for name in REGISTRY if REGISTRY[name].selects)


SELECTING = _Selecting()
"""Names of the metrics that trials may be compared by, those of packages among them."""
