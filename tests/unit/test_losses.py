"""Losses by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eagleray import errors, spec
from eagleray.learn import losses

TARGETS = np.array([0, 0, 0, 1])


def test_auto_is_cross_entropy_for_classes_and_squared_error_for_values() -> None:
    logits, target = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    assert float(losses.build(spec.Train(), TARGETS, 2)(logits, target)) == pytest.approx(
        math.log(2)
    )
    value, truth = torch.tensor([[1.0]]), torch.tensor([3.0])
    assert float(losses.build(spec.Train(), TARGETS, 1)(value, truth)) == pytest.approx(4.0)


def test_the_focal_loss_counts_a_sure_row_less_than_cross_entropy_does() -> None:
    sure, target = torch.tensor([[0.0, 3.0]]), torch.tensor([1])
    plain = losses.build(spec.Train(loss="cross_entropy"), TARGETS, 2)(sure, target)
    focal = losses.build(spec.Train(loss="focal"), TARGETS, 2)(sure, target)
    missed = 1 - 1 / (1 + math.exp(-3.0))
    assert float(focal) == pytest.approx(float(plain) * missed**2, rel=1e-4)


def test_class_weights_make_both_classes_weigh_the_same_in_all() -> None:
    loss = losses.build(spec.Train(loss="weighted_cross_entropy"), TARGETS, 2)
    logits = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    wrong_rare = loss(torch.tensor([[1.0, 0.0]] * 4), torch.from_numpy(TARGETS))
    wrong_common = loss(torch.tensor([[0.0, 1.0]] * 4), torch.from_numpy(TARGETS))
    assert float(wrong_rare) == pytest.approx(float(wrong_common))
    assert float(loss(logits, torch.from_numpy(TARGETS))) < float(wrong_rare)


@pytest.mark.parametrize(("name", "outputs"), [("mse", 3), ("huber", 2), ("focal", 1)])
def test_a_loss_of_another_task_is_refused(name: str, outputs: int) -> None:
    with pytest.raises(errors.UserError, match=f"must fit .*, but got {name}"):
        losses.build(spec.Train(loss=name), TARGETS, outputs)
