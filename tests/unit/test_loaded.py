"""What a process holds of versions, and which ones leave."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eagleray import bundle, errors, storage
from eagleray.engines import exported, placement
from eagleray.engines.torch import Torch
from eagleray.learn import schema
from eagleray.state.models import Registry, Version
from serving import admission, loaded, metrics
from serving.predictor import Predictor
from serving.settings import Settings
from serving.wire import typed_json
from tests import bundles

COLUMNS = bundles.COLUMNS[:-1]  # without texts, which ONNX Runtime would not take
ROW = {one.name: bundles.rows(1)[one.name] for one in COLUMNS}
BODY = json.dumps({"instances": bundles.instances(ROW)}).encode()


class Models(Registry):
    """A registry of four versions of one size; `reads` are the versions of files read."""

    def __init__(self, store: storage.Storage) -> None:
        super().__init__(store)
        self.reads: list[int] = []
        for seed in range(4):
            self.register("left", bundles.files(seed=seed), {})
        self.size = sum(one.size for one in self.version("left", 1).files.values())

    def read(self, version: Version, path: str) -> bytes:
        self.reads.append(version.number)
        return super().read(version, path)


class Observer:
    def loaded(self, version: int, created_s: float) -> None:
        assert created_s > 1.7e9

    def refused(self, version: int) -> None:
        raise AssertionError("whoever loads a version says that it is refused")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(storage.open(tmp_path.as_uri()))


def holding(models: Models, **options: Any) -> loaded.Loaded:
    made: dict[str, Any] = {"build": lambda found: SimpleNamespace(number=found.number)}
    return loaded.Loaded(models, "left", observer=Observer(), **made | options)


def use(held: loaded.Loaded, *numbers: int) -> None:
    """Use one version after the other; each leaves once its successor is there."""
    before: set[int] = set()
    for number in numbers:
        if held.get(number) is None:
            held.load(number, before | {number})
        before = {number}


def test_a_version_with_wrong_golden_rows_is_read_once(models: Models) -> None:
    number = models.register("left", bundles.unfit(), {}).number
    held = holding(models)
    held.load(1, set())
    for _ in range(2):
        with pytest.raises(errors.ServingError, match="golden rows must be reproduced"):
            held.load(number, set())
    assert models.reads.count(number) == models.reads.count(1) > 0
    assert held.numbers == [1]


def test_a_version_of_own_code_is_tried_again(models: Models) -> None:
    made = bundles.behaving("age += torch.rand(1)")
    number, held = models.register("left", made, {}).number, holding(models)
    for _ in range(2):
        with pytest.raises(errors.ServingError, match="golden rows must be reproduced"):
            held.load(number, set())
    assert models.reads.count(number) == 2 * len(made) - 2 * ("reference.json" in made)


def test_beyond_their_memory_the_versions_that_were_used_first_are_unloaded(
    models: Models,
) -> None:
    held = holding(models)
    use(held, 1, 2, 3, 1)
    held.forget(int(1.5 * models.size), {1})
    assert held.numbers == [3, 1]
    held.forget(0, {1})
    assert (held.numbers, held.get(3)) == ([1], None)


def test_few_versions_stay_that_are_not_in_use(models: Models) -> None:
    for _ in range(2):
        models.register("left", bundles.files(), {})
    held = holding(models)
    use(held, 1, 2, 3, 4, 5, 6)
    held.forget(1 << 40, {6})
    assert held.numbers == [3, 4, 5, 6]


def test_a_version_that_does_not_fit_is_refused_once_spares_have_left(models: Models) -> None:
    size = models.size
    free = iter([9 * size, 9 * size, size, 9 * size, size, size])
    held = holding(models, free=lambda: next(free))
    use(held, 1, 2, 3)
    assert held.numbers == [2, 3], "version 1 has left for 3"
    with pytest.raises(errors.NoRoomError) as refused:
        held.load(4, {3, 4})
    assert held.numbers == [3], "and 2 for 4"
    assert "must fit the replica's memory, 2 times its files: 0 MiB" in str(refused.value)


def test_for_one_that_does_not_fit_only_as_many_leave_as_must(models: Models) -> None:
    held = holding(models, budget=int(3.5 * models.size))
    use(held, 1, 2, 3, 1, 4)
    assert held.numbers == [3, 1, 4]


def test_what_leaves_frees_its_memory_even_if_ray_has_frozen_it(models: Models) -> None:
    class Made:
        def __init__(self, found: bundle.Bundle) -> None:
            self.number, self.itself = found.number, self  # as parts of a predictor are

    left: list[weakref.ref[Any]] = []
    room = 1 << 30
    held = holding(models, build=Made, free=lambda: room if not left or left[0]() is None else 0)
    left.append(weakref.ref(held.load(1, set())))
    gc.freeze()  # as Ray Serve does once a replica has started
    try:
        held.load(2, set())
        assert (held.numbers, gc.get_freeze_count() > 0) == ([2], True)
    finally:
        gc.unfreeze()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def placed() -> Iterator[None]:
    before = placement.now()  # which the thread of a version sets
    yield
    placement.use(before)


def in_onnx(found: bundle.Bundle) -> exported.Graph:
    """Have a version run by ONNX Runtime."""
    assert isinstance(found.engine, Torch)
    inputs = found.transforms.apply(schema.parse(found.schema, bundles.rows(2)))
    found.engine.graph = exported.Graph(found.engine.module, inputs)
    return found.engine.graph


def ask(version: Predictor) -> None:
    async def work() -> None:
        reservation = admission.Reservation(admission.Capacity())
        await version.answer(BODY, reservation, typed_json.JSON)

    asyncio.run(work())


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.usefixtures("no_collector", "placed")
def test_a_version_that_leaves_is_gone_at_once_with_its_thread(
    models: Models, tmp_path: Path, *, graph: bool
) -> None:
    number = models.register("left", bundles.files(columns=COLUMNS), {}).number
    observer = metrics.Metrics(tmp_path / "metrics", "left")
    gone: list[weakref.ref[Any]] = []

    def build(found: bundle.Bundle) -> Predictor:
        parts = [found, found.engine, *([in_onnx(found)] if graph else [])]
        gone.extend(map(weakref.ref, parts))
        return Predictor.of(Settings(name="left"), found, observer)

    held = holding(models, build=build)
    ask(held.load(number, set()))
    observer.count()  # it keeps what is not counted yet
    thread = next(one for one in threading.enumerate() if one.name.startswith(f"batch-{number}"))
    held.forget(0, set())
    thread.join(5)
    assert [one() for one in gone] == [None] * (2 + graph)
    assert not thread.is_alive()
