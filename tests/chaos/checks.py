"""What must hold when a search under chaos has ended; each check yields what is broken."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
import torch

from eagleray import errors
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import training
from tests.chaos.searched import Life, Searched, Seen


def trials(done: Searched, records: list[searches.Record]) -> Iterator[str]:
    """Exactly the trials asked for, each with its own configuration, have come to an end."""
    wanted = list(range(1, done.kind.trials + 1))
    if (numbers := [one.number for one in records]) != wanted:
        yield f"{done.name}: trials must be {wanted}, but got {numbers}"
    values = [str(one.values) for one in records]
    yield from (
        f"{done.name}: configurations must differ, but got {count} times {one}"
        for one, count in Counter(values).items()
        if count > 1
    )
    for one in records:
        ended = one.status in ("finished", "stopped")
        whole = one.epoch == done.kind.epochs if one.status == "finished" else one.epoch > 0
        if not ended or not whole or len(one.history) != one.epoch:
            yield (
                f"{done.name}: trial {one.number} must have come to its end, but is {one.status} "
                f"in epoch {one.epoch} of {done.kind.epochs} with {len(one.history)} on record "
                f"({one.failure})"
            )


def curves(done: Searched, records: list[searches.Record]) -> Iterator[str]:
    """Each trial's losses are those of a training that nobody interrupts."""
    torch.set_num_threads(1)  # as in the workers
    relative = 1e-12 if done.kind.exact else 1e-5
    for record in records:
        found = [epoch["train_loss"] for epoch in record.history]
        expected = _losses(done, record)
        if found != pytest.approx(expected, rel=relative, abs=relative):
            epoch = next(
                at
                for at, pair in enumerate(zip(found, expected, strict=True), start=1)
                if pair[0] != pytest.approx(pair[1], rel=relative, abs=relative)
            )
            yield (
                f"{done.name}: trial {record.number} must have the losses of an uninterrupted "
                f"training, but differs in epoch {epoch}: {found[epoch - 1]!r} for "
                f"{expected[epoch - 1]!r}"
            )


def contents(done: Searched, records: list[searches.Record]) -> Iterator[str]:
    """Whatever a document refers to can be read, and no worker has met with a damaged one."""
    for one in records:
        if one.evidence:
            yield f"{done.name}: trial {one.number} has met with damage: {one.evidence}"
        state = done.records.state(one.number, one.values)
        for blob in {*state.contents, *one.weights}:
            try:
                blobs.get(done.store, blob)
            except errors.StorageError as cause:
                yield f"{done.name}: trial {one.number} refers to what cannot be read: {cause}"


def version(done: Searched, printed: Iterable[str]) -> Iterator[str]:
    """One version is registered, and all drivers that ended well have printed the same of it."""
    if done.versions != [1]:
        yield f"{done.name}: one version must be registered, but got {done.versions}"
    if len({_canonical(one) for one in printed}) != 1:
        shown = [one[:300] for one in sorted(set(printed))]
        yield f"{done.name}: drivers must print one result in JSON, but got {shown}"


def repeated(lives: list[Life], seen: list[Seen]) -> Iterator[str]:
    """A worker goes on from the newest checkpoint that was in storage when it began.

    So no more is done again than what was trained since, and nothing of a trial that has ended.
    """
    for life in lives:
        known = [one for one in seen if one.width == life.width and one.at < life.began]
        if any(one.ended for one in known):
            yield f"width {life.width}: has ended, but worker {life.pid} began it again"
        newest = max((one.place for one in known), default=0)
        if life.places[0] <= newest:
            yield (
                f"width {life.width}: worker {life.pid} must go on from batch {newest}, which was "
                f"in storage, but went on from {life.places[0] - 1}"
            )


def whole(lives: list[Life], last: int) -> Iterator[str]:
    """No configuration is trained from its first batch to its last twice."""
    times = Counter(life.width for life in lives if life.places[0] == 1 and life.places[-1] == last)
    for width, count in times.items():
        if count > 1:
            yield f"width {width}: must be trained to its end once, but was {count} times"


def _canonical(printed: str) -> str:
    """JSON with sorted keys; of anything else, what it is."""
    try:
        return json.dumps(json.loads(printed), sort_keys=True)
    except json.JSONDecodeError:
        return f"not JSON: {printed}"


def _losses(done: Searched, record: searches.Record) -> list[float]:
    configuration = done.search.experiment.configuration(record.values)
    one = training.Trainer(
        configuration,
        done.search.dataset.encode(done.search.transforms(configuration)),
        metric=done.search.metric,
        custom=done.search.custom,
    )
    losses = []
    for _ in range(record.epoch):
        metrics = one.epoch()
        assert metrics is not None, "nothing stops it within an epoch"
        losses.append(metrics["train_loss"])
    return losses
