"""A model judged whole: on odd test parts, with planted faults and their healthy twins."""

import numpy as np
import pytest
from scipy import special

from eagleray import evaluation
from eagleray.evaluation import baselines, fit
from eagleray.learn import features, schema, tasks
from eagleray.state import evaluations
from eagleray.state.evaluations import Estimate, Evaluation


def judged(
    target: schema.Target,
    truth: np.ndarray,
    *,
    columns: int = 3,
    skill: float = 2.0,
    noise: float = 0.1,
    test: int,
) -> Evaluation:
    """A model that knows the first column; the first rows are the test part."""
    random = np.random.default_rng(0)
    known = schema.Schema(
        columns=tuple(schema.Column(name=f"c{n}", type="numeric") for n in range(columns)),
        target=target,
    )
    values = {one.name: random.normal(size=len(truth)) for one in known.columns}
    values["c0"] = truth + random.normal(0, noise, len(truth))

    def predict(columns: schema.Columns) -> np.ndarray:
        at = columns["c0"]
        if not target.classes:
            return at
        names = np.arange(len(target.classes))
        return special.softmax(-skill * np.abs(at[:, None] - names), axis=1)

    def encode(columns: schema.Columns) -> features.Inputs:
        return {"numeric": np.stack([*columns.values()], 1).astype(np.float32)}

    def part(rows: slice) -> evaluation.Part:
        taken = {name: array[rows] for name, array in values.items()}
        return evaluation.Part(taken, truth[rows], np.arange(len(truth))[rows] + 1)

    def encode_training(columns: schema.Columns, *_: object) -> features.Inputs:
        return encode(columns)

    shape = features.Shape(numeric=columns)
    model = evaluation.Model(known, shape, encode, encode_training, predict)
    asked = part(slice(test))
    metric = "accuracy" if target.classes else "rmse"
    return evaluation.evaluate(
        model,
        metric,
        test=asked,
        judged=evaluation.Judged(target, asked.truth_B, predict(asked.columns)),
        train=part(slice(test, None)),
        history=[],
    )


def classes(count: int) -> schema.Target:
    task = "binary" if count == 2 else "multiclass"
    return schema.Target(name="kind", task=task, classes=tuple(f"k{n:03}" for n in range(count)))


def test_five_hundred_classes_are_judged_within_bounds() -> None:
    truth = np.tile(np.arange(500), 3)
    found = judged(classes(500), truth, noise=0.4, test=500)
    assert [one.name for one in found.baselines] == ["always the same", "logistic regression"]
    assert found.metrics["roc_auc"].low is None
    assert found.metrics["accuracy"].low is not None
    assert found.confusion is None
    one = evaluation.Judged(classes(500), truth[:500], np.full((500, 500), 1 / 500), ("accuracy",))
    assert len(one.resampled["accuracy"]) == 800
    assert len(evaluations.encode(found)) < 100_000


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_test_part_of_one_class_or_few_rows_is_judged_as_far_as_it_can(count: int) -> None:
    truth = np.concatenate([np.zeros(count, int), np.arange(100) % 2])
    found = judged(classes(2), truth, test=count)
    assert "roc_auc" not in found.metrics
    assert found.metrics["accuracy"].value == 1.0
    assert found.metrics["accuracy"].low == pytest.approx(count / (count + 1.96**2))  # Wilson
    assert all(one.verdict is not None for one in found.baselines)
    assert evaluations.decode(evaluations.encode(found), "here") == found


def test_ten_thousand_columns_are_judged_in_part_and_it_is_said() -> None:
    truth = np.random.default_rng(1).normal(size=160).astype(np.float32)
    found = judged(schema.Target(name="price", task="regression"), truth, columns=10_000, test=60)
    assert found.importance[0].column == "c0"
    assert "importance: the first 60 of 10,000 columns were looked at" in found.notes
    assert len(found.wrong[0].values) == 12


def test_a_training_part_of_one_class_has_the_constant_alone_as_a_baseline() -> None:
    truth = np.concatenate([np.arange(40) % 2, np.zeros(60, int)])
    found = judged(classes(2), truth, test=40)
    assert [one.name for one in found.baselines] == ["always the same"]


def test_wide_rows_are_fitted_on_fewer_and_a_test_part_that_is_too_wide_leaves_them_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = np.arange(300) % 2
    monkeypatch.setattr(baselines, "MOST_INPUTS", 300)
    some = judged(classes(2), truth, columns=3, test=60)
    assert len(some.baselines) == 3
    assert "baselines: fitted on 100 of 240 training rows" in some.notes
    none = judged(classes(2), truth, columns=30, test=60)
    assert [one.name for one in none.baselines] == ["always the same"]
    assert "baselines: left out, 60 test rows of 30 inputs are more than 300" in none.notes


def test_pictures_are_a_matrix_of_their_pixels_beside_the_numbers() -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    inputs = {"numeric": np.ones((2, 1), np.float32), "image": image}
    found = baselines.matrix(inputs, features.Shape(numeric=1, image=(3, 2, 2)), 2)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [[1.0, *range(12)], [1.0, *range(12, 24)]]


class Failing:
    """An estimator of a package that raises what it likes."""

    def fit(self, *_: object) -> None:
        raise RuntimeError("no room on the device")


def test_an_estimator_that_fails_is_noted_and_those_after_it_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    binary = tasks.REGISTRY["binary"]
    plain = binary.estimators
    monkeypatch.setattr(binary, "estimators", lambda task: {"own": Failing(), **plain(task)})
    found = judged(classes(2), np.arange(200) % 2, test=60)
    names = [one.name for one in found.baselines]
    assert names == ["always the same", "logistic regression", "boosting"]
    assert "baselines: own could not be fitted: no room on the device" in found.notes


def test_a_winner_that_beats_no_baseline_says_so() -> None:
    truth = np.arange(600) % 2
    weak = judged(classes(2), truth, skill=-1.0, test=300)
    said = list(evaluation.unbeaten(weak))
    assert len(said) == 3
    assert said[0].startswith("is worse than a baseline, always the same: accuracy 0.0000 against")
    (first, *_) = evaluation.unbeaten(judged(classes(2), truth, skill=2.0, test=300))
    assert first.startswith("is not better beyond noise than a baseline, logistic regression")


RISING = [{"loss": 1.0 + abs(epoch - 4) / 10} for epoch in range(12)]
FALLING = [{"loss": 2.0 - epoch / 10} for epoch in range(12)]
SETTLED = [{"loss": max(1.0, 1.5 - epoch / 10)} for epoch in range(12)]
TEST = Estimate(value=0.8, low=0.75, high=0.85)


@pytest.mark.parametrize(
    ("train", "history", "sign"),
    [
        (0.99, RISING, "over-fit"),
        (0.82, RISING, "none"),
        (0.99, SETTLED, "none"),
        (0.81, FALLING, "under-fit"),
        (0.81, SETTLED, "none"),
        (0.99, RISING[:5], "none"),
    ],
)
def test_over_and_under_fitting_are_told_from_their_healthy_twins(
    train: float, history: list[dict[str, float]], sign: str
) -> None:
    found = fit.judge("accuracy", {"accuracy": train}, 100, TEST, history)
    assert found.sign == sign
    assert f"accuracy is {train:.4g} on training rows" in found.says
    assert "train." not in found.says, "a key that some models refuse"


@pytest.mark.parametrize(
    ("train", "outcome", "sign"),
    [(0.81, "worse", "under-fit"), (0.97, "worse", "none"), (0.81, "no difference", "none")],
)
def test_a_model_that_is_worse_on_its_own_rows_than_a_baseline_on_others_is_under_fit(
    train: float, outcome: str, sign: str
) -> None:
    gap = Estimate(value=-0.1, low=-0.2, high=-0.05)
    verdict = evaluations.Verdict.model_validate(
        {"outcome": outcome, "metric": "accuracy", "difference": gap}
    )
    known = {"accuracy": Estimate(value=0.9)}
    plain = [evaluations.Baseline(name="boosting", metrics=known, verdict=verdict)]
    found = fit.judge("accuracy", {"accuracy": train}, 100, TEST, SETTLED, plain)
    assert found.sign == sign
    assert (fit.TOO_WEAK in found.says) is (sign != "none")


def test_of_a_metric_that_is_not_defined_nothing_is_said() -> None:
    assert fit.judge("roc_auc", {}, 9, None, RISING).sign == "none"


def test_a_model_that_knows_its_training_rows_by_heart_is_not_said_to_fit_new_ones_as_well() -> (
    None
):
    (apart, near) = (
        fit.judge("accuracy", {"accuracy": train}, 100, TEST, SETTLED) for train in (0.99, 0.81)
    )
    assert "knows its training rows better than new ones, but the validation loss" in apart.says
    assert "neither over- nor under-fitting" in near.says
