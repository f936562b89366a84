"""The checkpoints of a trial: what is written when, what is restored, what is left."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray import errors, storage
from eagleray.state import searches
from eagleray.storage import blobs, cache
from ray_jobs import checkpoints, snapshots, training
from tests.unit.test_training import equal, finish, snapshot, trainer, without_seconds


class Storage:
    """A real storage that fails while it is `away`, and counts what is written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.real = storage.open(folder.as_uri())
        self.uri, self.away, self.uploaded = self.real.uri, threading.Event(), list[str]()
        self.tried = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        if self.away.is_set():
            self.tried.release()
            raise errors.StorageUnavailableError(f"{name}: away")
        return getattr(self.real, name)

    def upload(self, key: str, source: Any) -> None:
        self.__getattr__("upload")(key, source)
        self.uploaded.append(key)


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(1) as one:
        yield one


@pytest.fixture
def local(tmp_path: Path) -> cache.Cache:
    return cache.Cache(tmp_path / "cache", 1 << 30)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PAUSE_S", 0.01)


def records(store: Any) -> searches.Records:
    return searches.Records(store, "wine", "0123456789ab")


def worker(
    store: Any, pool: futures.Executor, local: cache.Cache | None = None
) -> checkpoints.Checkpoints:
    """The checkpoints of trial 1 as a worker has them that begins now."""
    local = local or cache.Cache(Path("/nowhere"), 0)
    return checkpoints.Checkpoints(checkpoints.Place(store, records(store), pool, local), 1, {})


def saved(store: Storage) -> list[searches.Checkpoint]:
    return records(store.real).state(1, {}).checkpoints


def train(running: training.Trainer, saving: checkpoints.Checkpoints, epochs: int) -> None:
    for _ in range(epochs):
        running.epoch()
        saving.save(running)
        assert saving.flush(10)


def contents(store: Storage) -> set[str]:
    return {one.key for one in store.real.list(blobs.PREFIX)}


def rot(store: Storage, blob: blobs.Blob) -> None:
    store.real.put(blobs.key(blob), b"rotten")


def test_the_next_worker_goes_on_where_the_last_one_was(
    store: Storage, pool: futures.Executor, local: cache.Cache, tmp_path: Path
) -> None:
    whole = finish(trainer(tmp_path))
    first, saving = trainer(tmp_path), worker(store, pool)
    train(first, saving, 2)
    first.epoch(lambda: True)
    saving.save(first)
    assert saving.flush(10)
    assert [(one.epoch, one.batch) for one in saved(store)] == [(2, 1), (2, 0)]
    second, restored = trainer(tmp_path), worker(store, pool, local)
    restored.restore(second)
    assert (second.progress.epoch, second.partial.batches, restored.evidence) == (2, 1, [])
    assert without_seconds(finish(second)) == without_seconds(whole)
    assert equal(second.model.state_dict(), whole.model.state_dict())


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    store: Storage, pool: futures.Executor, local: cache.Cache, tmp_path: Path
) -> None:
    train(trainer(tmp_path), worker(store, pool), 3)
    newest, before = saved(store)
    rot(store, newest.files["optimizer"])
    running, restored = trainer(tmp_path), worker(store, pool, local)
    restored.restore(running)
    assert running.progress.epoch == before.epoch == 2
    (said,) = restored.evidence
    assert newest.files["optimizer"].sha256 in said
    train(running, restored, 1)
    assert [one.epoch for one in saved(store)] == [3, 2]
    store.real.delete(blobs.key(before.files["optimizer"]))
    rot(store, saved(store)[0].files["model"])
    other = cache.Cache(tmp_path / "another", 1 << 30)
    anew, restored = trainer(tmp_path), worker(store, pool, other)
    restored.restore(anew)
    assert (anew.progress.epoch, len(restored.evidence), restored.saved) == (0, 2, None)


def test_two_checkpoints_stay_and_no_more(
    store: Storage, pool: futures.Executor, tmp_path: Path
) -> None:
    train(trainer(tmp_path), worker(store, pool), 5)
    kept = records(store.real).state(1, {})
    assert [one.epoch for one in kept.checkpoints] == [5, 4]
    assert contents(store) == {blobs.key(one) for one in kept.contents}


def test_weights_that_are_in_storage_are_not_sent_again(
    store: Storage, pool: futures.Executor, tmp_path: Path
) -> None:
    running, saving = trainer(tmp_path), worker(store, pool)
    train(running, saving, 1)
    (best,) = map(blobs.key, saving.upload_weights(running))
    assert store.uploaded[0] == best
    assert len(store.uploaded) == 2  # model and best are one, and the optimizer
    for _ in range(2):
        running.epoch(lambda: True)
        saving.save(running)
        assert saving.flush(10)
    assert store.uploaded.count(best) == 1
    assert len(store.uploaded) == 6


def test_training_goes_on_while_storage_is_away_and_its_newest_state_is_saved_then(
    store: Storage, pool: futures.Executor, tmp_path: Path
) -> None:
    running, saving = trainer(tmp_path), worker(store, pool)
    train(running, saving, 1)
    store.away.set()
    for _ in range(3):
        running.epoch()
        saving.save(running)
        assert store.tried.acquire(timeout=10)
    assert not saving.flush(0.05)
    store.away.clear()
    assert saving.flush(10)
    assert [one.epoch for one in saved(store)] == [4, 1]
    assert contents(store) == {blobs.key(one) for one in records(store).state(1, {}).contents}


def test_weights_wait_for_storage_and_a_refusal_is_raised(
    store: Storage, pool: futures.Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, saving = trainer(tmp_path), worker(store, pool)
    running.epoch()
    store.away.set()
    with futures.ThreadPoolExecutor(1) as other:
        waiting = other.submit(saving.upload_weights, running)
        assert store.tried.acquire(timeout=10)
        store.away.clear()
        assert set(map(blobs.key, waiting.result(timeout=10))) <= contents(store)
    store.away.set()
    running.epoch()
    monkeypatch.setattr(checkpoints, "PATIENCE_S", 0.0)
    with pytest.raises(errors.StorageUnavailableError):
        saving.upload_weights(running)


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("request_number", range(4))
def test_a_killed_upload_leaves_the_checkpoint_before_whatever_was_sent(
    store: Storage,
    pool: futures.Executor,
    local: cache.Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_number: int,
) -> None:
    """The requests of a checkpoint are best, model, optimizer, and its manifest."""
    running, saving = trainer(tmp_path), worker(store, pool)
    train(running, saving, 2)
    running.epoch(lambda: True)
    left = iter(range(request_number))

    def killed(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise Crash
        return real(*arguments)

    real = store.upload if request_number < 3 else store.real.compare_and_swap
    monkeypatch.setattr(store, "upload" if request_number < 3 else "compare_and_swap", killed)
    if request_number == 3:
        left = iter(range(0))
    saving._best = None  # so that all files are sent
    with pytest.raises(Crash):
        saving._commit([saving._upload(snapshot(running, "0123456789ab/1"))])
    assert [(one.epoch, one.batch) for one in saved(store)] == [(2, 0), (1, 0)]
    monkeypatch.undo()
    again, restored = trainer(tmp_path), worker(store, pool, local)
    restored.restore(again)
    assert (again.progress.epoch, restored.evidence) == (2, [])


def test_a_worker_that_was_taken_for_lost_changes_nothing(
    store: Storage, pool: futures.Executor, local: cache.Cache, tmp_path: Path
) -> None:
    lost, losing = trainer(tmp_path), worker(store, pool)
    train(lost, losing, 2)
    heir, inheriting = trainer(tmp_path), worker(store, pool, local)
    inheriting.restore(heir)
    train(heir, inheriting, 1)
    before = saved(store)
    lost.epoch()
    train(lost, losing, 1)
    assert saved(store) == before
    assert {blobs.key(one) for one in records(store).state(1, {}).contents} <= contents(store)
    train(heir, inheriting, 1)
    assert [one.epoch for one in saved(store)] == [4, 3]


def test_a_manifest_whose_answer_was_lost_is_known_for_ones_own(
    store: Storage, pool: futures.Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, saving = trainer(tmp_path), worker(store, pool)
    lost = {"put_if_absent", "compare_and_swap"}

    def unanswered(name: str) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            answer = getattr(store.real, name)(*arguments)
            if name in lost:
                lost.remove(name)
                raise errors.StorageUnavailableError(name)
            return answer

        return write

    for name in sorted(lost):
        monkeypatch.setattr(store, name, unanswered(name), raising=False)
    train(running, saving, 3)
    assert (lost, [one.epoch for one in saved(store)]) == (set(), [3, 2])
    assert contents(store) == {blobs.key(one) for one in records(store.real).state(1, {}).contents}


def test_a_trial_that_has_ended_sends_nothing_more(
    store: Storage, pool: futures.Executor, tmp_path: Path
) -> None:
    running, saving = trainer(tmp_path), worker(store, pool)
    running.epoch()
    store.away.set()
    saving.save(running)
    assert store.tried.acquire(timeout=10)
    saving.close()
    assert saving.flush(10)
    store.away.clear()
    assert (saved(store), contents(store)) == ([], set())


def test_the_next_checkpoints_are_due_a_multiple_of_their_uploads_later() -> None:
    began, pace = time.monotonic(), checkpoints.Pace()
    assert pace.due == float("inf")
    pace.begin(100)
    assert pace.due >= began + 100 * checkpoints.UPLOAD_S * checkpoints.UPLOAD_RATIO
    pace.begin(2)
    assert pace.due >= began + checkpoints.FIRST_S
    before = pace.due
    for _ in range(2):  # of two members
        pace.took(3)
    assert pace.due == before + 6 * checkpoints.UPLOAD_RATIO


def test_a_checkpoint_of_one_file_as_earlier_releases_wrote_it_is_restored(
    store: Storage, pool: futures.Executor, local: cache.Cache, tmp_path: Path
) -> None:
    from ray_jobs import tensors

    first = trainer(tmp_path)
    first.epoch()
    taken = snapshot(first, "")
    named = {f"{file}.{k}": v for file, one in taken.files.items() for k, v in one.items()}
    whole = blobs.put(store.real, tensors.stream(named, {"state": taken.state}))
    document = {"values": {}, "epoch": 1, "blob": vars(whole)}
    store.real.put("searches/wine/0123456789ab/states/00001.json", json.dumps(document).encode())
    second, restored = trainer(tmp_path), worker(store, pool, local)
    restored.restore(second)
    assert equal(second.model.state_dict(), first.model.state_dict())
    train(second, restored, 2)
    assert [one.epoch for one in saved(store)] == [3, 2]
    assert blobs.key(whole) not in contents(store)


def test_the_model_of_a_snapshot_is_read_by_the_library(tmp_path: Path) -> None:
    from safetensors import torch as safe_torch

    running = trainer(tmp_path)
    running.epoch()
    read = safe_torch.load(snapshot(running, "1").stream(snapshots.MODEL).read())
    assert equal(read, running.model.state_dict())
    assert all(isinstance(one, torch.Tensor) for one in read.values())
