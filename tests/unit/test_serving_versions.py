import itertools
import socket
from collections.abc import Set
from pathlib import Path
from types import SimpleNamespace

import pytest

from eagleray import bundle, errors, storage
from eagleray.state import aliases
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollouts
from serving import loaded, versions
from tests import bundles


class Replica:
    """What the versions report to; `stable` were put into service, `unfit` were refused."""

    def __init__(self) -> None:
        self.followed: list[versions.Followed] = []
        self.built: list[int] = []
        self.unfit: list[int] = []
        self.failures = 0

    @property
    def stable(self) -> list[int]:
        """Each version that was put into service, in order."""
        numbers = [one.stable.number for one in self.followed]
        return [one for one, _ in itertools.groupby(numbers)]

    def build(self, loaded: bundle.Bundle) -> SimpleNamespace:
        self.built.append(loaded.number)
        return SimpleNamespace(number=loaded.number)

    def serving(self, version: int, *, instead_of: int | None) -> None:
        assert instead_of == (self.stable[-2] if len(self.stable) > 1 else None)
        assert version == self.stable[-1]

    def loaded(self, version: int, created_s: float) -> None:
        assert created_s > 1.7e9

    def refused(self, version: int) -> None:
        self.unfit.append(version)

    def storage_error(self) -> None:
        self.failures += 1


class Flaky(Registry):
    """A registry whose storage can be made unreachable."""

    down = False

    def watch(self, name: str, etag: str | None) -> aliases.Aliases | None:
        if self.down:
            raise errors.StorageUnavailableError("down")
        return super().watch(name, etag)


@pytest.fixture
def models(tmp_path: Path) -> Flaky:
    return Flaky(storage.open(tmp_path.as_uri()))


@pytest.fixture
def replica() -> Replica:
    return Replica()


def watching(
    models: Flaky,
    replica: Replica,
    budget: int = 0,
    large: versions.Large | None = None,
) -> versions.Versions:
    held = loaded.Loaded(models, "left", build=replica.build, observer=replica, budget=budget)
    return versions.Versions(
        models,
        "left",
        "champion",
        held=held,
        follow=replica.followed.append,
        observer=replica,
        large=large,
    )


@pytest.fixture
def watcher(models: Flaky, replica: Replica) -> versions.Versions:
    return watching(models, replica)


def test_the_version_follows_the_alias(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    watcher.check()
    assert replica.stable == []
    for seed in (0, 1):
        number = models.register("left", bundles.files(seed=seed), {}).number
        models.promote("left", number)
        watcher.check()
        watcher.check()
    models.rollback("left")
    watcher.check()
    assert replica.stable == [1, 2, 1]
    assert replica.built == [1, 2], "a version that is loaded is not loaded again"


def test_a_version_that_is_unfit_is_refused_once_and_the_old_one_stays(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    made = bundles.files()
    models.register("left", made, {})
    models.promote("left", 1)
    watcher.check()
    models.register("left", bundles.unfit(), {})
    models.register("left", made | {"model.safetensors": b"nonsense"}, {})
    for number in (2, 3):
        models.promote("left", number)
        watcher.check()
        watcher.check()
    assert (replica.stable, replica.unfit, watcher.serving) == ([1], [2, 3], 1)
    models.promote("left", 1)
    watcher.check()
    assert replica.stable == [1]


def refusals(models: Flaky) -> list[tuple[int, str | None]]:
    return [(one.number, one.alias) for one in models.events("left") if one.action == "refused"]


def test_a_refusal_is_one_event_for_each_move_whatever_the_number_of_replicas(
    models: Flaky,
) -> None:
    for files in (bundles.files(), bundles.unfit()):
        models.register("left", files, {})
    replicas = [watching(models, Replica()) for _ in range(20)]

    def look(times: int = 2) -> None:
        for _ in range(times):
            for one in replicas:
                one.check()

    for moves in ((1, 2), (1, 2)):
        for number in moves:
            models.promote("left", number)
            look()
    models.promote("left", 1, alias="challenger")  # the aliases change, champion does not move
    look()
    assert refusals(models) == [(2, "champion"), (2, "champion")]
    actions = [one.action for one in models.events("left")]
    assert actions[2:] == ["promoted", "promoted", "refused"] * 2 + ["promoted"]
    last = models.events("left")[-2]
    assert "golden rows must be reproduced" in last.why
    assert last.by == f"replica on {socket.gethostname()}"


def test_a_refusal_that_storage_takes_no_event_of_changes_nothing(
    models: Flaky,
    replica: Replica,
    watcher: versions.Versions,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for files in (bundles.files(), bundles.unfit(), bundles.files(seed=1)):
        models.register("left", files, {})
    models.promote("left", 1)
    watcher.check()
    models.promote("left", 2)
    folder = tmp_path / "models/left/events"
    folder.rename(tmp_path / "moved")
    folder.write_text("a file where events would be")
    watcher.check()
    watcher.check()
    assert (replica.stable, replica.unfit, replica.failures) == ([1], [2], 0)
    assert caplog.text.count("the refusal is not in the model's events") == 1
    folder.unlink()
    models.promote("left", 3)
    watcher.check()
    assert replica.stable == [1, 3]


def test_a_refusal_is_written_once_storage_answers_again(
    models: Flaky, watcher: versions.Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for files in (bundles.files(), bundles.unfit()):
        models.register("left", files, {})
    models.promote("left", 1)
    watcher.check()
    models.promote("left", 2)
    with monkeypatch.context() as patch:
        down = errors.StorageUnavailableError("down")
        patch.setattr(models, "refuse", lambda *_, **__: (_ for _ in ()).throw(down))
        watcher.check()
    assert refusals(models) == []
    watcher.check()
    assert refusals(models) == [(2, "champion")]


def test_a_version_that_is_repaired_serves_with_the_next_move(
    models: Flaky, replica: Replica, watcher: versions.Versions, tmp_path: Path
) -> None:
    version = models.register("left", bundles.files(), {})
    models.promote("left", 1)
    (blob,) = tmp_path.rglob(f"*{version.files['model.safetensors'].sha256}")
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + b"x")
    watcher.check()
    blob.write_bytes(whole)
    models.promote("left", 1, alias="challenger")
    watcher.check()
    assert (replica.unfit, replica.stable) == ([1], [1])


def test_a_corrupt_blob_is_refused(
    models: Flaky, replica: Replica, watcher: versions.Versions, tmp_path: Path
) -> None:
    version = models.register("left", bundles.files(), {})
    models.promote("left", 1)
    digest = version.files["model.safetensors"].sha256
    (blob,) = tmp_path.rglob(f"*{digest}")
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    watcher.check()
    assert (replica.unfit, watcher.serving) == ([1], None)


def test_a_version_that_a_newer_release_has_registered_is_refused(
    models: Flaky, replica: Replica, watcher: versions.Versions, tmp_path: Path
) -> None:
    for _ in range(2):
        models.register("left", bundles.files(), {})
    models.promote("left", 1)
    watcher.check()
    models.promote("left", 2)
    manifest = tmp_path / "models/left/versions/2.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    watcher.check()
    assert (replica.unfit, replica.failures, watcher.serving) == ([2], 0, 1)


def test_while_storage_is_out_of_reach_nothing_changes(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    models.register("left", bundles.files(), {})
    models.register("left", bundles.files(seed=1), {})
    models.promote("left", 1)
    watcher.check()
    models.promote("left", 2)
    models.down = True
    watcher.check()
    assert (replica.stable, replica.failures) == ([1], 1)
    models.down = False
    watcher.check()
    assert replica.stable == [1, 2]


def test_a_candidate_is_loaded_before_it_gets_requests_and_leaves_with_its_rollout(
    models: Flaky, replica: Replica, watcher: versions.Versions, tmp_path: Path
) -> None:
    for seed in (0, 1):
        models.register("left", bundles.files(seed=seed), {})
    models.promote("left", 1)
    watcher.check()
    rollouts = Rollouts(storage.open(tmp_path.as_uri()))
    begun = rollouts.start("left", 2, plan=Plan(steps=(0.05, 0.5)))
    watcher.check()
    now = replica.followed[-1]
    assert (now.stable.number, now.candidate.number, now.route.share) == (1, 2, 0.05)
    rollouts.abort(begun)
    watcher.check()
    assert replica.followed[-1] == (now.stable, None, None)
    assert replica.stable == [1]


def test_a_candidate_that_is_unfit_gets_no_request_and_says_why(
    models: Flaky, replica: Replica, watcher: versions.Versions, tmp_path: Path
) -> None:
    for files in (bundles.files(), bundles.unfit()):
        models.register("left", files, {})
    models.promote("left", 1)
    Rollouts(storage.open(tmp_path.as_uri())).start("left", 2, plan=Plan())
    watcher.check()
    watcher.check()
    assert (replica.followed[-1].candidate, replica.unfit) == (None, [2])
    assert "golden rows must be reproduced" in watcher.refused


def test_spares_of_versions_stay_until_one_needs_their_room_and_then_it_is_refused(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    for seed in range(6):
        models.promote("left", models.register("left", bundles.files(seed=seed), {}).number)
        watcher.check()
    assert (watcher._held.numbers, replica.unfit) == ([3, 4, 5, 6], [])
    watcher._held._budget = 1
    models.promote("left", 2)
    watcher.check()
    assert (watcher._held.numbers, replica.unfit) == ([6], [2])
    assert "must fit versions_mb" in str(watcher.failure)


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


def test_at_a_start_what_its_own_deployment_refuses_is_asked_for_anew(
    models: Flaky, replica: Replica, large: Elsewhere
) -> None:
    models.promote("left", models.register("left", bundles.files(), {}).number)
    watcher = watching(models, replica, budget=1, large=large)
    large.why[1] = "no replica in time"
    watcher.check()
    assert (watcher.failure, replica.unfit) == (None, [])
    del large.why[1]
    there = large.starts(1)
    watcher.check()
    assert replica.followed[-1].stable is there
