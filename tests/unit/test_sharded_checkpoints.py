"""Checkpoints of which each worker of a group saves its own part; the workers are processes."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from eagleray import storage
from eagleray.state import evaluations, models, searches, sweep
from eagleray.storage import blobs, cache
from ray_jobs import checkpoints, search, strategies, tensors, training, winner
from tests.unit import test_strategies, test_training

WHOLE, DAMAGED, LOST = 1, 2, 3
"""Trials."""
PARTS = 2
"""Workers that save."""


class Worker:
    """A worker of a group, or one that is alone, with the checkpoints of a trial."""

    def __init__(
        self, folder: Path, number: int, strategy: strategies.OneProcess | None = None
    ) -> None:
        self.folder, self.strategy = folder, strategy or strategies.OneProcess()
        self.store = storage.open((folder / "storage").as_uri())
        self.records = searches.Records(self.store, "wine", "0123456789ab")
        own = folder / f"{self.strategy.size}-{self.strategy.rank}"
        own.mkdir(exist_ok=True)
        self.local = Counting(own / "cache", 1 << 30)
        self.uploads = futures.ThreadPoolExecutor(1)
        place = checkpoints.Place(self.store, self.records, self.uploads, self.local)
        self.saving = checkpoints.Checkpoints(place, number, {}, self.strategy)
        self.trainer = test_strategies.build(own, strategy=self.strategy)

    def save(self) -> None:
        self.saving.save(self.trainer)
        assert self.saving.flush(10)

    def restore(self) -> "Worker":
        self.saving.restore(self.trainer)
        return self

    def finish(self) -> training.Trainer:
        return test_training.finish(self.trainer)


class Counting(cache.Cache):
    """Notes which contents are read."""

    read: frozenset[blobs.Blob] = frozenset()

    def open(self, store: storage.Storage, blob: blobs.Blob) -> Any:
        self.read |= {blob}
        return super().open(store, blob)


def saved(worker: Worker, number: int) -> list[searches.Checkpoint]:
    return worker.records.state(number, {}).checkpoints


def two(rank: int, folder: Path) -> dict[str, Any]:
    """Save, go on, resume; meet with damage; lose a worker."""
    strategy, said = strategies.Fsdp(most=PARTS), dict[str, Any]()
    first = Worker(folder, WHOLE, strategy)
    first.trainer.epoch()
    first.save()
    first.trainer.epoch(lambda: True)
    first.save()
    second = Worker(folder, WHOLE, strategy).restore()
    said["own part alone"] = second.local.read == set(saved(second, WHOLE)[0].parts[rank].values())
    ends = [one.finish() for one in (first, second)]
    said["same history"] = len({str(test_training.without_seconds(one)) for one in ends}) == 1
    said["same weights"] = test_training.equal(*(one.best_weights for one in ends))
    said["weights"] = [vars(blob) for blob in second.saving.upload_weights(second.trainer)]
    said["damage"] = _damaged(rank, folder, strategy)
    said["lost"] = _lose(rank, folder, strategy)
    return said


def _damaged(rank: int, folder: Path, strategy: strategies.Fsdp) -> list[Any]:
    first = Worker(folder, DAMAGED, strategy)
    for _ in range(3):
        first.trainer.epoch()
        first.save()
    distributed.barrier()  # the leading worker has written the manifest
    newest = saved(first, DAMAGED)[0]
    rotten = blobs.key(newest.parts[1]["optimizer"])
    distributed.barrier()
    if rank == 0:
        first.store.put(rotten, b"rotten")
    distributed.barrier()
    second = Worker(folder, DAMAGED, strategy).restore()
    (found,) = second.saving.evidence
    return [second.trainer.progress.epoch, rotten in found]


def _lose(rank: int, folder: Path, strategy: strategies.Fsdp) -> list[str]:
    """The second worker leaves when its part is in storage; the keys of this worker's part."""
    first = Worker(folder, LOST, strategy)
    first.trainer.epoch()
    first.saving.save(first.trainer)
    first.uploads.shutdown(wait=True)
    part = first.saving._part
    assert part
    if rank == 0:
        with pytest.raises(RuntimeError, match=r"closed|reset"):
            first.saving.flush(10)
    return [blobs.key(blob) for blob in part.files.values()]


def three(rank: int, folder: Path) -> dict[str, Any]:
    """Resume what two workers have saved."""
    third = Worker(folder, WHOLE, strategies.Fsdp(most=PARTS)).restore()
    read = third.local.read
    parts = saved(third, WHOLE)[0].parts
    said = {"parts": [at for at, one in enumerate(parts) if read & set(one.values())]}
    test_training.keep(third.finish(), folder / "three")
    return said


def work(
    rank: int, folder: Path, size: int, port: int, act: Callable[[int, Path], dict[str, Any]]
) -> None:
    torch.set_num_threads(1)
    strategies.UNIT = 100  # so that there are units
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", address, rank=rank, world_size=size)
    (folder / f"{size}-{rank}.json").write_text(json.dumps(act(rank, folder)))
    os._exit(0)  # a lost worker waits for nobody


def group(folder: Path, size: int, act: Callable[..., Any]) -> list[dict[str, Any]]:
    """Run workers; what each says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    multiprocessing.spawn(work, (folder, size, port, act), nprocs=size)
    return [json.loads((folder / f"{size}-{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("sharded")
    (where / "storage").mkdir()
    return where


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    """What the two workers say that have saved the checkpoints."""
    return group(folder, PARTS, two)


@pytest.fixture
def one(folder: Path, said: object) -> Iterator[Worker]:
    """A process that is alone, after them."""
    worker = Worker(folder, WHOLE)
    yield worker
    worker.uploads.shutdown()


@pytest.fixture
def whole(tmp_path: Path) -> training.Trainer:
    """A training that nobody interrupts, in one process."""
    return test_training.finish(test_strategies.build(tmp_path))


def test_each_worker_saves_what_it_holds_and_reads_it_back_to_the_bit(
    said: list[dict[str, Any]], one: Worker
) -> None:
    for worker in said:
        assert worker["own part alone"]
        assert worker["same history"]
        assert worker["same weights"]
    newest, before = saved(one, WHOLE)
    assert (before.epoch, before.batch) == (1, 0)
    assert (newest.epoch, newest.batch) > (1, 0)  # how far follows from the clock
    sizes = [sum(blob.size for blob in part.values()) for part in newest.parts]
    assert len(sizes) == PARTS
    assert max(sizes) < 1.2 * min(sizes)


def test_one_process_goes_on_from_what_a_group_has_saved(
    one: Worker, whole: training.Trainer
) -> None:
    test_strategies.agree(one.restore().finish(), whole)


@pytest.mark.slow
def test_a_group_of_another_size_goes_on_and_reads_what_it_needs(
    folder: Path, one: Worker, whole: training.Trainer, tmp_path: Path
) -> None:
    first, second, third = group(folder, PARTS + 1, three)
    assert (first["parts"], second["parts"], third["parts"]) == ([0], [0, 1], [1])
    resumed = test_strategies.build(tmp_path)
    test_training.load(resumed, folder / "three")
    test_strategies.agree(resumed, whole)


def test_a_damaged_part_is_named_by_all_workers_and_the_checkpoint_before_is_used(
    said: list[dict[str, Any]],
) -> None:
    assert [worker["damage"] for worker in said] == [[2, True]] * PARTS


def test_a_worker_that_is_lost_before_the_manifest_leaves_nothing_but_what_is_swept(
    said: list[dict[str, Any]], one: Worker
) -> None:
    assert saved(one, LOST) == []
    swept = sweep.sweep(one.store, timedelta(seconds=-2), dry_run=True)
    assert {key for worker in said for key in worker["lost"]} <= {at.key for at in swept.removed}
    states = [one.records.state(number, {}) for number in (WHOLE, DAMAGED)]
    known = {blobs.key(blob) for state in states for blob in state.contents}
    assert {at.key for at in swept.referenced} == known


def test_the_winner_of_a_group_is_the_bundle_that_one_worker_would_have_made(
    said: list[dict[str, Any]], one: Worker, tmp_path: Path
) -> None:
    weights = tuple(blobs.Blob(**blob) for blob in said[0]["weights"])
    assert len(weights) == PARTS
    with contextlib.ExitStack() as stack:
        parts = tensors.Reader(stack.enter_context(one.local.open(one.store, of)) for of in weights)
        whole = tensors.stream({name: parts.read(name) for name in parts.names()}, {})
        alone = (blobs.put(one.store, whole),)
    group = _registered(one, weights, tmp_path / "group")
    assert group == _registered(one, alone, tmp_path / "alone")
    assert "model.safetensors" in group


def _registered(
    one: Worker, weights: tuple[blobs.Blob, ...], folder: Path
) -> dict[str, blobs.Blob]:
    """The files of the version that is made of a trial with these weights.

    But for its evaluation, which has times of this machine.
    """
    folder.mkdir()
    settings = {"storage": one.store.uri, "tune.metric": "log_loss"}
    searched = search.Search(test_training.experiment(folder, **test_strategies.PLAIN, **settings))
    record = searches.Record(number=1, values={}, weights=weights, best={"log_loss": 1.0}, score=1)
    store = storage.open(winner.Winner(searched, [record]).keep(folder / "kept"))
    files = models.Registry(store).version("wine", 1).files
    return {name: blob for name, blob in files.items() if name != evaluations.FILE}
