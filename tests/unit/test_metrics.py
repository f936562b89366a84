"""Metrics of each task."""

from __future__ import annotations

import numpy as np
import pytest

from eagleray import schema, spec
from ray_jobs.evaluation import metrics

BINARY = schema.Target(name="y", task="binary", classes=("no", "yes"))
THREE = schema.Target(name="y", task="multiclass", classes=("a", "b", "c"))
NUMBER = schema.Target(name="y", task="regression")


@pytest.mark.parametrize("target", [BINARY, THREE, NUMBER])
def test_a_task_has_the_metrics_that_the_experiment_file_knows_for_it(
    target: schema.Target,
) -> None:
    rows = np.arange(12) % max(2, len(target.classes))
    classes = len(target.classes)
    outputs = np.full((12, classes), 1 / classes) if classes else rows + 0.5
    known = {name for name, metric in spec.METRICS.items() if target.task in metric.tasks}
    assert metrics.score(target, rows, outputs).keys() == known


def test_the_last_class_is_the_positive_one() -> None:
    truth = np.array([0, 0, 0, 1])
    sure_of_yes = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    found = metrics.score(BINARY, truth, sure_of_yes)
    assert found["precision"] == 0.5
    assert found["recall"] == 1.0
    assert found["roc_auc"] == pytest.approx(5 / 6)


def test_what_one_class_alone_does_not_define_is_left_out() -> None:
    found = metrics.score(BINARY, np.zeros(3, np.int64), np.full((3, 2), 0.5))
    assert "roc_auc" not in found
    assert found["accuracy"] == 1.0


def test_a_perfect_regression_has_no_error_and_r2_of_one() -> None:
    truth = np.array([1.0, 2.0, 4.0])
    assert metrics.score(NUMBER, truth, truth) == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}
