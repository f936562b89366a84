"""Blocks of encoded rows, and the batches that a training reads of them."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_jobs import pack, training
from ray_jobs.data import blocks, encoded, reading
from tests.unit import test_training

SIZES = (70, 101, 1, 64, *[30] * 40)
"""Rows of blocks of three windows."""
BATCH = 32


def numbered(rows: int) -> encoded.Part:
    """Rows whose input is their number."""
    return encoded.Part({"numeric": np.arange(rows, dtype=np.float32)[:, None]}, np.arange(rows))


def in_blocks(part: encoded.Part, sizes: Sequence[int], got: Any = None) -> blocks.Blocks:
    """The rows in blocks of these sizes; `got` is called with each block that is read."""
    ends = np.cumsum([0, *sizes])
    tables = []
    for first, end in itertools.pairwise(ends):
        inputs = {name: array[first:end] for name, array in part.inputs.items()}
        tables.append(blocks.pack(encoded.Part(inputs, part.targets[first:end])))

    def get(place: int) -> pa.Table:
        if got is not None:
            got(place)
        return tables[place]

    places = tuple(range(len(sizes)))
    return blocks.Blocks(places, tuple(sizes), part.targets, None, get)


def load(inputs: dict[str, Any], targets: Any) -> reading.Batch:
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    return reading.Batch(tensors, torch.from_numpy(targets))


def epoch(part: blocks.Blocks, seed: int = 0, start: int = 0, **place: int) -> list[reading.Batch]:
    generator = torch.Generator().manual_seed(seed)
    return list(part.reader(load, **place).shuffled(BATCH, generator, start))


def numbers(batches: Sequence[reading.Batch]) -> list[list[int]]:
    return [one.target_B.tolist() for one in batches]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return sorted(itertools.chain.from_iterable(lists))


def test_an_epoch_has_each_row_once_in_whole_batches_and_another_order_than_the_next() -> None:
    part = in_blocks(numbered(sum(SIZES)), SIZES)
    first, second = numbers(epoch(part, 1)), numbers(epoch(part, 2))
    assert flat(first) == flat(second) == list(range(sum(SIZES)))
    assert [len(one) for one in first[:-1]] == [BATCH] * (len(first) - 1)
    assert first != second
    assert first == numbers(epoch(part, 1))
    assert all(torch.equal(b.inputs["numeric"][:, 0], b.target_B.float()) for b in epoch(part, 1))


def test_a_batch_has_about_the_same_share_of_each_block_of_its_window() -> None:
    part = in_blocks(numbered(16 * 64), [64] * 16)
    for batch in numbers(epoch(part)):
        assert max(np.bincount([row // 64 for row in batch], minlength=16)) <= 4


@pytest.mark.parametrize("start", [0, 1, 7, 22, 1000])
def test_an_epoch_goes_on_at_any_batch(start: int) -> None:
    read: list[int] = []
    part = in_blocks(numbered(sum(SIZES)), SIZES, read.append)
    assert numbers(epoch(part, 3, start)) == numbers(epoch(part, 3))[start:]
    read.clear()
    epoch(part, 3, 22)
    assert len(read) < len(SIZES)  # windows before the place are not read


@pytest.mark.parametrize("size", [2, 3, 50])
def test_workers_read_disjoint_blocks_that_are_together_the_batches_of_one_worker(
    size: int,
) -> None:
    read: list[list[int]] = [[] for _ in range(size)]
    rows = numbered(sum(SIZES))
    groups = [
        epoch(in_blocks(rows, SIZES, read[rank].append), rank=rank, size=size)
        for rank in range(size)
    ]
    alone = numbers(epoch(in_blocks(rows, SIZES)))
    together = zip(*map(numbers, groups), strict=True)
    assert [flat(own) for own in together] == [sorted(one) for one in alone]
    for batches in zip(*groups, strict=True):
        assert {one.shares for one in batches} == {tuple(len(one.target_B) for one in batches)}
    if size < reading.WINDOW:  # a worker without a block looks at another's for its columns
        assert flat(read) == list(range(len(SIZES)))


def test_at_most_two_windows_are_read_ahead() -> None:
    read: list[int] = []
    sizes = [BATCH] * 100
    batches = in_blocks(numbered(sum(sizes)), sizes, read.append).reader(load)
    taken = batches.shuffled(BATCH, torch.Generator())
    assert read == []
    next(taken)
    assert len(read) <= 2 * reading.WINDOW
    taken.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "batches"), [(1, 1), (33, 1), (34, 2)])
def test_a_last_batch_of_one_row_is_left_out(rows: int, batches: int) -> None:
    assert len(epoch(in_blocks(numbered(rows), [rows]))) == batches
    whole = numbered(rows).reader(load)
    assert len(list(whole.shuffled(BATCH, torch.Generator()))) == batches


def test_tokens_have_no_padding_in_a_block_and_are_as_wide_as_the_widest_in_a_batch() -> None:
    tokens = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [0, 0, 0, 0], [6, 7, 0, 0]], np.int32)
    inputs = {"tokens": tokens, "weights": tokens.astype(np.float32) / 10}
    part = in_blocks(encoded.Part(inputs, np.arange(4)), [1, 2, 1])
    assert part.get(2)["tokens"].to_pylist() == [[6, 7]]
    (batch,) = epoch(part)
    for row, number in enumerate(batch.target_B.tolist()):
        assert batch.inputs["tokens"][row].tolist() == tokens[number].tolist()
        assert batch.inputs["weights"][row].tolist() == inputs["weights"][number].tolist()


def test_pictures_keep_their_shape() -> None:
    images = np.arange(5 * 3 * 2 * 4, dtype=np.float32).reshape(5, 3, 2, 4)
    part = in_blocks(encoded.Part({"image": images}, np.arange(5.0)), [2, 3])
    part = dataclasses.replace(part, image=(3, 2, 4))
    (batch,) = epoch(part)
    assert torch.equal(batch.inputs["image"], torch.from_numpy(images)[batch.target_B.long()])


def streamed(data: encoded.Encoded) -> encoded.Encoded:
    """The same data in three blocks."""
    assert isinstance(data.train, encoded.Part)
    sizes = (40, 30, len(data.train) - 70)
    return dataclasses.replace(data, train=in_blocks(data.train, sizes))


def test_a_training_from_blocks_equals_one_from_memory_where_the_batches_do(tmp_path: Path) -> None:
    """A batch of all rows: their order is not the same, their sum is."""
    options = {"train.batch_size": "200", "model.dropout": "0", "train.lr": "0.01"}
    chosen = test_training.experiment(tmp_path, **options)
    data = test_training.encode(chosen)
    trainings = [
        test_training.finish(training.Trainer(chosen.default(), one, metric="log_loss"))
        for one in (data, streamed(data))
    ]
    whole, blocked = ([epoch["train_loss"] for epoch in t.progress.history] for t in trainings)
    assert blocked == pytest.approx(whole, rel=1e-5)
    assert blocked[-1] < blocked[0]
    assert [epoch["log_loss"] for epoch in trainings[1].progress.history] == pytest.approx(
        [epoch["log_loss"] for epoch in trainings[0].progress.history], rel=1e-5
    )


def test_trials_in_a_pack_read_blocks_once_and_train_as_they_do_alone(tmp_path: Path) -> None:
    read: list[int] = []
    chosen = test_training.experiment(tmp_path, **{"model.dropout": "0", "train.epochs": "2"})
    data, configuration = test_training.encode(chosen), chosen.default()
    assert isinstance(data.train, encoded.Part)
    sizes = (40, 30, len(data.train) - 70)
    data = dataclasses.replace(data, train=in_blocks(data.train, sizes, read.append))

    def build() -> training.Trainer:
        return training.Trainer(configuration, data, metric="log_loss")

    members = [build(), build()]
    for _ in range(2):
        for one, done in zip(members, pack.epoch(members), strict=True):
            one.record(done)
    assert len(read) == 2 * len(sizes)
    alone = test_training.finish(build())
    for one in members:
        for left, right in zip(one.progress.history, alone.progress.history, strict=True):
            assert left["train_loss"] == pytest.approx(right["train_loss"], rel=1e-5)


def test_an_epoch_that_stops_between_two_batches_goes_on_to_the_bit(tmp_path: Path) -> None:
    chosen = test_training.experiment(tmp_path, **{"model.dropout": "0.3", "train.epochs": "2"})
    data = streamed(test_training.encode(chosen))
    whole, parted = (training.Trainer(chosen.default(), data, metric="log_loss") for _ in range(2))
    test_training.finish(whole)
    stops = iter([False, True])
    assert parted.epoch(lambda: next(stops)) is None
    test_training.finish(parted)
    weights = test_training.weights(parted)
    for name, value in test_training.weights(whole).items():
        assert torch.equal(value, weights[name])


def test_rows_are_drawn_by_their_chances_and_the_rest_of_an_epoch_is_the_same() -> None:
    part, rare = numbered(1000), np.arange(1000) >= 990
    reader = part.reader(load, chance_B=np.where(rare, 1 / 10, 1 / 990))

    def drawn(seed: int, start: int = 0) -> list[list[int]]:
        return numbers(list(reader.shuffled(BATCH, torch.Generator().manual_seed(seed), start)))

    first = drawn(1)
    rows = np.concatenate(first)
    assert len(rows) == 1000
    assert (rows >= 990).mean() == pytest.approx(0.5, abs=0.05)
    assert len(set(rows[rows >= 990])) == 10
    assert drawn(1) == first != drawn(2)
    assert drawn(1, 7) == first[7:]
