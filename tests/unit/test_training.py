"""The training loop, on data small enough to train in milliseconds."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eagleray import errors, spec
from ray_jobs import snapshots, training
from ray_jobs.data import encoded, prepare

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "one_cycle", "linear")


def experiment(folder: Path, **overrides: str) -> spec.Experiment:
    file = folder / "wine.yaml"
    file.write_text(
        "name: wine\ndata: {source: 'dataset:wine', target: target}\n"
        "model: {type: mlp, hidden: [16]}\ntrain: {epochs: 6, batch_size: 32}\n"
        "tune: {trials: 1, scheduler: none}\nstorage: file:///tmp/unused\n"
    )
    return spec.load(file, overrides)


def encode(chosen: spec.Experiment) -> encoded.Encoded:
    dataset = prepare.dataset(chosen)
    return dataset.encode(dataset.fit(chosen.default().features))


def trainer(folder: Path, **overrides: str) -> training.Trainer:
    chosen = experiment(folder, **overrides)
    configuration = chosen.default()
    return training.Trainer(configuration, encode(chosen), metric="log_loss")


def finish(running: training.Trainer) -> training.Trainer:
    while not running.finished:
        running.epoch()
    return running


def weights(running: training.Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in running.model.state_dict().items()}


def without_seconds(running: training.Trainer) -> list[dict[str, float]]:
    return [
        {name: value for name, value in epoch.items() if name != "seconds"}
        for epoch in running.progress.history
    ]


@pytest.mark.parametrize("batches", [0, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_training_resumed_equals_one_that_was_not_interrupted_to_the_bit(
    tmp_path: Path, optimizer: str, schedule: str, batches: int
) -> None:
    """After whole epochs, and after some batches of the third, of which there are four."""
    options = {"train.optimizer": optimizer, "train.schedule": schedule, "model.dropout": "0.3"}
    whole = finish(trainer(tmp_path, **options))
    first = trainer(tmp_path, **options)
    first.epoch()
    first.epoch()
    stops = iter([False] * (batches - 1) + [True])
    assert not batches or first.epoch(lambda: next(stops)) is None
    assert first.partial.batches == batches
    second = trainer(tmp_path, **options)
    torch.manual_seed(99)  # as another process has drawn other numbers
    copy(first, second, tmp_path)
    for resumed in (first, second):
        torch.manual_seed(98)
        finish(resumed)
        assert without_seconds(resumed) == without_seconds(whole)
        assert equal(resumed.model.state_dict(), whole.model.state_dict())
        assert equal(resumed.best_weights, whole.best_weights)


def snapshot(running: training.Trainer, owner: str = "test/1") -> snapshots.Snapshot:
    taken = snapshots.take(running, owner)
    assert taken is not None  # as in the leading worker
    return taken


def keep(running: training.Trainer, folder: Path) -> None:
    """Write the files of a snapshot; of a group, each worker's in a folder of its own."""
    taken, own = snapshots.take(running, "test/1"), folder / str(running.strategy.rank)
    if taken is not None:
        own.mkdir(parents=True, exist_ok=True)
        for name in snapshots.FILES:
            (own / name).write_bytes(taken.stream(name).read())


def load(running: training.Trainer, folder: Path) -> None:
    """Restore what `keep` has written."""
    count = len(list(folder.iterdir()))
    parts = [folder / str(number) for number in snapshots.needed_parts(running, count)]
    snapshots.restore(running, [{name: one / name for name in snapshots.FILES} for one in parts])


def copy(first: training.Trainer, second: training.Trainer, folder: Path) -> None:
    """Restore a training from another's snapshot."""
    keep(first, folder / "kept")
    load(second, folder / "kept")


def equal(ones: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    same = (torch.equal(value, others[name]) for name, value in ones.items())
    return ones.keys() == others.keys() and all(same)


def test_a_snapshot_stays_as_it_is_while_training_goes_on(tmp_path: Path) -> None:
    running = trainer(tmp_path)
    running.epoch()
    taken = snapshot(running)
    before = [taken.stream(name).read() for name in snapshots.FILES]
    finish(running)
    assert [taken.stream(name).read() for name in snapshots.FILES] == before


def test_weights_of_the_best_epoch_are_one_file_for_several_snapshots_of_one_owner(
    tmp_path: Path,
) -> None:
    running = trainer(tmp_path)
    running.epoch()
    at_best = snapshot(running)
    running.epoch(lambda: True)
    after = snapshot(running)
    best = at_best.stream(snapshots.BEST).read()
    assert at_best.stream(snapshots.MODEL).read() == best == after.stream(snapshots.BEST).read()
    assert after.stream(snapshots.MODEL).read() != best
    assert snapshot(running, "test/2").stream(snapshots.BEST).read() != best


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_state_goes_on_at_the_rates_of_the_trainer_that_loads_it(
    tmp_path: Path, schedule: str
) -> None:
    def begun(rate: float) -> training.Trainer:
        options = {"train.lr": str(rate), "train.weight_decay": str(rate)}
        return trainer(tmp_path, **options, **{"train.schedule": schedule})

    source, alone, clone = begun(0.01), begun(0.03), begun(0.03)
    for _ in range(2):
        source.epoch()
        alone.epoch()
    copy(source, clone, tmp_path / "files")
    assert torch.equal(next(clone.model.parameters()), next(source.model.parameters()))
    for _ in range(2):
        ours, theirs = (one.optimizer.param_groups[0] for one in (clone, alone))
        assert ours["lr"] == pytest.approx(theirs["lr"])
        assert ours["weight_decay"] == theirs["weight_decay"] == 0.03
        clone.epoch()
        alone.epoch()


def test_the_same_seed_gives_the_same_training_and_another_one_does_not(tmp_path: Path) -> None:
    one, same = finish(trainer(tmp_path)), finish(trainer(tmp_path))
    other = finish(trainer(tmp_path, **{"train.seed": "1"}))
    assert without_seconds(one) == without_seconds(same)
    assert without_seconds(one) != without_seconds(other)


def test_the_best_epoch_is_kept_not_the_last(tmp_path: Path) -> None:
    done = finish(trainer(tmp_path, **{"train.epochs": "30", "train.lr": "0.1"}))
    losses = [epoch["log_loss"] for epoch in done.progress.history]
    assert done.progress.best["log_loss"] == min(losses)
    assert done.progress.best_epoch == losses.index(min(losses)) + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_an_epoch_is_that_of_the_validation_part(
    tmp_path: Path, weighted: bool
) -> None:
    options = {"train.label_smoothing": "0.1"} if weighted else {}
    found = trainer(tmp_path, **options).epoch() or {}
    assert found["train_loss"] != found["loss"]
    assert (found["loss"] == pytest.approx(found["log_loss"], rel=1e-5)) is not weighted


def test_early_stopping_ends_after_as_many_epochs_without_gain_as_its_patience(
    tmp_path: Path,
) -> None:
    stopping = {"train.epochs": "200", "train.lr": "0.1", "train.early_stopping": "{patience: 3}"}
    done = finish(trainer(tmp_path, **stopping))
    assert done.progress.epoch < 200
    assert done.progress.epoch - done.progress.best_epoch == 3


def test_a_loss_that_is_no_number_names_its_epoch(tmp_path: Path) -> None:
    doomed = trainer(tmp_path, **{"train.lr": "1.0e+30", "train.optimizer": "sgd"})
    with pytest.raises(errors.TrainingError, match=r"must be finite, .* in epoch \d"):
        finish(doomed)


def test_clipping_bounds_the_step_of_plain_gradient_descent(tmp_path: Path) -> None:
    options = {"train.optimizer": "sgd", "train.momentum": "0.0", "train.lr": "1.0"}
    clipped = trainer(tmp_path, **options, **{"train.clip_norm": "1.0e-3", "train.epochs": "1"})
    before = weights(clipped)
    clipped.epoch()
    moved = sum(float((value - before[name]).norm()) for name, value in weights(clipped).items())
    assert 0 < moved < 1.0e-3 * 4 * 10


def test_shared_arrays_are_read_where_they_lie(tmp_path: Path) -> None:
    """Trials get their data from the object store, read-only and without a copy."""
    chosen = experiment(tmp_path)
    data = encode(chosen)
    locked = dataclasses.replace(
        data, train=_locked(data.train), validation=_locked(data.validation)
    )
    running = training.Trainer(chosen.default(), locked, metric="log_loss")
    running.epoch()
    tensor = running._train.rows.inputs["numeric"]
    assert tensor.data_ptr() == locked.train.inputs["numeric"].ctypes.data


def _locked(part: encoded.Part) -> encoded.Part:
    def lock(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array.flags.writeable = False
        return array

    return encoded.Part({k: lock(v) for k, v in part.inputs.items()}, lock(part.targets))


RARE = """
name: rare
data: {source: rare.csv, target: y, positive: yes}
model: {type: mlp, hidden: [8]}
train: {epochs: 4, lr: 0.01}
storage: file:///tmp/unused
"""


def rare(folder: Path, **overrides: str) -> spec.Experiment:
    """One row of 20 is positive, and hard to tell."""
    random = np.random.default_rng(0)
    positive = np.arange(1200) % 20 == 0
    drawn = zip(random.normal(positive), positive, strict=True)
    lines = [f"{x:.3f},{'yes' if p else 'no'}" for x, p in drawn]
    (folder / "rare.csv").write_text("\n".join(["x,y", *lines]))
    (folder / "rare.yaml").write_text(RARE)
    return spec.load(folder / "rare.yaml", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.sampling": "balanced"},
        {"train.class_weights": "balanced"},
        {"train.class_weights": "{yes: 19}"},
        {"train.class_weights": "balanced", "train.loss": "focal"},
    ],
)
def test_sampling_and_weights_make_a_rare_class_as_likely_as_the_other(
    tmp_path: Path, overrides: dict[str, str]
) -> None:
    def share(**options: str) -> float:
        chosen = rare(tmp_path, **options)
        running = finish(training.Trainer(chosen.default(), encode(chosen), metric="log_loss"))
        running.model.load_state_dict(running.best_weights)
        (batch,) = running.validation_batches()
        with torch.inference_mode():
            logits = running.model.eval()(batch.inputs)
        return float(logits.softmax(1)[:, 1].mean())

    assert share() < 0.15
    assert share(**overrides) > 0.3


def test_drawn_rows_are_the_same_when_a_training_goes_on(tmp_path: Path) -> None:
    chosen = rare(tmp_path, **{"train.sampling": "balanced"})
    data = encode(chosen)
    whole, first, second = (
        training.Trainer(chosen.default(), data, metric="log_loss") for _ in range(3)
    )
    finish(whole)
    first.epoch()
    stops = iter([False] * 3 + [True])
    assert first.epoch(lambda: next(stops)) is None
    copy(first, second, tmp_path)
    finish(second)
    assert equal(second.best_weights, whole.best_weights)


@pytest.mark.parametrize(
    ("source", "overrides", "problem"),
    [
        (
            "wine",
            {"train.class_weights": "{clas_1: 2}"},
            "train.class_weights: must be of classes, but got 'clas_1'; did you mean 'class_1'",
        ),
        (
            "diabetes",
            {"train.class_weights": "balanced"},
            "train.class_weights: must be left out unless the target has classes, but the task is"
            " regression",
        ),
        (
            "diabetes",
            {"train.sampling": "balanced"},
            "train.sampling: must be left out unless the target has classes, but the task is"
            " regression",
        ),
    ],
)
def test_weights_and_sampling_that_do_not_fit_the_data_are_refused(
    tmp_path: Path, source: str, overrides: dict[str, str], problem: str
) -> None:
    overrides = {"data.source": f"dataset:{source}", **overrides}
    chosen = experiment(tmp_path, **overrides)
    assert problem in prepare.misfits(chosen, prepare.dataset(chosen))
