"""Which versions a replica loads: signed ones, and own code only where the release allows it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from eagleray import errors, storage
from eagleray.state import keys, signatures
from eagleray.state.models import Registry, Version
from serving import loaded, trust, versions
from tests import bundles

KEY, OTHER = "k" * 32, "o" * 40


class Replica(SimpleNamespace):
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__(served=[], refused_numbers=[])

    def serving(self, version: int, *, instead_of: int | None) -> None:
        self.served.append(version)

    def refused(self, version: int) -> None:
        self.refused_numbers.append(version)

    def loaded(self, version: int, created_s: float) -> None: ...
    def storage_error(self) -> None: ...


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    (tmp_path / "storage").mkdir()
    return Registry(storage.open((tmp_path / "storage").as_uri()))


@pytest.fixture
def signing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the key by which this process signs."""
    file = tmp_path / "signing-key"
    file.write_text(KEY)
    monkeypatch.setenv(signatures.VARIABLE, str(file))
    return file


def followed(models: Registry, rules: trust.Trust) -> tuple[Replica, versions.Versions]:
    replica = Replica()
    watcher = versions.Versions(
        models,
        "left",
        "champion",
        held=loaded.Loaded(
            models,
            "left",
            build=lambda made: SimpleNamespace(number=made.number),  # type: ignore[arg-type]
            observer=replica,
            check=rules.check,
        ),
        follow=lambda _: None,
        observer=replica,
    )
    return replica, watcher


def test_own_code_is_not_run_where_it_is_not_allowed(
    models: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models.register("left", bundles.files(), {})
    ran = tmp_path / "ran"
    behaviour = f"open({str(ran)!r}, 'w').close()"
    models.register("left", bundles.behaving(behaviour), {})
    ran.unlink()
    replica, watcher = followed(models, trust.Trust(allow_own_code=False))
    for number in (1, 2):
        models.promote("left", number)
        watcher.check()
    assert (replica.served, replica.refused_numbers) == ([1], [2])
    assert not ran.exists()
    assert "version 2: a version must have no code of its own" in caplog.text
    assert "serving.allowOwnCode" in caplog.text
    allowed, watcher = followed(models, trust.Trust())
    watcher.check()
    assert (allowed.served, ran.exists()) == ([2], True)


def test_a_registered_version_is_signed_and_a_replica_loads_it(
    models: Registry, signing: Path
) -> None:
    models.register("left", bundles.files(), {"accuracy": 0.1 + 0.2, "classes": ["é", None]})
    models.promote("left", 1)
    replica, watcher = followed(models, trust.Trust(signing_key_file=signing))
    watcher.check()
    assert replica.served == [1]


def test_keys_rotate_without_a_start(models: Registry, signing: Path) -> None:
    rules = trust.Trust(signing_key_file=signing)
    old = models.register("left", bundles.files(), {})
    signing.write_text(f"{OTHER}\n{KEY}\n")
    new = models.register("left", bundles.files(seed=1), {})
    rules.check(old)
    rules.check(new)
    signing.write_text(OTHER)
    rules.check(new)
    with pytest.raises(errors.ServingError, match="is signed by another"):
        rules.check(old)


def rewritten(models: Registry, tmp_path: Path, **changes: object) -> Version:
    """A version as somebody has changed it who can write storage."""
    file = tmp_path / "storage" / keys.VERSION.format(name="left", number=1)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return models.version("left", 1)


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"signature": ""}, "must be signed, but is not"),
        ({"signature": "hmac-sha256:" + "0" * 64}, "is signed by another"),
        ({"signature": "é"}, "is signed by another"),
        ({"manifest": {"accuracy": 1.0}}, "is signed by another"),
        ({"by": "somebody"}, "is signed by another"),
    ],
)
def test_a_version_that_was_changed_in_storage_is_refused(
    models: Registry, signing: Path, tmp_path: Path, changes: dict[str, object], law: str
) -> None:
    models.register("left", bundles.files(), {"accuracy": 0.9})
    models.promote("left", 1)
    rules = trust.Trust(signing_key_file=signing)
    rules.check(models.version("left", 1))
    with pytest.raises(errors.ServingError, match=law):
        rules.check(rewritten(models, tmp_path, **changes))
    replica, watcher = followed(models, rules)
    watcher.check()
    assert (replica.served, replica.refused_numbers) == ([], [1])


def test_a_changed_file_of_a_signed_version_is_refused(
    models: Registry, signing: Path, tmp_path: Path
) -> None:
    first = models.register("left", bundles.files(), {})
    other = models.register("right", bundles.files(seed=1), {})
    swapped = {path: {"sha256": one.sha256, "size": one.size} for path, one in other.files.items()}
    assert first.files != other.files
    with pytest.raises(errors.ServingError, match="is signed by another"):
        trust.Trust(signing_key_file=signing).check(rewritten(models, tmp_path, files=swapped))


def test_without_a_key_nothing_is_signed_and_old_documents_are_read(models: Registry) -> None:
    made = models.register("left", bundles.files(), {})
    assert made.signature == ""
    trust.Trust().check(made)


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_a_key_that_cannot_be_used_stops_who_signs_and_who_verifies(
    models: Registry, signing: Path, content: str | None
) -> None:
    signing.unlink()
    if content is not None:
        signing.write_text(content)
    with pytest.raises(errors.UserError, match="key"):
        models.register("left", bundles.files(), {})
    with pytest.raises(errors.UserError, match="key"):
        trust.Trust(signing_key_file=signing)
    assert models.models() == []
