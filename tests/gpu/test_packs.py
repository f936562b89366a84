"""Packs on a GPU: members become what they become alone. `benchmarks.gpu` says how much faster."""

from pathlib import Path

import pytest
import torch

from ray_jobs import strategies, training
from tests.unit import test_pack

CUDA = strategies.OneProcess("cuda")


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


@pytest.mark.parametrize("dropout", ["0.2", "{uniform: [0.1, 0.5]}"])
def test_what_packs_draw_and_average_is_on_the_gpu(tmp_path: Path, dropout: str) -> None:
    chosen = test_pack.experiment(tmp_path, model=f"dropout: {dropout}", ema=0.9)
    own = [{"model.dropout": 0.1 * rate} if "uniform" in dropout else {} for rate in (2, 3, 4)]
    values = [one | more for one, more in zip(test_pack.VALUES, own, strict=True)]
    trainers = test_pack.trainers(chosen, values, strategy=CUDA)
    test_pack.train(trainers, test_pack.EPOCHS)
    for one in trainers:
        assert one.progress.history[-1]["train_loss"] < one.progress.history[0]["train_loss"]
