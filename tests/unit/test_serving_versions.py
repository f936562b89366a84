"""Versions that follow an alias: what is served, what is refused, and what storage hears of it."""

import socket
from pathlib import Path

import pytest

from eagleray import errors, storage
from eagleray.state.rollouts import Plan, Rollouts
from serving import versions
from tests import bundles
from tests.replicas import Flaky, Replica, unfit, watching


@pytest.fixture
def models(tmp_path: Path) -> Flaky:
    return Flaky(storage.open(tmp_path.as_uri()))


@pytest.fixture
def replica() -> Replica:
    return Replica()


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
    models.register("left", unfit(), {})
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
    for files in (bundles.files(), unfit()):
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
    for files in (bundles.files(), unfit(), bundles.files(seed=1)):
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
    for files in (bundles.files(), unfit()):
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


def test_a_version_with_wrong_golden_rows_is_read_once_however_often_aliases_move(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    for files in (bundles.files(), unfit()):
        models.register("left", files, {})
    for number in (1, 2, 1, 2):
        models.promote("left", number)
        watcher.check()
    assert replica.unfit == [2, 2], "each promotion of it is refused"
    assert models.reads.count(2) == models.reads.count(1) > 0


def test_a_version_of_own_code_is_tried_again(
    models: Flaky, replica: Replica, watcher: versions.Versions
) -> None:
    made = bundles.behaving("age += torch.rand(1)")
    for files in (bundles.files(), made):
        models.register("left", files, {})
    for number in (1, 2, 1, 2):
        models.promote("left", number)
        watcher.check()
    assert replica.unfit == [2, 2]
    assert models.reads.count(2) == 2 * len(made) - 2 * ("reference.json" in made)


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
    for files in (bundles.files(), unfit()):
        models.register("left", files, {})
    models.promote("left", 1)
    Rollouts(storage.open(tmp_path.as_uri())).start("left", 2, plan=Plan())
    watcher.check()
    watcher.check()
    assert (replica.followed[-1].candidate, replica.unfit) == (None, [2])
    assert "golden rows must be reproduced" in watcher.refused
