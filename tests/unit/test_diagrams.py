"""What a report draws of predictions, beside scikit-learn's values."""

import numpy as np
import pytest
from sklearn import metrics as sk

from eagleray.learn import schema, tasks
from eagleray.learn.tasks import diagrams
from eagleray.reports import findings
from eagleray.state import evaluations

BINARY = schema.Target(name="left", task="binary", classes=("no", "yes"))
MANY = schema.Target(name="kind", task="multiclass", classes=tuple("abcdefghij"))


def drawn(
    target: schema.Target, truth: np.ndarray, outputs: np.ndarray
) -> dict[str, tasks.Diagram]:
    return {one.name: one for one in tasks.of(target).diagrams(truth, outputs)}


def test_a_roc_curve_has_the_area_that_scikit_learn_counts() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 3000)
    said = (0.3 * truth + random.random(3000)).round(2) / 2
    found = drawn(BINARY, truth, np.stack([1 - said, said], 1))
    roc = found["roc"].lines[0]
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(sk.roc_auc_score(truth, said), abs=2e-3)
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert len(roc.x) <= diagrams.MOST_POINTS + 1
    curve = found["precision_recall"].lines[0]
    assert curve.y[-1] == pytest.approx(truth.mean())


def test_calibration_is_near_the_diagonal_where_probabilities_are_right() -> None:
    random = np.random.default_rng(1)
    said = random.random(20_000)
    truth = (random.random(20_000) < said).astype(int)
    right = drawn(BINARY, truth, np.stack([1 - said, said], 1))["calibration"].lines[0]
    assert len(right.x) == diagrams.BINS
    assert right.low is not None
    assert right.high is not None
    inside = [low <= x <= high for low, x, high in zip(right.low, right.x, right.high, strict=True)]
    assert sum(inside) >= 8
    assert diagrams.calibration_error(diagrams.bins(said, truth == 1)) < 0.02
    assert diagrams.calibration_error(diagrams.bins(said**3, truth == 1)) > 0.2


def test_of_many_classes_the_most_frequent_have_curves() -> None:
    truth = np.repeat(np.arange(10), np.arange(2, 12))
    outputs = np.random.default_rng(2).dirichlet(np.ones(10), len(truth))
    found = drawn(MANY, truth, outputs)
    assert [line.name for line in found["roc"].lines] == list("jihgfed")


def test_of_one_class_there_is_no_curve() -> None:
    assert set(drawn(BINARY, np.zeros(9, int), np.full((9, 2), 0.5))) == {"calibration"}


@pytest.mark.parametrize(
    ("target", "outputs", "says"),
    [
        (BINARY, np.eye(2)[[0, 1, 1, 1]], "finds 100 of 100 rows where left is yes; 67 of 100"),
        (BINARY, np.eye(2)[[0, 0, 0, 0]], "finds none of the rows where left is yes"),
        (MANY, np.eye(10)[[0, 0, 1, 3]], "is right about kind for 75 of 100 rows"),
        (
            schema.Target(name="price", task="regression"),
            np.array([0.5, 0.5, 1.5, 2.0]),
            "is within 0.5 of the true price for half of the rows, within 0.85 for 9 of 10",
        ),
    ],
)
def test_a_sentence_says_what_a_model_can_do(
    target: schema.Target, outputs: np.ndarray, says: str
) -> None:
    truth = np.array([0, 0, 1, 2 if target is MANY else 1])
    assert tasks.of(target).headline(truth, outputs).startswith(says)


def test_a_report_says_the_same_distance_as_its_calibration_curve() -> None:
    random = np.random.default_rng(0)
    said = random.random(500)
    outputs = np.stack([1 - said**3, said**3], 1)
    truth = (random.random(500) < said).astype(int)
    (drawn,) = [
        one
        for one in diagrams.of_classes(("no", "yes"), 1, truth, outputs)
        if one.name == "calibration"
    ]
    error = diagrams.calibration_error(diagrams.bins(outputs[:, 1], truth == 1))
    assert drawn.distance == error
    judged = evaluations.Evaluation(
        target="left",
        metric="accuracy",
        mode="max",
        rows=500,
        metrics={},
        diagrams=[drawn],
    )
    says = [one.message for one in findings.of(judged)]
    assert f"Its probabilities are off by {error:.3f} on average, see Calibration." in says
    assert f"{error:.3f} on average" in drawn.says
