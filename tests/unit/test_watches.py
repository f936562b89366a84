"""What is watched of a training: layers by hand, dead units, losses of batches, and the table."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from eagleray import errors
from eagleray.state import watches as table
from ray_jobs import watches


def same(value: Tensor) -> Tensor:
    """The sum over the one worker that there is."""
    return value


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 2))


def of_one(tensors: list[Tensor]) -> list[Tensor]:
    return [one.detach().clone()[None] for one in tensors]


def test_a_layer_has_the_norms_that_numpy_gives_and_its_weights_in_bins() -> None:
    model = network()
    weights = list(model.parameters())
    model(torch.randn(8, 3)).square().sum().backward()
    grads = [one.grad for one in weights if one.grad is not None]
    before = of_one(weights)
    watch = watches.Layers(model, same)
    begun = watch.begin(of_one(grads), before)
    torch.optim.SGD(weights, lr=0.01).step()
    first, last = watch.end(begun, of_one(weights))[0]
    assert (first.layer, last.layer) == ("0", "3")
    expected = math.hypot(float(grads[2].norm()), float(grads[3].norm()))
    assert last.gradient == pytest.approx(expected, rel=1e-5)
    after = [float(one.detach().norm()) for one in weights]
    assert last.weight == pytest.approx(math.hypot(*after[2:]), rel=1e-5)
    step = (weights[0] - before[0][0]).detach()
    assert first.update == pytest.approx(float(step.norm() / before[0].norm()), rel=1e-4)
    edges = [0.0, *table.edges(), math.inf]
    for found, values in (
        (first.weights, before[0].abs()),
        (first.updates, (step / before[0]).abs()),
    ):
        counts = [
            int(((values >= low) & (values < high)).sum())
            for low, high in itertools.pairwise(edges)
        ]
        assert found == counts
        assert sum(found) == 12


def test_weights_and_gradients_that_are_not_finite_are_measured_all_the_same() -> None:
    model = network()
    weights = list(model.parameters())
    watch = watches.Layers(model, same)
    broken = of_one(weights)
    broken[0][0, 0, 0], broken[0][0, 0, 1] = math.nan, 0.0
    begun = watch.begin([None, *of_one(weights)[1:]], broken)
    first, last = watch.end(begun, broken)[0]
    assert math.isnan(first.weight)
    assert (sum(first.weights), first.weights[-1], first.weights[0]) == (12, 1, 1)
    assert last.gradient > 0


def test_of_many_layers_some_are_measured_the_first_and_the_last_among_them() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    weights = of_one(list(model.parameters()))
    watch = watches.Layers(model, same)
    rows = watch.end(watch.begin([None] * 200, weights), weights)[0]
    assert len(rows) == watches.MOST_LAYERS
    assert (rows[0].layer, rows[-1].layer) == ("0", "99")


def test_a_layer_that_is_frozen_is_not_measured() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert list(watches.layers(model)) == ["3"]


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
def test_units_that_give_no_row_anything_are_dead(shape: tuple[int, ...]) -> None:
    model = network()
    with torch.no_grad():
        model[0].bias[:3] = -1e6
    with watches.Firing(model) as firing:
        model(torch.randn(shape))
    assert watches.dead(firing.take(), same) == {"0": 0.75}
    model(torch.randn(shape))
    assert firing.take() == {}, "its block has ended"


def test_a_unit_of_pictures_is_a_channel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    with watches.Firing(model) as firing:
        model(torch.randn(2, 1, 5, 5))
    assert watches.dead(firing.take(), same) == {"0": 0.5}


@pytest.mark.parametrize("epochs", [1, 5, 32, 33, 64, 1000])
def test_a_trial_is_watched_in_its_first_and_last_epoch_and_in_few_between(epochs: int) -> None:
    due = [epoch for epoch in range(1, epochs + 1) if watches.is_due(epoch, epochs, 64)]
    assert (due[0], due[-1]) == (1, epochs)
    assert min(epochs, watches.MOST_EPOCHS) // 2 <= len(due) <= watches.MOST_EPOCHS + 2


def test_epochs_of_few_steps_are_watched_rarely() -> None:
    assert [epoch for epoch in range(1, 21) if watches.is_due(epoch, 20, 11)] == [1, 6, 12, 18, 20]
    assert [epoch for epoch in range(1, 21) if watches.is_due(epoch, 20, 1)] == [1, 20]


@pytest.mark.parametrize("interrupted", [None, 1, 3, 5])
def test_the_largest_loss_of_a_batch_and_the_first_that_breaks_are_found(
    monkeypatch: pytest.MonkeyPatch, interrupted: int | None
) -> None:
    monkeypatch.setattr(watches, "FOLD", 2)
    sums = [4.0, 8.0, 3.0, math.inf, 2.0, math.nan]
    seen = watches.Losses(same)
    for place, value in enumerate(sums):
        if place == interrupted:
            peaks, broken = seen.found()
            seen = watches.Losses(same, place, peaks, broken)
        seen.add(torch.tensor(value), 2)
    assert seen.found() == ([4.0], [4])


def test_losses_of_several_configurations_are_each_its_own() -> None:
    seen = watches.Losses(same)
    seen.add(torch.tensor([2.0, math.nan]), 2)
    seen.add(torch.tensor([6.0, math.nan]), 2)
    assert seen.found() == ([3.0, None], [None, 1])


ROW = table.Row(3, "head.0", math.inf, 2.0, 0.5, None, [1, 2], [3])


def test_rows_are_read_back_as_they_were() -> None:
    rows = [ROW, ROW._replace(dead=0.25, gradient=math.nan)]
    read = table.decode(table.encode(rows), "here")
    assert read[0] == ROW
    assert math.isnan(read[1].gradient)
    assert read[1]._replace(gradient=0.0) == rows[1]._replace(gradient=0.0)
    assert table.decode(table.encode([]), "here") == []


def test_a_table_that_is_damaged_is_named() -> None:
    for data in (b"", b"PAR1", table.encode([ROW])[:-9]):
        with pytest.raises(errors.CorruptObjectError, match=r"^here: must be a table of epoch, "):
            table.decode(data, "here")
