"""Versions that do not fit beside each other: which one leaves, and what another deployment has."""

import gc
import weakref
from collections.abc import Set
from pathlib import Path
from types import SimpleNamespace

import pytest

from eagleray import bundle, errors, storage
from eagleray.state.rollouts import Plan, Rollouts
from serving import loaded, versions
from tests import bundles
from tests.replicas import Flaky, Replica, watching


@pytest.fixture
def models(tmp_path: Path) -> Flaky:
    return Flaky(storage.open(tmp_path.as_uri()))


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_beyond_their_memory_the_versions_that_were_used_first_are_unloaded(
    models: Flaky, replica: Replica
) -> None:
    sizes = [
        sum(
            blob.size
            for blob in models.register("left", bundles.files(seed=seed), {}).files.values()
        )
        for seed in range(3)
    ]
    watcher = watching(models, replica, memory=max(sizes))
    for number in (1, 2, 3, 2, 1):
        models.promote("left", number)
        watcher.check()
    assert replica.stable == [1, 2, 3, 2, 1]
    assert replica.built == [1, 2, 3, 1]


def test_a_version_that_does_not_fit_is_refused_once_spares_have_left(
    models: Flaky, replica: Replica
) -> None:
    for seed in range(4):
        models.register("left", bundles.files(seed=seed), {})
    size = sum(one.size for one in models.version("left", 1).files.values())
    free = iter([9 * size, 9 * size, size, 9 * size, size, size])
    watcher = watching(models, replica, free=lambda: next(free))
    for number in (1, 2, 3, 4):
        models.promote("left", number)
        watcher.check()
    assert (replica.stable, replica.unfit) == ([1, 2, 3], [4])
    assert watcher._held.numbers == [3], "version 1 has left for 3, and 2 for 4"
    assert "must fit the replica's memory, 2 times its files: 0 MiB" in watcher._refused[4]


def test_for_one_that_does_not_fit_only_as_many_leave_as_must(
    models: Flaky, replica: Replica
) -> None:
    for seed in range(4):
        models.register("left", bundles.files(seed=seed), {})
    size = sum(one.size for one in models.version("left", 1).files.values())
    watcher = watching(models, replica, budget=int(3.5 * size))
    for number in (1, 2, 3, 1, 4):
        models.promote("left", number)
        watcher.check()
    assert (watcher._held.numbers, replica.unfit) == ([3, 1, 4], [])


def test_what_leaves_frees_its_memory_even_if_ray_has_frozen_it(
    models: Flaky, replica: Replica
) -> None:
    for seed in (0, 1):
        models.register("left", bundles.files(seed=seed), {})

    class Made:
        def __init__(self, found: bundle.Bundle) -> None:
            self.number, self.itself = found.number, self  # as parts of a predictor are

    left: list[weakref.ref[Made]] = []
    room = 1 << 30
    held = loaded.Loaded(
        models,
        "left",
        build=Made,
        observer=replica,
        free=lambda: room if not left or left[0]() is None else 0,
    )
    left.append(weakref.ref(held.load(1, set())))
    gc.freeze()  # as Ray Serve does once a replica has started
    try:
        held.load(2, set())
        assert (held.numbers, gc.get_freeze_count() > 0) == ([2], True)
    finally:
        gc.unfreeze()


def test_few_versions_stay_that_are_not_in_use(models: Flaky, replica: Replica) -> None:
    watcher = watching(models, replica)
    for seed in range(6):
        models.promote("left", models.register("left", bundles.files(seed=seed), {}).number)
        watcher.check()
    assert watcher._held.numbers == [3, 4, 5, 6]


class Elsewhere:
    """A deployment for what does not fit; it has what is in `ready`, and refuses what `why` has."""

    def __init__(self) -> None:
        self.ready: dict[int, SimpleNamespace] = {}
        self.why: dict[int, str] = {}
        self.needed: set[int] = set()

    def asked(self, number: int) -> bool:
        return number in self.needed

    def predictor(self, number: int) -> SimpleNamespace | None:
        if number in self.why:
            raise errors.ServingError(self.why[number])
        return self.ready.get(number)

    def keep(self, numbers: Set[int]) -> None:
        self.needed = set(numbers)

    def starts(self, number: int) -> SimpleNamespace:
        """From now on it has the version."""
        return self.ready.setdefault(number, SimpleNamespace(number=number, apart=True))


@pytest.fixture
def large() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def small(models: Flaky, replica: Replica, large: Elsewhere) -> versions.Versions:
    """What follows an alias at version 1 with room for one of two versions."""
    for seed in (0, 1):
        models.register("left", bundles.files(seed=seed), {})
    models.promote("left", 1)
    size = sum(one.size for one in models.version("left", 1).files.values())
    watcher = watching(models, replica, budget=int(1.5 * size), large=large)
    watcher.check()
    assert large.needed == set(), "what fits needs no other deployment"
    return watcher


def test_a_candidate_without_room_is_routed_to_once_its_own_deployment_has_it(
    replica: Replica, large: Elsewhere, small: versions.Versions, tmp_path: Path
) -> None:
    rollouts = Rollouts(storage.open(tmp_path.as_uri()))
    begun = rollouts.start("left", 2, plan=Plan())
    small.check()
    assert (replica.followed[-1].candidate, large.needed) == (None, {2})
    there = large.starts(2)
    small.check()
    assert replica.followed[-1].candidate is there
    del large.ready[2]  # its process has died
    small.check()
    assert (replica.followed[-1].candidate, small.refused, large.needed) == (None, None, {2})
    rollouts.abort(begun)
    small.check()
    assert (replica.stable, replica.built, large.needed) == ([1], [1], set())


def test_a_promoted_one_comes_here_when_the_old_champion_has_left(
    models: Flaky, replica: Replica, large: Elsewhere, small: versions.Versions
) -> None:
    models.promote("left", 2)
    small.check()
    assert replica.followed[-1].stable.number == 1, "it serves until the other one is ready"
    there = large.starts(2)
    small.check()
    assert (replica.followed[-1].stable, large.needed) == (there, {2})
    small.check()
    assert (replica.followed[-1].stable is not there, replica.built) == (True, [1, 2])
    assert (small._held.numbers, large.needed, replica.stable) == ([2], set(), [1, 2])


def test_one_that_never_fits_stays_where_it_is(
    models: Flaky, replica: Replica, large: Elsewhere, small: versions.Versions
) -> None:
    small._held._budget //= 2
    models.promote("left", 2)
    there = large.starts(2)
    for _ in range(3):
        small.check()
    assert (replica.followed[-1].stable, large.needed, replica.built) == (there, {2}, [1])
    large.ready.clear()
    small.check()
    assert (replica.followed[-1].stable, large.needed) == (there, {2}), "requests wait for it"


def test_what_its_own_deployment_refuses_is_refused_and_not_asked_for_again(
    replica: Replica, large: Elsewhere, small: versions.Versions, tmp_path: Path
) -> None:
    large.why[2] = "golden rows"
    Rollouts(storage.open(tmp_path.as_uri())).start("left", 2, plan=Plan())
    for _ in range(2):
        small.check()
    assert (small.refused, replica.unfit, large.needed) == ("golden rows", [2], set())
