"""A trial's member: what it does when it fails, and when it goes on from another's state."""

import errno
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from eagleray import errors, spec, storage
from eagleray.state import searches
from eagleray.storage import blobs, cache
from ray_jobs import strategies, training
from ray_jobs.checkpoints import Place
from ray_jobs.data import encoded, prepare
from ray_jobs.member import Member

STRATEGY = strategies.OneProcess()


@pytest.fixture
def chosen(tmp_path: Path) -> spec.Experiment:
    (tmp_path / "storage").mkdir()
    file = tmp_path / "wine.yaml"
    file.write_text(
        "name: wine\ndata: {source: 'dataset:wine', target: target}\n"
        "model: {hidden: [8]}\n"
        "train: {epochs: 6, batch_size: 64, lr: {loguniform: [1.0e-3, 1.0]}}\n"
        f"storage: file://{tmp_path}/storage\n"
    )
    return spec.load(file)


@pytest.fixture
def data(chosen: spec.Experiment) -> encoded.Encoded:
    dataset = prepare.dataset(chosen)
    return dataset.encode(dataset.fit(chosen.default().features))


@pytest.fixture
def place(chosen: spec.Experiment, tmp_path: Path) -> Iterator[Place]:
    store = storage.open(chosen.storage)
    records, local = searches.Records(store, "wine", "s"), cache.Cache(tmp_path / "cache", 1 << 30)
    with futures.ThreadPoolExecutor(1) as uploads:
        yield Place(store, records, uploads, local, population=True)


@pytest.fixture
def build(
    chosen: spec.Experiment, data: encoded.Encoded
) -> Callable[[dict[str, Any]], training.Trainer]:
    return lambda values: training.Trainer(chosen.configuration(values), data, metric="log_loss")


def save(member: Member) -> None:
    member.save_state()
    assert member.saved.flush(10)


def newest(place: Place, number: int) -> searches.Checkpoint:
    return place.records.state(number, {}, other=True).checkpoints[0]


def fail(member: Member, failure: Exception) -> None:
    with member.failing():
        raise failure


def test_a_failure_of_its_own_is_tried_again_from_the_last_state_and_the_second_one_counts(
    place: Place, build: Any
) -> None:
    member = Member(1, {"train.lr": 0.01}, place, STRATEGY)
    member.start(build)
    member.trainer.epoch()
    save(member)
    member.trainer.epoch()
    fail(member, RuntimeError("the first time"))
    assert (member.again, member.active, member.report("log_loss")) == (True, False, None)
    member.start(build)
    assert (member.active, member.epoch) == (True, 1)
    fail(member, RuntimeError("the second time"))
    report = member.report("log_loss")
    assert report is not None
    assert (report["status"], report["done"]) == ("failed", True)
    assert report["failure"] == "RuntimeError('the second time')"


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.TrainingError("loss must be finite"), "failed"),
        (errors.StorageUnavailableError("no answer"), "lost"),
    ],
)
def test_a_failure_that_would_repeat_to_the_bit_and_one_of_storage_are_not_tried_again(
    place: Place, build: Any, failure: Exception, status: str
) -> None:
    member = Member(1, {"train.lr": 0.01}, place, STRATEGY)
    member.start(build)
    fail(member, failure)
    report = member.report("log_loss")
    assert report is not None
    assert (report["status"], report["done"]) == (status, True)


def test_a_full_disk_is_a_failure_of_the_machine(place: Place, build: Any) -> None:
    """The trial's worker ends, and another one goes on with it."""
    member = Member(1, {"train.lr": 0.01}, place, STRATEGY)
    member.start(build)
    full = errors.CodeError("own:Net: forward must answer, but raised OSError: no space")
    full.__cause__ = OSError(errno.ENOSPC, "no space")
    with pytest.raises(errors.ClusterError, match="a disk must have room, but own:Net"):
        fail(member, full)
    assert member.active
    assert "failure" not in (member.report("log_loss") or {})


def test_a_clone_goes_on_from_anothers_weights_of_which_no_byte_is_copied(
    place: Place, build: Any
) -> None:
    source, clone = (
        Member(number, {"train.lr": 0.1 / number}, place, STRATEGY) for number in (1, 2)
    )
    for one in (source, clone):
        one.start(build)
        for _ in range(2):
            one.trainer.epoch()
        save(one)
    checkpoint = newest(place, 1)
    contents = [entry.key for entry in place.storage.list(blobs.PREFIX)]
    clone.clone(build, {"train.lr": 0.2}, checkpoint)
    assert [entry.key for entry in place.storage.list(blobs.PREFIX)] == contents
    assert clone.trainer.progress == source.trainer.progress
    assert place.records.state(2, {"train.lr": 0.2}).checkpoints == [checkpoint]
    clone.trainer.epoch()
    report = clone.report("log_loss")
    assert report is not None
    assert (report["values"], report["epoch"], len(report["history"])) == ({"train.lr": 0.2}, 3, 3)
    assert report["seconds"] == report["history"][-1]["seconds"]


def test_a_clone_whose_worker_is_lost_goes_on_under_its_changed_values(
    place: Place, build: Any
) -> None:
    source = Member(1, {"train.lr": 0.1}, place, STRATEGY)
    source.start(build)
    source.trainer.epoch()
    save(source)
    checkpoint = newest(place, 1)
    clone = Member(2, {"train.lr": 0.01}, place, STRATEGY)
    clone.start(build)
    clone.clone(build, {"train.lr": 0.3}, checkpoint)
    again = Member(2, {"train.lr": 0.01}, place, STRATEGY)
    again.start(build)
    assert (again.values, again.epoch) == ({"train.lr": 0.3}, 1)
    source.trainer.epoch()
    save(source)
    save(source)
    again.start(build)  # the files that it shares are still there
    assert again.epoch == 1
