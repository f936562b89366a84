"""Faults planted in a training, each found under its name, and their healthy twins."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from eagleray import evaluation, spec
from eagleray.evaluation import training as diagnosis
from eagleray.findings import Finding
from eagleray.learn import models
from eagleray.spec import document
from eagleray.state.watches import BINS, Row
from ray_jobs import training
from ray_jobs.data import prepare

OWN = """
import torch
from torch import nn

def net(shape, outputs, gain=1.0, bias=0.0, depth=3):
    sizes = [shape.numeric, *[32] * depth]
    layers = []
    for before, after in zip(sizes, sizes[1:]):
        dense = nn.Linear(before, after)
        nn.init.xavier_normal_(dense.weight, gain=gain)
        nn.init.constant_(dense.bias, bias)
        layers += [dense, nn.ReLU()]
    return nn.Sequential(Numbers(), *layers, nn.Linear(32, outputs))

class Numbers(nn.Module):
    def forward(self, inputs):
        return inputs["numeric"]

class Jumping(torch.optim.SGD):
    '''One step of forty is far too long.'''
    def step(self):
        state = self.state[self.param_groups[0]["params"][0]]
        state["count"] = state.get("count", 0) + 1
        rate = self.param_groups[0]["lr"]
        self.param_groups[0]["lr"] = rate * (4000 if state["count"] == 40 else 1)
        super().step()
        self.param_groups[0]["lr"] = rate

def jumping(parameters, lr, weight_decay):
    return Jumping(parameters, lr=lr)

def steady(parameters, lr, weight_decay):
    return torch.optim.SGD(parameters, lr=lr)
"""
PLANTED = {
    "exploding gradient": (
        "model: {type: 'own:net', gain: 4.0, depth: 6}",
        "model: {type: 'own:net', gain: 1.4, depth: 6}",
    ),
    "vanishing gradient": (
        f"model: {{type: mlp, activation: silu, hidden: {[16] * 16}}}",
        "model: {type: mlp, activation: silu, hidden: [16, 16]}",
    ),
    "dead ReLU": (
        "model: {type: 'own:net', bias: -8.0}",
        "model: {type: 'own:net', bias: 0.0}",
    ),
    "loss spikes": (
        "model: {type: mlp, hidden: [16]}\ntrain: {optimizer: 'own:jumping', lr: 0.05}",
        "model: {type: mlp, hidden: [16]}\ntrain: {optimizer: 'own:steady', lr: 0.05}",
    ),
    "unscaled feature": (
        "model: {type: mlp}\nfeatures: {proline: {type: numeric, scale: none}}",
        "model: {type: mlp}\nfeatures: {proline: {type: numeric, scale: robust}}",
    ),
}
TRAIN = {"train.epochs": "12", "train.batch_size": "16"}


def examined(folder: Path, text: str, source: str = "wine", **settings: str) -> list[Finding]:
    """Train on real rows, and diagnose."""
    (folder / "own.py").write_text(OWN)
    file = folder / "x.yaml"
    head = f"name: x\ndata: {{source: 'dataset:{source}', target: target}}\n"
    file.write_text(f"{head}{text}\nstorage: file:///tmp/unused\n")
    chosen = spec.load(file, {**TRAIN, **settings})
    configuration, dataset = chosen.default(), prepare.dataset(chosen)
    data = dataset.encode(dataset.fit(configuration.features))
    running = training.Trainer(configuration, data, metric=METRICS[source], custom=chosen.code())
    while not running.finished:
        running.epoch()
    trained = evaluation.Training(configuration, chosen.model, running.progress.layers)
    columns = dataset.take(dataset.split.train)
    return diagnosis.examine(trained, running.progress.history, columns)


def overrides(fix: str, node: object = None, above: str = "") -> dict[str, str]:
    """A fix as options `--set` of the command line."""
    tree = document.parse(fix.strip("`"), "fix") if node is None else node
    if not isinstance(tree, dict):
        return {above.removesuffix("."): document.write(tree)}
    found = [overrides("", value, f"{above}{name}.") for name, value in tree.items()]
    return {key: value for one in found for key, value in one.items()}


METRICS = {
    "wine": "log_loss",
    "digits": "log_loss",
    "breast_cancer": "log_loss",
    "diabetes": "rmse",
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_under_its_name_and_its_twin_is_healthy(
    tmp_path: Path, name: str
) -> None:
    faulty, healthy = PLANTED[name]
    found = examined(tmp_path, faulty)
    assert name in [one.check for one in found], found
    assert [one.check for one in examined(tmp_path, healthy)] == ["layers"]
    (planted,) = [one for one in found if one.check == name]
    assert planted.severity == "warn"
    assert all(math.isfinite(value) for value in planted.numbers.values())
    examined(tmp_path, faulty)
    spec.load(tmp_path / "x.yaml", {**TRAIN, **overrides(planted.fix)})


@pytest.mark.parametrize("source", METRICS)
@pytest.mark.parametrize(
    "model", ["model: {type: mlp}", "model: {type: tabm, members: 4, width: 32}"]
)
def test_models_as_they_are_by_default_are_healthy(tmp_path: Path, source: str, model: str) -> None:
    options = {} if "tabm" in model else {"train.lr": "3e-3"}
    found = examined(tmp_path, model, source, **{"train.batch_size": "64", **options})
    assert [one.check for one in found] == ["layers"], found


def row(epoch: int, layer: str, gradient: float, dead: float | None = None) -> Row:
    return Row(epoch, layer, gradient, 1.0, 1e-3, dead, [0] * BINS, [0] * BINS)


def of(layers: Sequence[Row] = (), **sections: object) -> evaluation.Training:
    configuration = spec.Configuration.model_validate({"model": {"type": "tabm"}} | sections)
    return evaluation.Training(configuration, configuration.model, layers)


@pytest.mark.parametrize(
    ("sections", "fix"),
    [
        ({}, "`train: {clip_norm: 1.0}`"),
        ({"train": {"clip_norm": 5.0}}, None),
        ({"train": {"loss": "own:loss"}}, None),
    ],
)
def test_gradients_explode_where_nothing_clips_them_and_their_scale_is_known(
    sections: dict[str, object], fix: str | None
) -> None:
    rows = [row(1, "a", 500.0), row(2, "a", 400.0)]
    found = diagnosis.examine(of(rows, **sections), [], {})
    assert [one.fix for one in found if one.check == "exploding gradient"] == ([fix] if fix else [])


def test_gradients_that_grow_a_hundredfold_or_are_not_finite_explode_whatever_the_loss() -> None:
    own = {"train": {"loss": "own:loss"}}
    for rows in (
        [row(epoch, "a", 1.0) for epoch in range(1, 6)] + [row(6, "a", 1000.0)],
        [row(1, "a", math.nan)],
    ):
        (found,) = diagnosis.examine(of(rows, **own), [], {})
        assert found.check == "exploding gradient"


@pytest.mark.parametrize(
    ("gradients", "dead", "names"),
    [
        ((1e-5, 1e-2, 1.0), 0.8, ["dead ReLU", "vanishing gradient"]),
        ((1e-5, 1e-2, 1.0), 0.7, ["vanishing gradient"]),
        ((1e-2, 1e-2, 1.0), 0.7, ["layers"]),
        ((1e-5, 1.0), 0.0, ["layers"]),
        ((0.0, 1e-2, 1.0), 0.0, ["layers"]),
    ],
)
def test_gradients_vanish_on_their_way_through_layers_that_have_some(
    gradients: Sequence[float], dead: float, names: list[str]
) -> None:
    """A layer without any gradient is not used, and two layers have no way between them."""
    rows = [row(1, f"layer {place}", one, dead) for place, one in enumerate(gradients)]
    assert [one.check for one in diagnosis.examine(of(rows), [], {})] == names


def test_of_a_training_that_was_not_watched_nothing_is_said() -> None:
    assert diagnosis.examine(of(model={"type": "boosting"}), [{"train_loss": 1.0}], {}) == []


@pytest.mark.parametrize(
    ("sign", "sections", "fix"),
    [
        ("over-fit", {}, "`model: {dropout: 0.3, type: tabm}`"),
        ("over-fit", {"model": {"type": "mlp", "dropout": 0.5}}, "`train: {weight_decay: 0.01}`"),
        ("over-fit", {"model": {"type": "boosting"}}, "`model: {leaves: 15, type: boosting}`"),
        ("under-fit", {}, "`train: {epochs: 40}`"),
        ("under-fit", {"model": {"type": "boosting"}}, "`train: {epochs: 40}`"),
        (
            "too weak",
            {"model": {"type": "mlp", "hidden": [8]}},
            "`model: {hidden: [256, 128], type: mlp}`",
        ),
        ("too weak", {"model": {"type": "boosting"}}, ""),
    ],
)
def test_what_mends_a_fit_is_a_key_that_the_model_takes(
    sign: str, sections: dict[str, object], fix: str
) -> None:
    assert diagnosis.mended(of(**sections), sign) == fix


def test_under_auto_keys_of_the_model_that_was_taken_are_no_help() -> None:
    taken = of()
    auto = evaluation.Training(taken.configuration, models.Auto(type="auto"), [])
    assert diagnosis.mended(auto, "over-fit") == ""
    assert diagnosis.mended(auto, "under-fit") == "`train: {epochs: 40}`"
