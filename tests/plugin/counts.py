"""Counts: how often something happens, by Poisson regression with a log link.

The loss and the metric are the Poisson deviance, see McCullagh and Nelder, Generalized Linear
Models, 2nd edition, chapter 2.3.

Legend: B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn import losses, metrics, tasks

if TYPE_CHECKING:
    from torch import Tensor


class Counts(tasks.Regression):
    """A rate for each row; the model gives its logarithm, relative to the mean count."""

    name, loss, metric = "counts", "poisson", "poisson_deviance"
    metrics = frozenset({"mae", "r2"})

    @classmethod
    def fits(cls, column: tasks.TargetColumn) -> bool:
        return column.quantity and column.column.integer and bool((column.array >= 0).all())

    def scale(self, targets_B: np.ndarray) -> tasks.Scale:
        return {"mean": float(targets_B.astype(np.float64).mean())}

    def scaled(self, targets_B: np.ndarray, scale: tasks.Scale) -> np.ndarray:
        relative_B: np.ndarray = targets_B / scale["mean"]
        return relative_B.astype(np.float32)

    def activate(self, raw_BC: np.ndarray, scale: tasks.Scale) -> np.ndarray:
        rate_B: np.ndarray = np.exp(raw_BC[:, 0]) * scale["mean"]
        return rate_B

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        """The rate, and how likely it is that nothing happens."""
        yield from ({"rate": rate, "none": math.exp(-rate)} for rate in outputs.tolist())

    def answer_schema(self) -> dict[str, Any]:
        return {"rate": {"type": "number"}, "none": {"type": "number"}}


def loss(output_B1: Tensor, target_B: Tensor) -> Tensor:
    """Poisson's negative log-likelihood, without what the outputs do not change."""
    log_rate_B = output_B1[:, 0]
    return (log_rate_B.exp() - target_B * log_rate_B).mean()


def deviance(rows: metrics.Rows) -> float:
    """Twice the mean difference of the log-likelihood to that of a perfect model."""
    truth_B, rate_B = rows.truth_B.astype(float), rows.outputs
    positive_B = truth_B > 0
    logs_B = np.zeros_like(truth_B)
    logs_B[positive_B] = truth_B[positive_B] * np.log(truth_B[positive_B] / rate_B[positive_B])
    return float(2 * (logs_B - truth_B + rate_B).mean())


def register() -> None:
    """Add the task, its loss and its metric."""
    own = frozenset({Counts.name})
    tasks.REGISTRY.register(Counts.name, Counts)
    losses.REGISTRY.register("poisson", losses.Loss(own, lambda *_: loss))
    metrics.REGISTRY.register("poisson_deviance", metrics.Metric("min", own, deviance))
