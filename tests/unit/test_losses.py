"""Losses by name."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from eagleray import errors, spec
from eagleray.learn import losses, schema, tasks

TARGETS = np.array([0, 0, 0, 1])
CLASSES = schema.Target(name="y", task="binary", classes=("no", "yes"))
VALUE = schema.Target(name="y", task="regression")
ITEMS = schema.Target(name="y", task="ranking", classes=tuple("abcde"), user="who")


def test_auto_is_cross_entropy_for_classes_and_squared_error_for_values() -> None:
    logits, target = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    assert float(losses.build(spec.Train(), CLASSES, TARGETS)(logits, target)) == pytest.approx(
        math.log(2)
    )
    value, truth = torch.tensor([[1.0]]), torch.tensor([3.0])
    assert float(losses.build(spec.Train(), VALUE, TARGETS)(value, truth)) == pytest.approx(4.0)


def test_mae_is_the_mean_distance_that_scikit_learn_has() -> None:
    random = np.random.default_rng(0)
    value, truth = random.normal(size=(2, 50)).astype(np.float32)
    loss = losses.build(spec.Train(loss="mae"), VALUE, truth)
    found = loss(torch.from_numpy(value)[:, None], torch.from_numpy(truth))
    assert float(found) == pytest.approx(metrics.mean_absolute_error(truth, value))
    assert losses.REGISTRY["mae"].objectives(tasks.of(VALUE)) == [{"objective": "l1"}]


def test_the_focal_loss_counts_a_sure_row_less_than_cross_entropy_does() -> None:
    sure, target = torch.tensor([[0.0, 3.0]]), torch.tensor([1])
    plain = losses.build(spec.Train(loss="cross_entropy"), CLASSES, TARGETS)(sure, target)
    focal = losses.build(spec.Train(loss="focal"), CLASSES, TARGETS)(sure, target)
    missed = 1 - 1 / (1 + math.exp(-3.0))
    assert float(focal) == pytest.approx(float(plain) * missed**2, rel=1e-4)


def test_class_weights_make_both_classes_weigh_the_same_in_all() -> None:
    loss = losses.build(spec.Train(loss="weighted_cross_entropy"), CLASSES, TARGETS)
    logits = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    wrong_rare = loss(torch.tensor([[1.0, 0.0]] * 4), torch.from_numpy(TARGETS))
    wrong_common = loss(torch.tensor([[0.0, 1.0]] * 4), torch.from_numpy(TARGETS))
    assert float(wrong_rare) == pytest.approx(float(wrong_common))
    assert float(loss(logits, torch.from_numpy(TARGETS))) < float(wrong_rare)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 5.0])
def test_gamma_says_how_much_less_a_sure_row_counts(gamma: float) -> None:
    logits, target = torch.tensor([[0.0, 3.0], [1.0, 0.0]]), torch.tensor([1, 1])
    found = losses.build(spec.Train(loss="focal", focal_gamma=gamma), CLASSES, TARGETS)
    p = logits.softmax(1)[:, 1]
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    assert float(found(logits, target)) == pytest.approx(float(expected))


@pytest.mark.parametrize("loss", ["auto", "cross_entropy", "weighted_cross_entropy", "focal"])
def test_weights_of_the_file_are_a_weighted_mean_of_rows(loss: str) -> None:
    weights = {"yes": 9.0}
    train = spec.Train(loss=loss, class_weights=weights, focal_gamma=0.0)
    logits, target = torch.tensor([[0.5, -1.0], [1.0, 2.0], [0.0, 3.0]]), torch.tensor([0, 1, 0])
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    weight = torch.tensor([1.0, 9.0, 1.0])
    expected = (each * weight).sum() / weight.sum()
    found = losses.build(train, CLASSES, TARGETS)
    assert float(found(logits, target)) == pytest.approx(float(expected))


def test_balanced_weights_are_those_of_scikit_learn_and_of_the_weighted_loss() -> None:
    task, expected = (
        tasks.of(CLASSES),
        compute_class_weight("balanced", classes=np.array([0, 1]), y=TARGETS),
    )
    for train in (spec.Train(class_weights="balanced"), spec.Train(loss="weighted_cross_entropy")):
        found = losses.class_weights(train, TARGETS, task)
        np.testing.assert_allclose(found, expected)
    assert losses.class_weights(spec.Train(), TARGETS, task) is None
    assert losses.build_stacked(spec.Train(class_weights="balanced"), CLASSES) is None


@pytest.mark.parametrize(
    ("name", "target"), [("mse", CLASSES), ("huber", CLASSES), ("focal", VALUE)]
)
def test_a_loss_of_another_task_is_refused(name: str, target: schema.Target) -> None:
    with pytest.raises(errors.UserError, match=f"must fit .*, but got {name}"):
        losses.build(spec.Train(loss=name), target, TARGETS)


def test_the_softmax_of_an_item_among_all_others_is_cross_entropy() -> None:
    scores, own = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5
    first = scores.gather(1, own[:, None])
    drawn = scores.masked_fill(torch.arange(5) == own[:, None], -1e9)
    loss = losses.build(spec.Train(), ITEMS, TARGETS)
    found = loss(torch.cat([first, drawn], 1), own)
    assert float(found) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, own)))


def test_a_drawn_item_stands_for_as_many_as_there_are_for_each_drawn_one() -> None:
    loss = losses.build(spec.Train(), ITEMS, TARGETS)
    found = loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert float(found) == pytest.approx(math.log(5), rel=1e-6), "chance among 5 items, 2 drawn"


def test_bpr_is_the_chance_that_an_item_stands_before_another() -> None:
    loss = losses.build(spec.Train(loss="bpr"), ITEMS, TARGETS)
    found = loss(torch.tensor([[2.0, 0.5, -1e9]]), torch.zeros(1, dtype=torch.long))
    assert float(found) == pytest.approx(math.log(1 + math.exp(-1.5)) / 2)
