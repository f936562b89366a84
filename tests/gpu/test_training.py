"""Training on a GPU: where tensors are, half precision, and groups of workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray import spec
from ray_jobs import cluster, strategies, training
from tests.integration.searches import test_distributed as distributed
from tests.integration.searches import test_search_goes_on as searches
from tests.unit import test_strategies, test_training

CUDA = strategies.OneProcess("cuda")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with cluster.connected():
        yield


def losses(done: training.Trainer) -> list[float]:
    return [epoch["train_loss"] for epoch in done.progress.history]


def test_a_training_is_on_the_gpu_and_its_curve_is_that_of_the_cpu(tmp_path: Path) -> None:
    one = test_training.finish(test_strategies.build(tmp_path, strategy=CUDA))
    assert {value.device.type for value in one.model.state_dict().values()} == {"cuda"}
    assert {value.device.type for value in one.best_weights.values()} == {"cpu"}
    other = test_training.finish(test_strategies.build(tmp_path))
    assert losses(one) == pytest.approx(losses(other), rel=1e-3)


def test_a_state_of_the_gpu_goes_on_where_there_is_none_and_back(tmp_path: Path) -> None:
    whole = test_training.finish(test_strategies.build(tmp_path, strategy=CUDA))
    for one, other in ((CUDA, None), (None, CUDA)):
        first = test_strategies.build(tmp_path, strategy=one)
        first.epoch()
        second = test_strategies.build(tmp_path, strategy=other)
        test_training.copy(first, second, tmp_path)
        assert losses(test_training.finish(second)) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.parametrize("precision", strategies.PRECISIONS)
def test_half_precision_learns_about_the_same(tmp_path: Path, precision: str) -> None:
    half = strategies.OneProcess("cuda", precision)
    one = test_training.finish(test_strategies.build(tmp_path, strategy=half))
    assert {value.dtype for value in one.model.state_dict().values()} == {torch.float32}
    assert one.scaler.is_enabled() == (precision == "fp16")
    whole = test_training.finish(test_strategies.build(tmp_path, strategy=CUDA))
    assert losses(one) != losses(whole)
    assert losses(one) == pytest.approx(losses(whole), rel=0.05)


def grouped(folder: Path, gpus: float, **overrides: Any) -> spec.Experiment:
    options = {"compute.workers": 2, "compute.gpus": gpus, "compute.cpus": 0.5, "tune.trials": 1}
    text = searches.FILE.replace("[16]}", "[16], dropout: 0}")
    return searches.experiment(folder, text, **{**options, **overrides})


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_share_one_gpu_by_fractions_and_have_the_curve_of_one(
    ray_cluster: None, tmp_path: Path, strategy: str
) -> None:
    chosen = grouped(tmp_path, 0.5, **{"compute.strategy": strategy})
    ended, _ = searches.run(chosen)
    (record,) = ended.trials
    found = [epoch["train_loss"] for epoch in record.history]
    assert found == pytest.approx(distributed.curve(chosen, record.values, record.epoch), rel=1e-3)


def test_two_workers_with_a_gpu_each_speak_nccl_and_have_the_curve_of_one(
    ray_cluster: None, tmp_path: Path
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"NCCL takes one worker a GPU, and here is {torch.cuda.device_count()}")
    chosen = grouped(tmp_path, 1, **{"compute.precision": "fp32"})
    ended, _ = searches.run(chosen)
    (record,) = ended.trials
    found = [epoch["train_loss"] for epoch in record.history]
    assert found == pytest.approx(distributed.curve(chosen, record.values, record.epoch), rel=1e-3)


def test_a_group_of_one_worker_speaks_nccl_and_has_the_curve_of_one_process(
    ray_cluster: None, tmp_path: Path
) -> None:
    chosen = grouped(tmp_path, 1, **{"compute.workers": "{min: 1, max: 2}"})
    ended, _ = searches.run(chosen)
    (record,) = ended.trials
    found = [epoch["train_loss"] for epoch in record.history]
    assert found == pytest.approx(distributed.curve(chosen, record.values, record.epoch), rel=1e-3)


def test_batch_norm_goes_over_the_batch_of_all_workers(ray_cluster: None, tmp_path: Path) -> None:
    text = searches.FILE.replace("[16]}", "[16], dropout: 0, batch_norm: true}")
    options = {"compute.workers": 2, "compute.gpus": 0.5, "compute.cpus": 0.5, "tune.trials": 1}
    chosen = searches.experiment(tmp_path, text, **options)
    ended, _ = searches.run(chosen)
    (record,) = ended.trials
    found = [epoch["train_loss"] for epoch in record.history]
    assert found == pytest.approx(distributed.curve(chosen, record.values, record.epoch), rel=1e-3)
