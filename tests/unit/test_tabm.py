"""An ensemble in training: its defaults, its loss, resumed, in packs, and in a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eagleray import bundle, spec
from eagleray.engines.torch import Torch
from eagleray.learn import schema, tasks
from eagleray.learn.models import layers
from ray_jobs import pack, training
from ray_jobs.data import encoded, prepare
from tests.unit import test_pack, test_training

FILE = """
name: wine
data: {source: 'dataset:SOURCE', target: target}
model: {type: tabm, members: 4, width: 8, bins: 6, embedding: 3}
train: {epochs: 3, lr: {loguniform: [1.0e-4, 1.0e-1]}}
tune: {trials: 3, search: random}
storage: file:///tmp/unused
"""


def experiment(folder: Path, source: str = "wine", **overrides: str) -> spec.Experiment:
    file = folder / "tabm.yaml"
    file.write_text(FILE.replace("SOURCE", source))
    return spec.load(file, overrides)


def prepared(chosen: spec.Experiment) -> tuple[prepare.Dataset, encoded.Encoded]:
    dataset = prepare.dataset(chosen)
    return dataset, dataset.encode(dataset.fit(chosen.default().features))


def trainer(chosen: spec.Experiment, metric: str = "log_loss") -> training.Trainer:
    return training.Trainer(chosen.default(), prepared(chosen)[1], metric=metric)


def test_the_model_brings_its_defaults_of_training_and_what_the_file_sets_stays(
    tmp_path: Path,
) -> None:
    chosen = experiment(tmp_path, **{"train.batch_size": "32"})
    train = chosen.configuration({"train.lr": 0.01}).train
    assert (train.optimizer, train.weight_decay, train.batch_size) == ("adamw", 3e-4, 32)
    assert train.lr == 0.01
    assert chosen.resolved()["train"]["optimizer"] == "adamw"
    assert chosen.explicit()["train"].keys() == {"epochs", "lr", "batch_size"}


def test_another_model_keeps_the_usual_defaults(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\ndata: {source: 'dataset:wine', target: target}\nmodel: {type: mlp}\n"
        "storage: file:///tmp/unused\n"
    )
    assert spec.load(tmp_path / "x.yaml").default().train == spec.Train()


@pytest.mark.parametrize("loss", ["cross_entropy", "weighted_cross_entropy", "focal"])
def test_the_loss_is_the_mean_of_the_members_losses(tmp_path: Path, loss: str) -> None:
    running = trainer(experiment(tmp_path, **{"train.loss": loss, "model.dropout": "0.0"}))
    batch = next(running.batches(1))
    output_BC = running.model.train()(batch.inputs)
    whole = running.loss(output_BC, layers.spread(batch.target_B, running.model))
    by_member = output_BC.reshape(-1, 4, 3).unbind(1)
    alone = [running.loss(one_BC, batch.target_B) for one_BC in by_member]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_a_model_that_is_no_ensemble_must_give_a_row_for_each(tmp_path: Path) -> None:
    running = test_training.trainer(tmp_path)
    forward = running.model.forward
    running.model.forward = lambda inputs: forward(inputs).repeat(2, 1)
    with pytest.raises(ValueError, match="batch_size"):
        running.epoch()


@pytest.mark.parametrize("batches", [0, 2])
def test_an_ensemble_resumed_equals_one_that_was_not_interrupted_to_the_bit(
    tmp_path: Path, batches: int
) -> None:
    chosen = experiment(tmp_path, **{"train.batch_size": "32"})
    whole, first, second = (trainer(chosen) for _ in range(3))
    test_training.finish(whole)
    first.epoch()
    stops = iter([False] * (batches - 1) + [True])
    assert not batches or first.epoch(lambda: next(stops)) is None
    test_training.copy(first, second, tmp_path)
    test_training.finish(second)
    assert test_training.equal(second.best_weights, whole.best_weights)


@pytest.mark.parametrize("source", ["wine", "diabetes"])
def test_members_of_a_pack_become_what_they_become_alone(tmp_path: Path, source: str) -> None:
    chosen = experiment(tmp_path, source, **{"model.dropout": "0.0"})
    data, metric = prepared(chosen)[1], "log_loss" if source == "wine" else "rmse"
    alone, packed = (
        [
            training.Trainer(chosen.configuration({"train.lr": lr}), data, metric=metric)
            for lr in (1e-3, 1e-2)
        ]
        for _ in range(2)
    )
    for _ in range(3):
        for member, done in zip(packed, pack.epoch(packed), strict=True):
            member.record(done)
    for one, other in zip(alone, packed, strict=True):
        test_pack.assert_same(test_training.finish(one), other)


@pytest.mark.parametrize("source", ["wine", "diabetes"])
def test_a_bundle_that_is_stored_and_loaded_predicts_the_same(tmp_path: Path, source: str) -> None:
    longer = {"train.epochs": "20", "train.batch_size": "16", "model.width": "16"}
    chosen = experiment(tmp_path, source, **longer)
    dataset, data = prepared(chosen)
    metric = "log_loss" if source == "wine" else "rmse"
    running = test_training.finish(training.Trainer(chosen.default(), data, metric=metric))
    running.model.load_state_dict(running.best_weights)
    made = bundle.Bundle(
        schema=dataset.schema,
        transforms=data.transforms,
        engine=Torch(chosen.default().model, running.model),
        scale=tasks.of(dataset.schema.target).scale(dataset.targets[dataset.split.train]),
    )
    rows = schema.to_json(dataset.schema, dataset.take(dataset.split.test))
    loaded = bundle.unpack(bundle.pack(made, rows, {}))
    loaded.verify()
    np.testing.assert_array_equal(loaded.predict(rows).outputs, made.predict(rows).outputs)
    assert running.progress.best[metric] < {"wine": 0.3, "diabetes": 65}[source]
