"""Training spread over the workers of a group, which are processes here, equals that of one."""

import functools
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from ray_jobs import strategies, training
from ray_jobs.data import encoded
from tests.unit import test_reading, test_training

WORKERS = 2
PLAIN = {"model.dropout": "0", "train.epochs": "3"}
CASES: dict[str, dict[str, str]] = {
    "adam": {},
    "unequal shares": {"train.batch_size": "33"},
    "a last batch that is too small to share": {"train.batch_size": "52"},
    "clipped": {"train.optimizer": "sgd", "train.lr": "0.1", "train.clip_norm": "0.5"},
    "one cycle": {"train.optimizer": "adamw", "train.schedule": "one_cycle"},
    "averaged": {"train.optimizer": "rmsprop", "train.ema": "0.9", "train.warmup": "1.5"},
    "plateau": {"train.schedule": "plateau", "train.plateau": "{patience: 1}", "train.lr": "0.2"},
    "weighted": {"train.loss": "weighted_cross_entropy", "train.label_smoothing": "0.1"},
    "pictures that change": {
        "data.source": "dataset:digits",
        "features.image": "{type: image, augment: {flip: true, crop: 0.1, rotate: 9, noise: 0.1}}",
        "train.batch_size": "256",
        "train.loss": "weighted_cross_entropy",
        "train.mixup": "0.3",
    },
    "streamed": {},
    "streamed and weighted": {"train.loss": "weighted_cross_entropy"},
    "streamed, a last batch that is too small to share": {"train.batch_size": "52"},
}
"""Data of a case named so are in blocks, of which each worker reads its own."""
STRATEGIES = {
    "ddp": lambda: strategies.Ddp(most=WORKERS),
    "ddp of half its workers": lambda: strategies.Ddp(most=2 * WORKERS + 1),
    "fsdp": lambda: strategies.Fsdp(most=WORKERS),
    "fsdp of half its workers": lambda: strategies.Fsdp(most=2 * WORKERS),
}
OF_ALL = ("adam", "clipped", "averaged", "weighted", "streamed")
RUNS = [
    (strategy, case)
    for strategy in STRATEGIES
    for case in CASES
    if strategy == "ddp" or case in OF_ALL or (strategy.startswith("ddp") and "last" in case)
]


def build(folder: Path, case: str = "adam", strategy: Any = None, **more: str) -> training.Trainer:
    chosen = test_training.experiment(folder, **{**PLAIN, **CASES[case], **more})
    data = digits() if case.startswith("pictures") else wine(case.startswith("streamed"))
    return training.Trainer(chosen.default(), data, metric="log_loss", strategy=strategy)


@functools.cache
def wine(streamed: bool) -> encoded.Encoded:
    with tempfile.TemporaryDirectory() as folder:
        data = test_training.encode(test_training.experiment(Path(folder)))
    return test_reading.streamed(data) if streamed else data


@functools.cache
def digits() -> encoded.Encoded:
    with tempfile.TemporaryDirectory() as folder:
        source = CASES["pictures that change"]
        return test_training.encode(test_training.experiment(Path(folder), **source))


def work(rank: int, folder: Path, port: int) -> None:
    """What each worker does; the leading one writes what it gets."""
    torch.set_num_threads(1)
    strategies.UNIT = 100  # of the first layer's weights, so that there are units
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", address, rank=rank, world_size=WORKERS)
    own = folder / str(rank)
    own.mkdir()
    for name, case in RUNS:
        done = test_training.finish(build(own, case, STRATEGIES[name]()))
        test_training.keep(done, folder / f"{name} {case}")
    for name, strategy in STRATEGIES.items():
        first = build(own, "averaged", strategy())
        first.epoch()
        first.epoch(lambda: True)  # some batches more
        test_training.keep(first, folder / f"{name} state")
        distributed.barrier()
        resumed = build(own, "averaged", strategy())
        test_training.load(resumed, folder / f"{name} state")
        test_training.keep(test_training.finish(resumed), folder / f"{name} resumed")
    for precision in strategies.PRECISIONS:
        done = test_training.finish(build(own, strategy=strategies.Ddp(precision=precision)))
        test_training.keep(done, folder / precision)
    dropped = build(own, "adam", strategies.Ddp(), **{"model.dropout": "0.5"})
    next(dropped.batches(1))
    (folder / f"drawn {rank}").write_text(str(torch.rand(1)))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers have left the states of their trainings."""
    where = tmp_path_factory.mktemp("group")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    multiprocessing.spawn(work, (where, port), nprocs=WORKERS)
    return where


def restored(folder: Path, name: str, case: str = "adam") -> training.Trainer:
    """What a group has trained, in one process."""
    own = build(folder, case)
    test_training.load(own, folder / name)
    return own


def agree(group: training.Trainer, one: training.Trainer, tolerance: float = 1e-5) -> None:
    """The loss curve is the same, and so are the weights."""
    assert len(group.progress.history) == len(one.progress.history)
    for own, other in zip(group.progress.history, one.progress.history, strict=True):
        for name in ("loss", "train_loss", "peak_loss", "log_loss"):
            assert own[name] == pytest.approx(other[name], rel=tolerance)
    for name, value in one.model.state_dict().items():
        assert torch.allclose(group.model.state_dict()[name], value, atol=tolerance)


@pytest.mark.parametrize(("strategy", "case"), RUNS)
def test_the_loss_curve_of_a_group_is_that_of_one_worker(
    folder: Path, tmp_path: Path, strategy: str, case: str
) -> None:
    one = test_training.finish(build(tmp_path, case))
    group = restored(folder, f"{strategy} {case}", case)
    agree(group, one)
    for name, value in one.best_weights.items():
        assert torch.allclose(group.best_weights[name], value, atol=1e-5)
    for own, other in zip(group.progress.layers, one.progress.layers, strict=True):
        assert own[:2] == other[:2]
        assert own[2:5] == pytest.approx(other[2:5], rel=1e-3)
        assert own.dead == other.dead


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_group_goes_on_from_its_state_and_one_process_does_too(
    folder: Path, tmp_path: Path, strategy: str
) -> None:
    one = test_training.finish(build(tmp_path, "averaged"))
    names = ("resumed", "averaged")
    resumed, whole = (restored(folder, f"{strategy} {of}", "averaged") for of in names)
    assert test_training.equal(resumed.model.state_dict(), whole.model.state_dict())
    assert test_training.equal(resumed.best_weights, whole.best_weights)
    agree(resumed, one)
    agree(test_training.finish(restored(folder, f"{strategy} state", "averaged")), one)


@pytest.mark.parametrize("precision", strategies.PRECISIONS)
def test_half_precision_learns_about_the_same_in_a_group_and_in_one_process(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    own = test_training.finish(build(tmp_path, strategy=strategies.OneProcess(precision=precision)))
    whole = test_training.finish(build(tmp_path))
    assert own.progress.history != whole.progress.history
    agree(own, whole, 0.03)
    agree(restored(folder, precision), own, 0.03)


def test_each_worker_drops_out_its_own(folder: Path) -> None:
    drawn = {(folder / f"drawn {rank}").read_text() for rank in range(WORKERS)}
    assert len(drawn) == WORKERS
