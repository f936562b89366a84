"""Metrics of each task."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from eagleray.learn import metrics, schema, tasks

BINARY = schema.Target(name="y", task="binary", classes=("no", "yes"))
THREE = schema.Target(name="y", task="multiclass", classes=("a", "b", "c"))
NUMBER = schema.Target(name="y", task="regression")
QUANTILES = schema.Target(name="y", task="quantiles", quantiles=(0.1, 0.5, 0.9))


@pytest.mark.parametrize("target", [BINARY, THREE, NUMBER, QUANTILES])
def test_a_task_has_the_metrics_that_the_experiment_file_knows_for_it(
    target: schema.Target,
) -> None:
    rows = np.arange(12) % max(2, len(target.classes))
    classes = len(target.classes)
    outputs = np.full((12, classes), 1 / classes) if classes else rows + 0.5
    if target.quantiles:
        outputs = np.stack([rows - 1.0, rows, rows + 1.0], 1)
    known = metrics.fitting(tasks.REGISTRY[target.task])
    assert list(metrics.score(target, rows, outputs)) == known


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


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_metrics_of_classes_are_those_of_scikit_learn(classes: int, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, rows)
    scores = random.random((rows, classes)).round(1) + 0.01  # rounded: ties in the ranks
    outputs = scores / scores.sum(1, keepdims=True)
    names = ("no", "yes") if classes == 2 else tuple("abcde"[:classes])
    task = "binary" if classes == 2 else "multiclass"
    found = metrics.score(schema.Target(name="y", task=task, classes=names), truth, outputs)
    assert found == pytest.approx(_by_scikit_learn(truth, outputs))


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_metrics_of_a_regression_are_those_of_scikit_learn(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, values = random.integers(0, 3, rows).astype(float), random.normal(size=rows)
    assert metrics.score(NUMBER, truth, values) == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(truth, values),
            "mae": sk.mean_absolute_error(truth, values),
            "r2": sk.r2_score(truth, values),
        }
    )


def _by_scikit_learn(truth: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    said, labels = outputs.argmax(1), np.arange(outputs.shape[1])
    binary = len(labels) == 2
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, said, average="binary" if binary else "macro", zero_division=0.0
    )
    present = np.unique(truth)
    known = {
        "accuracy": sk.accuracy_score(truth, said),
        "balanced_accuracy": sk.recall_score(truth, said, labels=present, average="macro"),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "log_loss": sk.log_loss(truth, outputs, labels=labels),
        "brier": sk.brier_score_loss(truth, outputs[:, 1], pos_label=1)
        if binary
        else sk.brier_score_loss(truth, outputs, labels=labels),
        "mcc": sk.matthews_corrcoef(truth, said) if len({*truth, *said}) > 1 else 0.0,
    }
    if len(present) == len(labels):
        onehot, scores = truth[:, None] == labels, outputs
        if binary:
            onehot, scores = truth, outputs[:, 1]
            known["pr_auc"] = sk.average_precision_score(truth, scores)
        known["roc_auc"] = sk.roc_auc_score(onehot, scores, average="macro")
    return known
