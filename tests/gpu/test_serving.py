"""Serving on a GPU: where weights are, what golden rows allow, and what a replica answers."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from eagleray import bundle
from eagleray.engines import placement
from eagleray.engines.placement import Placement
from tests import bundles
from tests.contract import test_engines as contract

RAW = bundles.rows(300)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = placement.now()
    yield
    placement.use(before)


@pytest.fixture(scope="module")
def on_cpu() -> np.ndarray:
    return bundles.make().predict(RAW).outputs


def loaded(precision: placement.Precision = "fp32") -> bundle.Bundle:
    placement.use(Placement(1, "cuda", precision))
    made = bundle.unpack(bundles.files())
    made.name, made.number = "left", 1
    return made


def test_weights_are_moved_once_and_golden_rows_hold_there(on_cpu: np.ndarray) -> None:
    made = loaded()
    made.verify()
    weights = made.engine.module.state_dict().values()  # type: ignore[attr-defined]
    assert {value.device.type for value in weights} == {"cuda"}
    assert bundle.error(made.predict(RAW).outputs, on_cpu) < 1e-5


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_within_its_bits(
    precision: placement.Precision, on_cpu: np.ndarray
) -> None:
    made = loaded(precision)
    made.verify()
    off = bundle.error(made.predict(RAW).outputs, on_cpu)
    assert 0 < off < placement.TOLERANCES[precision]


def test_batches_of_many_sizes_take_no_more_and_more_memory() -> None:
    made = loaded()
    for rows in range(1, 300, 7):
        made.predict(bundles.rows(rows))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for rows in range(1, 300, 7):
        made.predict(bundles.rows(rows))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_a_program_of_torch_runs_on_the_gpu_as_on_the_cpu() -> None:
    cpu = contract.CASES["export"]()
    placement.use(Placement(1, "cuda"))
    gpu = contract.CASES["export"]()
    np.testing.assert_allclose(gpu.engine.run(gpu.inputs), cpu.engine.run(cpu.inputs), 1e-4, 1e-5)
