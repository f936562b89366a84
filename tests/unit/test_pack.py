"""Packs train each of their members as it trains alone."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray import errors, spec
from ray_jobs import pack, pack_size, search, strategies, training
from ray_jobs.data import encoded, prepare
from tests.unit.test_training import copy

EPOCHS = 3
VALUES = [
    {"train.lr": lr, "train.weight_decay": decay, "train.clip_norm": clip}
    for lr, decay, clip in ((1e-3, 0.0, 0.5), (3e-2, 0.1, 1.0), (1e-2, 0.01, 9.0))
]
SPACE = (
    "lr: {loguniform: [1.0e-3, 1.0e-1]}, weight_decay: {uniform: [0.0, 0.2]}, "
    "clip_norm: {uniform: [0.1, 10.0]}"
)


def experiment(folder: Path, *, model: str = "dropout: 0.0", **train: Any) -> spec.Experiment:
    source, train = train.pop("source", "dataset:wine"), {"epochs": EPOCHS, **train}
    options = "".join(f", {name}: {value}" for name, value in train.items())
    file = folder / "x.yaml"
    file.write_text(
        f"name: x\ndata: {{source: '{source}', target: target}}\n"
        f"model: {{type: mlp, hidden: [16], {model}}}\n"
        f"train: {{batch_size: 32, {SPACE}{options}}}\n"
        "tune: {trials: 3, search: random}\nstorage: file:///tmp/unused\n"
    )
    return spec.load(file)


def encode(chosen: spec.Experiment) -> encoded.Encoded:
    dataset = prepare.dataset(chosen)
    return dataset.encode(dataset.fit(chosen.default().features))


def trainers(
    chosen: spec.Experiment,
    values: list[dict[str, Any]],
    metric: str = "log_loss",
    strategy: strategies.OneProcess | None = None,
) -> list[training.Trainer]:
    data, made = encode(chosen), map(chosen.configuration, values)
    return [training.Trainer(one, data, metric=metric, strategy=strategy) for one in made]


def train(members: list[training.Trainer], epochs: int) -> None:
    for _ in range(epochs):
        for member, done in zip(members, pack.epoch(members), strict=True):
            member.record(done)


def assert_same(one: training.Trainer, other: training.Trainer) -> None:
    expected = one.model.state_dict()
    for name, value in other.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    for left, right in zip(one.progress.history, other.progress.history, strict=True):
        assert left | {"seconds": 0} == pytest.approx(right | {"seconds": 0}, rel=1e-5, abs=1e-5)


OPTIMIZERS = ["adam", "adamw", "rmsprop", "sgd"]
SCHEDULES = ["constant", "cosine", "one_cycle", "linear"]
CASES = [
    *[("dataset:wine", "log_loss", *both) for both in itertools.product(OPTIMIZERS, SCHEDULES)],
    *[("dataset:diabetes", "rmse", *both) for both in zip(OPTIMIZERS, SCHEDULES, strict=True)],
]
"""Source, metric, optimizer, schedule."""


@pytest.mark.parametrize(("source", "metric", "optimizer", "schedule"), CASES)
def test_each_member_becomes_what_it_becomes_alone(
    tmp_path: Path, source: str, metric: str, optimizer: str, schedule: str
) -> None:
    chosen = experiment(tmp_path, optimizer=optimizer, schedule=schedule, source=source)
    alone, packed = (trainers(chosen, VALUES, metric) for _ in range(2))
    train(packed, EPOCHS)
    for one, other in zip(alone, packed, strict=True):
        while not one.finished:
            one.epoch()
        assert_same(one, other)


LOST = {"schedule": "plateau", "plateau": "{patience: 1}", "optimizer": "sgd", "epochs": 6}


@pytest.mark.parametrize(
    "options",
    [{"ema": 0.9}, {"warmup": 1.5, "schedule": "cosine"}, LOST, {**LOST, "ema": 0.8}],
    ids=str,
)
def test_averages_warm_ups_and_plateaus_are_each_members_own(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    chosen = experiment(tmp_path, **options)
    alone, packed, resumed = (trainers(chosen, VALUES, "accuracy") for _ in range(3))
    epochs = chosen.train.epochs
    train(packed, 2)
    for one, other in zip(packed, resumed, strict=True):
        copy(one, other, tmp_path)
    train(packed, epochs - 2)
    train(resumed, epochs - 2)
    for one, other, last in zip(packed, resumed, alone, strict=True):
        while not last.finished:
            last.epoch()
        assert_same(last, one)
        assert_same(last, other)
        for name, value in last.best_weights.items():
            torch.testing.assert_close(one.best_weights[name], value, rtol=1e-5, atol=1e-5)
    if "plateau" in options:
        assert len({one.schedule.scale for one in packed}) > 1


def test_layers_of_each_member_are_those_that_are_measured_alone(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    alone, packed = trainers(chosen, VALUES), trainers(chosen, VALUES)
    train(packed, EPOCHS)
    for one, other in zip(alone, packed, strict=True):
        while not one.finished:
            one.epoch()
        assert [row.epoch for row in other.progress.layers] == [1, 1, EPOCHS, EPOCHS]
        for left, right in zip(one.progress.layers, other.progress.layers, strict=True):
            assert left[:2] == right[:2]
            assert left[2:5] == pytest.approx(right[2:5], rel=1e-3)
            assert left.dead == right.dead
            assert sum(left.weights) == sum(right.weights) == sum(right.updates)


def test_an_optimizer_of_ones_own_is_trained_alone(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def build(parameters, lr, weight_decay):\n"
        "    return torch.optim.NAdam(parameters, lr=lr, weight_decay=weight_decay)\n"
    )
    file = experiment(tmp_path, optimizer="'own:build'").path
    chosen = spec.load(file, {"tune.pack": "16"})
    found = pack_size.choose(search.Search(chosen), trials=100, slots=2)
    assert found.size == 1
    assert "steps of own:build may not be proportional" in found.why


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_a_state_saved_in_a_pack_goes_on_alone_and_in_another_pack(
    tmp_path: Path, optimizer: str
) -> None:
    chosen = experiment(tmp_path, optimizer=optimizer, schedule="one_cycle")
    packed, resumed, alone = (trainers(chosen, VALUES) for _ in range(3))
    train(packed, 1)
    for one, other in zip(packed, resumed, strict=True):
        copy(one, other, tmp_path)
    train(packed, EPOCHS - 1)
    train(resumed[:2], EPOCHS - 1)
    while not resumed[2].finished:
        resumed[2].epoch()
    for one, other, last in zip(packed, resumed, alone, strict=True):
        while not last.finished:
            last.epoch()
        assert_same(last, one)
        assert_same(last, other)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_member_that_goes_on_alone_becomes_what_it_becomes_alone(
    tmp_path: Path, optimizer: str
) -> None:
    chosen = experiment(tmp_path, optimizer=optimizer)
    alone, packed = trainers(chosen, VALUES), trainers(chosen, VALUES)
    train(packed, 1)
    for one, other in zip(alone, packed, strict=True):
        while not one.finished:
            one.epoch()
        while not other.finished:
            other.epoch()
        assert_same(one, other)


def test_members_of_one_rate_of_dropout_drop_what_they_drop_alone(tmp_path: Path) -> None:
    chosen = experiment(tmp_path, model="dropout: 0.5")
    alone, packed = trainers(chosen, VALUES), trainers(chosen, VALUES)
    train(packed, EPOCHS)
    for one, other in zip(alone, packed, strict=True):
        while not one.finished:
            one.epoch()
        assert_same(one, other)


def test_a_member_that_diverges_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    chosen = experiment(tmp_path, optimizer="sgd")
    values = [VALUES[0], VALUES[0] | {"train.lr": 1e38}]
    (alone,), packed = trainers(chosen, values[:1]), trainers(chosen, values)
    for _ in range(EPOCHS):
        first, second = pack.epoch(packed)
        packed[0].record(first)
        alone.epoch()
    with pytest.raises(errors.TrainingError, match="must be finite"):
        packed[1].record(second)
    assert_same(alone, packed[0])


def test_members_may_differ_in_dropout_and_each_has_its_own_rate(tmp_path: Path) -> None:
    chosen = experiment(tmp_path, model="dropout: {uniform: [0.0, 0.9]}")
    values = [VALUES[0] | {"model.dropout": rate} for rate in (0.0, 0.0, 0.8)]
    alone, packed = trainers(chosen, values), trainers(chosen, values)
    train(packed, EPOCHS)
    while not alone[0].finished:
        alone[0].epoch()
    assert_same(alone[0], packed[0])
    assert_same(alone[0], packed[1])
    losses = [one.progress.history[0]["train_loss"] for one in packed]
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)


def test_a_rate_drops_its_share_and_keeps_the_mean() -> None:
    layer, ones = pack.Rate(0.8), torch.ones(100_000)
    assert torch.equal(layer.eval()(ones), ones)
    dropped = layer.train()(ones)
    assert dropped.eq(0).float().mean() == pytest.approx(0.8, abs=0.01)
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        ("dropout: {choice: [0.1, 0.2]}", True),
        ("hidden: {choice: [[8], [16]]}", False),
        ("activation: {choice: [relu, gelu]}", False),
    ],
)
def test_only_trials_of_one_shape_fit_into_a_pack(tmp_path: Path, model: str, fits: bool) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ndata: {source: 'dataset:wine', target: target}\n"
        f"model: {{type: mlp, {model}}}\ntrain: {{lr: {{uniform: [0.1, 0.9]}}}}\n"
    )
    chosen = spec.load(file)
    (key, drawn) = next((key, one) for key, one in chosen.space.items() if key != "train.lr")
    keys = {
        pack.key(chosen.configuration({"train.lr": lr, key: value}))
        for lr, value in zip((0.1, 0.2), drawn.grid(), strict=True)
    }
    assert (len(keys) == 1) == fits


def test_clipped_and_unclipped_trials_do_not_share_a_pack(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    clipped, unclipped = (
        chosen.configuration(VALUES[0] | {"train.clip_norm": clip}) for clip in (1.0, None)
    )
    assert pack.key(clipped) != pack.key(unclipped)


@pytest.mark.parametrize(
    ("asked", "trials", "slots", "size"),
    [(32, 100, 2, 25), (8, 100, 2, 8), (8, 9, 1, 5), (8, 2, 4, 1), (1, 100, 2, 1), (8, 0, 2, 1)],
)
def test_packs_are_of_about_one_size_and_leave_no_slot_idle(
    tmp_path: Path, asked: int, trials: int, slots: int, size: int
) -> None:
    chosen = search.Search(spec.load(experiment(tmp_path).path, {"tune.pack": str(asked)}))
    found = pack_size.choose(chosen, trials=trials, slots=slots)
    assert found.size == size, found.why


def test_a_model_of_long_steps_is_measured_once_and_trained_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first trial of a large model waits for minutes."""
    sizes: list[int] = []
    monkeypatch.setattr(pack, "epoch", lambda trainers: sizes.append(len(trainers)))
    monkeypatch.setattr(pack_size, "LONG_STEP_S", 0.0)
    found = pack_size.choose(search.Search(experiment(tmp_path)), trials=100, slots=2)
    assert (found.size, found.why, sizes) == (1, "a step of a trial takes more than 0 ms", [])


def test_no_larger_pack_is_measured_than_one_that_does_not_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def slow(trainers: list[training.Trainer]) -> None:
        sizes.append(len(trainers))
        for one in trainers:
            one.epoch()

    monkeypatch.setattr(pack, "epoch", slow)
    monkeypatch.setattr(pack_size, "MIN_GAIN", 100)
    found = pack_size.choose(search.Search(experiment(tmp_path)), trials=100, slots=2)
    assert (found.size, sizes) == (1, [pack_size.SIZES[0]] * pack_size.ROUNDS)


def test_a_model_with_batch_norm_is_trained_alone(tmp_path: Path) -> None:
    """Under Adam, what rounding leaves of gradients that are zero decides where weights go."""
    chosen = search.Search(experiment(tmp_path, model="batch_norm: true"))
    found = pack_size.choose(chosen, trials=100, slots=2)
    assert found.size == 1
    assert "batch norm" in found.why


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("auto", "code of your own may keep state of its own"),
        ("16", "packs cannot train this model: "),
    ],
)
def test_own_code_is_packed_only_if_the_file_says_so_and_torch_can_batch_it(
    tmp_path: Path, asked: str, why: str
) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, width, outputs):\n"
        "        super().__init__()\n"
        "        self.dense = torch.nn.Linear(width, outputs)\n"
        "    def forward(self, inputs):\n"
        "        x = self.dense(inputs['numeric'])\n"
        "        return x if float(x.sum()) > 0 else x\n"
        "def build(shape, outputs):\n"
        "    return Net(shape.numeric, outputs)\n"
    )
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ndata: {source: 'dataset:wine', target: target}\nmodel: {type: 'own:build'}\n"
        "train: {lr: {uniform: [0.1, 0.9]}}\n"
    )
    chosen = spec.load(file, {"tune.search": "random", "tune.pack": asked})
    found = pack_size.choose(search.Search(chosen), trials=100, slots=2)
    assert found.size == 1
    assert found.why.startswith(why)
