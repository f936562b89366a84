"""Where models run: threads, device, precision, and what the golden rows allow there."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from eagleray import bundle, errors
from eagleray.engines import placement
from eagleray.engines.placement import Placement
from serving.settings import Settings
from tests import bundles
from tests.contract import test_engines as contract


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, threads = placement.now(), torch.get_num_threads()
    yield
    placement.use(before)
    torch.set_num_threads(threads)


def loaded() -> bundle.Bundle:
    made = bundle.unpack(bundles.files())
    made.name, made.number = "left", 1
    return made


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (2.5, 2), (4, 4)])
def test_a_replica_takes_a_thread_for_each_cpu_that_it_reserves(cpus: float, threads: int) -> None:
    assert Settings(name="left", cpus=cpus).place() == Placement(threads, measured=True)


def test_a_replica_with_gpus_runs_on_one_in_the_precision_of_its_choice() -> None:
    settings = Settings(name="left", gpus=0.5, precision="bf16")
    assert settings.place() == Placement(1, "cuda", "bf16", measured=True)
    assert str(settings.place()) == "cuda, threads: 1, bf16"
    with pytest.raises(ValueError, match="precision must be fp32 without gpus, but got fp16"):
        Settings(name="left", precision="fp16")


def test_a_gpu_that_torch_does_not_see_is_refused_before_anything_is_loaded() -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU on this machine")
    with pytest.raises(errors.ServingError, match=r"must see one, but torch .* sees none"):
        placement.use(Placement(device="cuda"))
    assert placement.now().device == "cpu"


def test_golden_rows_hold_in_half_precision_within_its_bits_and_not_within_float32s() -> None:
    whole = loaded().predict(bundles.rows(50)).outputs
    placement.use(Placement(1, precision="bf16"))
    half = loaded()
    half.verify()
    off = bundle.error(half.predict(bundles.rows(50)).outputs, whole)
    assert placement.TOLERANCES["fp32"] < off < placement.TOLERANCES["bf16"]


def test_golden_rows_are_found_to_be_off_in_half_precision_too() -> None:
    placement.use(Placement(1, precision="bf16"))
    half = loaded()
    with torch.no_grad():
        for weights in half.engine.module.parameters():  # type: ignore[attr-defined]
            weights.add_(0.5)
    with pytest.raises(errors.ServingError, match=r"must be reproduced to 0\.04"):
        half.verify()


@pytest.mark.parametrize("name", contract.FILES)
def test_other_engines_keep_their_outputs_with_another_number_of_threads(name: str) -> None:
    one = contract.CASES[name]()
    placement.use(Placement(2))
    two = contract.CASES[name]()
    np.testing.assert_allclose(two.engine.run(two.inputs), one.engine.run(one.inputs), 1e-5, 1e-6)


def test_a_large_table_runs_in_chunks_and_has_the_outputs_of_small_ones() -> None:
    made = loaded()
    raw = bundles.rows(made.engine.chunk + 100)
    some = {name: values[-100:] for name, values in raw.items()}
    np.testing.assert_allclose(
        made.predict(raw).outputs[-100:], made.predict(some).outputs, atol=1e-6
    )
