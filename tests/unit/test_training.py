"""The training loop, on data small enough to train in milliseconds."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eagleray import errors, spec
from ray_jobs import learner, probe, search, snapshots, training
from ray_jobs.data import encoded, prepare

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SCHEDULES = ("constant", "cosine", "one_cycle", "linear", "plateau")
LOST = {"train.schedule": "plateau", "train.plateau": "{patience: 1}", "train.lr": "0.3"}
"""A rate so high that the metric stays, and the plateau is met."""
OPTIONS: dict[str, dict[str, str]] = {
    **{f"{one} of warm-up": {"train.schedule": one, "train.warmup": "2.6"} for one in SCHEDULES},
    "plateaus": LOST,
    "averages": {"train.ema": "0.9"},
    "averages of plateaus": {**LOST, "train.ema": "0.9", "train.warmup": "0.5"},
    "own optimizer": {"train.optimizer": "own:lion"},
    "own optimizer, one cycle": {"train.optimizer": "own:nadam", "train.schedule": "one_cycle"},
}
OWN = """
import torch

class Lion(torch.optim.Optimizer):
    '''Chen et al. 2023, arXiv:2302.06675; it counts its steps in Python.'''

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for one in group["params"]:
                state = self.state[one]
                mean = state.setdefault("mean", torch.zeros_like(one))
                state["count"] = state.get("count", 0) + 1
                one.mul_(1 - group["lr"] * group["weight_decay"])
                one.add_((0.9 * mean + 0.1 * one.grad).sign(), alpha=-group["lr"] / state["count"])
                mean.lerp_(one.grad, 0.01)

def lion(parameters, lr, weight_decay):
    return Lion(parameters, lr, weight_decay)

def nadam(parameters, lr, weight_decay):
    return torch.optim.NAdam(parameters, lr=lr, weight_decay=weight_decay)
"""


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
    (folder / "own.py").write_text(OWN)
    chosen = experiment(folder, **overrides)
    configuration, own = chosen.default(), chosen.code()
    return training.Trainer(configuration, encode(chosen), metric="log_loss", custom=own)


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
    options = {"train.optimizer": optimizer, "train.schedule": schedule}
    assert_resumes(tmp_path, batches, options)


@pytest.mark.parametrize("batches", [0, 2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_averages_warm_ups_plateaus_and_own_optimizers_resume_to_the_bit(
    tmp_path: Path, name: str, batches: int
) -> None:
    """Of four batches of an epoch the third, the last whole one, is watched."""
    assert_resumes(tmp_path, batches, OPTIONS[name])


def assert_resumes(tmp_path: Path, batches: int, options: dict[str, str]) -> None:
    options = {"model.dropout": "0.3", "train.epochs": "4", **options}
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
        assert resumed.progress.layers == whole.progress.layers
        assert equal(resumed.model.state_dict(), whole.model.state_dict())
        assert equal(resumed.best_weights, whole.best_weights)
        assert resumed.schedule.state_dict() == whole.schedule.state_dict()


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


def test_of_epochs_with_the_same_metric_that_of_the_lowest_loss_is_kept_and_is_no_gain() -> None:
    progress = learner.Progress()
    train = spec.Train.model_validate({"early_stopping": {"patience": 3}})
    epochs = [(0.5, 1.0), (0.9, 0.6), (0.9, 0.4), (0.9, 0.5), (0.8, 0.1)]
    kept = [
        progress.add({"accuracy": score, "log_loss": loss}, "accuracy", train)
        for score, loss in epochs
    ]
    assert kept == [True, True, True, False, False]
    assert (progress.best_epoch, progress.best["log_loss"]) == (3, 0.4)
    assert (progress.improved_epoch, progress.stale) == (2, 3)
    assert progress.finished(train)


@pytest.mark.parametrize(
    ("rate", "decay", "cause"),
    [
        ("1.0e+30", "0", r"in epoch 1, batch 2: the output of head\.\d is not finite"),
        ("3.0e+38", "999", r"in epoch 1, batch 2: weights of head\.0, head\.3 are not finite"),
    ],
)
def test_a_loss_that_is_no_number_names_epoch_batch_and_layer(
    tmp_path: Path, rate: str, decay: str, cause: str
) -> None:
    options = {"train.lr": rate, "train.weight_decay": decay, "train.optimizer": "sgd"}
    doomed = trainer(tmp_path, **options)
    with pytest.raises(errors.TrainingError, match=rf"loss must be finite, but is \w+ {cause}"):
        finish(doomed)


def rates(running: training.Trainer) -> list[float]:
    """The learning rate of each step."""
    found = list[float]()

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        found.append(optimizer.param_groups[0]["lr"])

    running.optimizer.register_step_pre_hook(note)
    finish(running)
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_rises_to_the_rate_and_its_schedule_follows(
    tmp_path: Path, schedule: str
) -> None:
    """Six epochs of four steps, of which the first ten rise."""
    options = {"train.schedule": schedule, "train.lr": "0.011", "train.warmup": "2.5"}
    found = rates(trainer(tmp_path, **options))
    assert len(found) == 24
    assert found[:11] == sorted(found[:11])
    assert found[10] == pytest.approx(0.011)
    assert found[0] < 0.0021
    if schedule in ("cosine", "linear", "one_cycle"):
        assert found[10:] == sorted(found[10:], reverse=True)
        assert found[-1] < 0.0011
    if schedule != "one_cycle":
        assert found[:3] == pytest.approx([0.001, 0.002, 0.003])


def test_a_plateau_lowers_the_rate_after_epochs_without_a_better_metric(tmp_path: Path) -> None:
    options = {**LOST, "train.epochs": "12", "train.plateau": "{patience: 2, factor: 0.1}"}
    running = trainer(tmp_path, **options)
    stale, expected = 0, 0.3
    while not running.finished:
        running.epoch()
        stale = 0 if running.progress.best_epoch == running.progress.epoch else stale + 1
        if stale == 2:
            stale, expected = 0, expected * 0.1
        assert running.optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    assert expected < 0.3, "the metric must stay in this test"
    assert running.schedule.scale == pytest.approx(expected / 0.3)


def test_averages_are_what_is_evaluated_and_saved(tmp_path: Path) -> None:
    """The average of two steps by hand, and metrics of a model with it."""
    options = {"train.ema": "0.999", "train.epochs": "1", "train.batch_size": "64"}
    running, plain = trainer(tmp_path, **options), trainer(tmp_path, **options | {"train.ema": "0"})
    mean = {name: value.clone() for name, value in running.model.state_dict().items()}
    steps = iter((2 / 11, 3 / 12))
    taken = plain.schedule.step

    def step() -> None:
        decay = next(steps)
        for name, value in plain.model.state_dict().items():
            mean[name] = decay * mean[name] + (1 - decay) * value
        taken()

    plain.schedule.step = step  # type: ignore[method-assign]
    plain.epoch()
    found = running.epoch()
    assert found is not None
    for name, value in running.best_weights.items():
        torch.testing.assert_close(value, mean[name])
        assert torch.equal(running.model.state_dict()[name], plain.model.state_dict()[name])
    plain.model.load_state_dict(mean)
    assert plain._evaluate()[1] == pytest.approx(found["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("body", "law"),
    [
        ("return None", r"own:build: must give a torch\.optim\.Optimizer, but gave NoneType"),
        ("return parameters[9]", r"^own\.py:3: own:build: must build an optimizer, .* IndexError"),
        (
            "return torch.optim.SGD(parameters[:2], lr=lr)",
            r"must step all parameters that it is given and no others, but has 2 of 4",
        ),
        ("return torch.optim.LBFGS(parameters, lr=lr)", r"must step, but raised TypeError"),
        (
            "return Odd(parameters, {'lr': lr})",
            r"state must be tensors, numbers, .* but it has 'kept' of set",
        ),
    ],
)
def test_an_own_optimizer_is_tried_before_a_search(tmp_path: Path, body: str, law: str) -> None:
    odd = (
        "class Odd(torch.optim.SGD):\n"
        "    def __init__(self, parameters, options):\n"
        "        super().__init__(parameters, **options)\n"
        "    def step(self):\n"
        "        self.state[self.param_groups[0]['params'][0]]['kept'] = {1}\n"
    )
    source = f"import torch\ndef build(parameters, lr, weight_decay):\n    {body}\n{odd}"
    file = experiment(tmp_path).path
    (tmp_path / "own.py").write_text(source)
    chosen = search.Search(spec.load(file, {"train.optimizer": "own:build"}))
    with pytest.raises(errors.CodeError, match=law):
        probe.run(chosen)


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
