"""Packs on a GPU: members become what they become alone, in less time."""

import time
from pathlib import Path

import pytest
import torch

from ray_jobs import pack, pack_size, strategies, training
from tests.unit import test_pack

CUDA = strategies.OneProcess("cuda")
MEMBERS = 8


def members(folder: Path, count: int) -> list[training.Trainer]:
    chosen = test_pack.experiment(folder, source="dataset:digits")
    values = [test_pack.VALUES[place % len(test_pack.VALUES)] for place in range(count)]
    return test_pack.trainers(chosen, values, strategy=CUDA)


def test_each_member_becomes_what_it_becomes_alone(tmp_path: Path) -> None:
    packed, alone = members(tmp_path, 3), members(tmp_path, 3)
    test_pack.train(packed, test_pack.EPOCHS)
    for one, other in zip(alone, packed, strict=True):
        while not one.finished:
            one.epoch()
        for name, value in other.model.state_dict().items():
            assert value.device.type == "cuda"
            torch.testing.assert_close(value, one.model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_pack_takes_so_much_less_time_that_it_is_chosen(tmp_path: Path) -> None:
    def seconds(one: list[training.Trainer]) -> float:
        began = time.perf_counter()
        if len(one) == 1:
            one[0].epoch()
        else:
            pack.epoch(one)
        return (time.perf_counter() - began) / len(one)

    times = {}
    for count in (1, MEMBERS):
        trainers = members(tmp_path, count)
        times[count] = min(seconds(trainers) for _ in range(test_pack.EPOCHS))
    gain = times[1] / times[MEMBERS]
    print(f"a pack of {MEMBERS} is {gain:.1f} times as fast as single trials on the GPU")
    assert gain > pack_size.MIN_GAIN


@pytest.mark.parametrize("dropout", ["0.2", "{uniform: [0.1, 0.5]}"])
def test_what_packs_draw_and_average_is_on_the_gpu(tmp_path: Path, dropout: str) -> None:
    chosen = test_pack.experiment(tmp_path, model=f"dropout: {dropout}", ema=0.9)
    own = [{"model.dropout": 0.1 * rate} if "uniform" in dropout else {} for rate in (2, 3, 4)]
    values = [one | more for one, more in zip(test_pack.VALUES, own, strict=True)]
    trainers = test_pack.trainers(chosen, values, strategy=CUDA)
    test_pack.train(trainers, test_pack.EPOCHS)
    for one in trainers:
        assert one.progress.history[-1]["train_loss"] < one.progress.history[0]["train_loss"]
