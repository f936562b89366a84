"""Signs that a winner is not what its metrics suggest: said when they are there, and only then."""

import numpy as np
import pytest

from eagleray.learn import metrics, schema, tasks

BINARY = schema.Target(name="left", task="binary", classes=("no", "yes"))
MANY = schema.Target(name="kind", task="multiclass", classes=("a", "b", "c"))
VALUE = schema.Target(name="price", task="regression")


def warnings(target: schema.Target, truth: np.ndarray, outputs: np.ndarray) -> list[str]:
    scores = metrics.score(target, truth, outputs)
    return tasks.of(target).evaluate(truth, outputs, scores).warnings


def shares(score_B: np.ndarray) -> np.ndarray:
    """Probabilities of two classes from that of the positive one."""
    return np.stack([1 - score_B, score_B], 1)


def one_hot(label_B: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[label_B] * 0.8 + 0.1


def test_a_positive_class_that_is_never_predicted_is_said_however_well_it_is_ranked() -> None:
    truth = np.array([1] * 6 + [0] * 94)
    ranked = np.where(truth == 1, 0.4, np.linspace(0.05, 0.45, 100))
    (said,) = warnings(BINARY, truth, shares(ranked))
    assert said.startswith("never predicts 'yes' (6 rows) on the test part of 100 rows; train.loss")
    (rare,) = warnings(BINARY, np.array([1, 0, 0, 0]), shares(np.array([0.4, 0.3, 0.2, 0.1])))
    assert rare.startswith("never predicts 'yes' (1 row) on")


def test_a_positive_class_of_which_no_row_is_found_is_said() -> None:
    truth = np.array([1] * 6 + [0] * 94)
    score = np.where(truth == 1, 0.45, np.linspace(0.05, 0.52, 100))
    (said,) = warnings(BINARY, truth, shares(score))
    assert said.startswith("finds none of the 6 rows of 'yes': all 5 alarms are wrong; train.loss")
    assert "decide.maximize: f1 chooses a threshold" in said
    score[0] = 0.6
    assert warnings(BINARY, truth, shares(score)) == []


def test_of_many_classes_the_most_frequent_of_those_never_predicted_are_named() -> None:
    target = schema.Target(name="k", task="multiclass", classes=tuple("abcdefgh"))
    truth = np.repeat(np.arange(8), [40, 5, 6, 7, 8, 9, 4, 40])
    label = np.where(truth == 7, 7, 0)
    (said,) = warnings(target, truth, one_hot(label, 8))
    assert said.startswith("never predicts 'f' (9 rows), 'e' (8 rows), 'd' (7 rows) and 2 more on")
    assert "'g'" not in said


@pytest.mark.parametrize("target", [BINARY, MANY, VALUE], ids=lambda target: target.task)
def test_a_perfect_winner_is_said_to_be_one_and_what_that_mostly_means(
    target: schema.Target,
) -> None:
    truth = np.arange(60) % max(2, len(target.classes))
    outputs = one_hot(truth, len(target.classes)) if target.classes else truth + 1e-4
    (said,) = warnings(target, truth, outputs)
    assert said.startswith("is perfect on the test part: ")
    assert "on 60 rows; on real data this mostly means leakage" in said


def test_a_perfect_ranking_is_as_suspicious_as_perfect_labels() -> None:
    truth = np.arange(60) % 2
    (said,) = warnings(BINARY, truth, shares(np.where(truth == 1, 0.9, np.linspace(0.3, 0.6, 60))))
    assert said.startswith("is perfect on the test part: roc_auc 1 on 60 rows")


@pytest.mark.parametrize(
    "truth",
    [np.arange(29) % 2, np.array([1] * 4 + [0] * 200)],
    ids=["few rows", "nearly all rows of one class"],
)
def test_a_perfect_score_that_may_be_luck_is_no_sign(truth: np.ndarray) -> None:
    assert warnings(BINARY, truth, one_hot(truth, 2)) == []


def test_chance_is_found_in_each_task() -> None:
    random = np.random.default_rng(1)
    two, many = random.integers(0, 2, 400), random.integers(0, 3, 400)
    (said,) = warnings(BINARY, two, shares(random.random(400)))
    assert said.startswith("is no better than chance: roc_auc 0.")
    (said,) = warnings(MANY, many, random.dirichlet([1, 1, 1], 400))
    assert said.startswith("is no better than chance: balanced_accuracy 0.")
    values = random.normal(size=400)
    (said,) = warnings(VALUE, values, np.full(400, values.mean() + 0.1))
    assert said.startswith("is no better than always predicting the mean: on the test part its mae")


def test_a_model_that_always_says_the_same_is_no_better_than_chance() -> None:
    truth = np.array([0] * 40 + [1] * 20 + [2] * 10)
    said = warnings(MANY, truth, one_hot(np.zeros(70, int), 3))
    assert [one.split(" ")[0] for one in said] == ["never", "is"]
    assert "chance gives 0.3333 ± 0.0000" in said[1]


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_has_learned_something_gets_no_warning(seed: int) -> None:
    random = np.random.default_rng(seed)
    two, many = random.integers(0, 2, 200), random.integers(0, 3, 200)
    noise = random.normal(0, 0.25, 200)
    assert warnings(BINARY, two, shares(np.clip(0.5 + (two - 0.5) * 0.5 + noise, 0, 1))) == []
    label = np.where(random.random(200) < 0.7, many, random.integers(0, 3, 200))
    assert warnings(MANY, many, one_hot(label, 3)) == []
    values = random.normal(size=200)
    assert warnings(VALUE, values, values + 4 * noise * 0.5) == []


@pytest.mark.parametrize("seed", range(3))
def test_labels_by_chance_are_called_so_in_nineteen_of_twenty_cases(seed: int) -> None:
    random = np.random.default_rng(seed)
    found = [
        bool(warnings(BINARY, random.integers(0, 2, 60), shares(random.random(60))))
        for _ in range(200)
    ]
    assert 180 <= sum(found) <= 200


def test_a_constant_test_part_and_heavy_tails_say_nothing_of_a_regression() -> None:
    assert warnings(VALUE, np.full(50, 3.0), np.full(50, 3.5)) == []
    values = np.append(np.linspace(-1, 1, 99), 1000.0)
    assert warnings(VALUE, values, np.append(values[:99], -5.0)) == []
