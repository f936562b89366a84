from pathlib import Path

import pytest

from eagleray import bundle, errors, storage
from eagleray.state import aliases
from eagleray.state.models import Registry
from serving import alias_watcher
from tests import bundles


class Replica:
    """What an alias watcher reports to; `versions` were put into service, `unfit` were refused."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.unfit: list[int] = []
        self.failures = 0

    def install(self, loaded: bundle.Bundle) -> None:
        self.versions.append(loaded.number)

    def serving(self, version: int, *, instead_of: int | None) -> None:
        assert instead_of == (self.versions[-2] if len(self.versions) > 1 else None)
        assert version == self.versions[-1]

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


@pytest.fixture
def watcher(models: Flaky, replica: Replica) -> alias_watcher.AliasWatcher:
    return alias_watcher.AliasWatcher(models, "left", "champion", replica.install, replica)


def test_the_version_follows_the_alias(
    models: Flaky, replica: Replica, watcher: alias_watcher.AliasWatcher
) -> None:
    watcher.check()
    assert replica.versions == []
    for seed in (0, 1):
        number = models.register("left", bundles.files(seed=seed), {}).number
        models.promote("left", number)
        watcher.check()
        watcher.check()
    models.rollback("left")
    watcher.check()
    assert replica.versions == [1, 2, 1]


def test_a_version_that_is_unfit_is_refused_once_and_the_old_one_stays(
    models: Flaky, replica: Replica, watcher: alias_watcher.AliasWatcher
) -> None:
    made = bundles.files()
    models.register("left", made, {})
    models.promote("left", 1)
    watcher.check()
    golden = made["golden.json"].replace(b'"outputs":[[0.', b'"outputs":[[0.9')
    models.register("left", made | {"golden.json": golden}, {})
    models.register("left", made | {"model.safetensors": b"nonsense"}, {})
    for number in (2, 3):
        models.promote("left", number)
        watcher.check()
        watcher.check()
    assert (replica.versions, replica.unfit, watcher.serving) == ([1], [2, 3], 1)
    models.promote("left", 1)
    watcher.check()
    assert replica.versions == [1]


def test_a_corrupt_blob_is_refused(
    models: Flaky, replica: Replica, watcher: alias_watcher.AliasWatcher, tmp_path: Path
) -> None:
    version = models.register("left", bundles.files(), {})
    models.promote("left", 1)
    digest = version.files["model.safetensors"].sha256
    (blob,) = tmp_path.rglob(f"*{digest}")
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    watcher.check()
    assert (replica.unfit, watcher.serving) == ([1], None)


def test_a_version_that_a_newer_release_has_registered_is_refused(
    models: Flaky, replica: Replica, watcher: alias_watcher.AliasWatcher, tmp_path: Path
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
    models: Flaky, replica: Replica, watcher: alias_watcher.AliasWatcher
) -> None:
    models.register("left", bundles.files(), {})
    models.register("left", bundles.files(seed=1), {})
    models.promote("left", 1)
    watcher.check()
    models.promote("left", 2)
    models.down = True
    watcher.check()
    assert (replica.versions, replica.failures) == ([1], 1)
    models.down = False
    watcher.check()
    assert replica.versions == [1, 2]
