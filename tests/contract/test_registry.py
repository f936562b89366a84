"""The laws of the registry, on the file system and on a real S3 server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eagleray import errors, storage
from eagleray.state.models import Registry
from eagleray.storage import blobs

WRITERS = 25


def test_concurrent_registrations_give_distinct_versions(
    store: storage.Storage,
) -> None:
    def register(writer: int) -> int:
        made = Registry(store).register("spam", {"weights": b"same"}, {"writer": writer})
        assert Registry(store).version("spam", made.number) == made
        return made.number

    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = list(pool.map(register, range(WRITERS)))
    assert sorted(numbers) == list(range(1, WRITERS + 1))
    versions = Registry(store).versions("spam")
    assert [version.number for version in versions] == list(range(1, WRITERS + 1))
    assert {version.manifest["writer"] for version in versions} == set(range(WRITERS))
    assert len(Registry(store).events("spam")) == WRITERS


def test_a_version_is_read_back_as_it_was_registered(
    store: storage.Storage, tmp_path: Path
) -> None:
    registry = Registry(store)
    files = {"weights.safetensors": b"\x00\x01", "transforms/state.json": b"{}"}
    made = registry.register("spam", files, {"metrics": {"f1": 0.9}})
    for reference in ("1", "latest"):
        assert registry.resolve("spam", reference) == made
    assert {path: registry.read(made, path) for path in made.files} == files
    registry.pull(made, tmp_path / "pulled")
    assert (tmp_path / "pulled" / "transforms" / "state.json").read_bytes() == b"{}"
    assert registry.models() == ["spam"]


def test_a_corrupt_blob_is_named_and_pulls_nothing(store: storage.Storage, tmp_path: Path) -> None:
    registry = Registry(store)
    made = registry.register("spam", {"a": b"1", "b": b"2"}, {})
    store.put(blobs.key(made.files["b"]), b"rotten")
    with pytest.raises(errors.CorruptObjectError, match=made.files["b"].sha256):
        registry.pull(made, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    store.put("models/spam/versions/1.json", b'{"name": ')
    with pytest.raises(errors.CorruptObjectError, match=r"models/spam/versions/1\.json"):
        registry.version("spam", 1)


def test_an_alias_moves_and_returns_and_is_watched_at_no_cost(store: storage.Storage) -> None:
    registry = Registry(store)
    for _ in range(3):
        registry.register("spam", {}, {})
    assert registry.aliases("spam").values == {}
    assert registry.watch("spam", None) is None
    first = registry.promote("spam", 1)
    assert registry.watch("spam", first.etag) is None
    second = registry.promote("spam", 3)
    assert registry.watch("spam", first.etag) == second
    assert registry.promote("spam", 3) == second
    assert registry.rollback("spam").values == {"champion": 1}
    assert registry.resolve("spam", "champion").number == 1


def test_a_dry_run_shows_the_move_and_moves_nothing(store: storage.Storage) -> None:
    registry = Registry(store)
    for _ in range(2):
        registry.register("spam", {}, {})
    assert registry.promote("spam", 1, dry_run=True).values == {"champion": 1}
    assert registry.aliases("spam").values == {}
    registry.promote("spam", 1)
    registry.promote("spam", 2)
    assert registry.rollback("spam", dry_run=True).values == {"champion": 1}
    assert registry.aliases("spam").values == {"champion": 2}
    assert len(registry.events("spam")) == 4


def test_many_who_promote_at_once_all_leave_their_trace(store: storage.Storage) -> None:
    for _ in range(8):
        Registry(store).register("spam", {}, {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Registry(store).promote("spam", number), range(1, 9)))
    aliases = Registry(store).aliases("spam")
    way = [*aliases.history["champion"], aliases.values["champion"]]
    assert sorted(way) == list(range(1, 9))


def test_of_many_who_make_the_first_champion_one_does_and_the_others_are_told(
    store: storage.Storage,
) -> None:
    for _ in range(8):
        Registry(store).register("spam", {}, {})

    def promote(number: int) -> int | None:
        try:
            return Registry(store).promote("spam", number, expect=None).values["champion"]
        except errors.ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        told = [number for number in pool.map(promote, range(1, 9)) if number is not None]
    aliases = Registry(store).aliases("spam")
    assert (told, aliases.history["champion"]) == ([aliases.values["champion"]], [])
    moves = [one for one in Registry(store).events("spam") if one.action == "promoted"]
    assert len(moves) == 1


def test_of_many_who_register_the_same_one_does(store: storage.Storage) -> None:
    def register(writer: int) -> int:
        lineage = {"search": writer % 2}
        made = Registry(store).register(
            "spam", {}, lineage, same=lambda other: other.manifest == lineage
        )
        return made.number

    with ThreadPoolExecutor(12) as pool:
        numbers = list(pool.map(register, range(12)))
    assert len(set(numbers[::2])) == len(set(numbers[1::2])) == 1
    assert len(Registry(store).versions("spam")) == 2


def test_of_many_replicas_that_refuse_a_version_one_is_in_the_log_for_each_promotion(
    store: storage.Storage,
) -> None:
    registry = Registry(store)
    for _ in range(2):
        registry.register("spam", {}, {})

    def refuse(replica: int) -> None:
        Registry(store).refuse("spam", seen, "champion", by=f"n{replica}", why="x" * 5000)

    for _ in range(2):
        registry.promote("spam", 1)
        seen = registry.promote("spam", 2)
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(refuse, range(WRITERS)))
    moves = [one for one in registry.events("spam") if one.alias]
    assert [one.action for one in moves] == ["promoted", "promoted", "refused"] * 2
    assert [one.number for one in moves] == [1, 2, 2] * 2
    assert len(moves[2].why) == 1000
