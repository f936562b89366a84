"""How aliases move, and what is refused by name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray import errors, storage
from eagleray.state import aliases
from eagleray.state.models import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(storage.open(tmp_path.as_uri()))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_rolling_back_walks_the_way_an_alias_came(numbers: list[int]) -> None:
    way = [aliases.Aliases()]
    for number in numbers:
        now = aliases.promoted(way[-1], "champion", number)
        if now is not way[-1]:
            way.append(now)
    now = way[-1]
    for earlier in reversed(way[1:-1]):
        now = aliases.rolled_back(now, "champion", "spam")
        assert (now.values, now.history) == (earlier.values, earlier.history)
    assert now.moves["champion"] == 2 * len(way) - 3, "moves back count as well"
    with pytest.raises(errors.NotFoundError, match="is its first"):
        aliases.rolled_back(now, "champion", "spam")


def test_an_alias_moves_alone() -> None:
    now = aliases.promoted(aliases.Aliases(), "champion", 1)
    now = aliases.promoted(now, "shadow", 2)
    now = aliases.promoted(now, "champion", 3)
    assert now.values == {"champion": 3, "shadow": 2}
    assert aliases.rolled_back(now, "champion", "spam").values == {"champion": 1, "shadow": 2}


@pytest.mark.parametrize("name", ["", "Spam", "a_b", "-a", "a-", "a/b", "..", "a" * 64])
def test_a_model_name_that_is_no_label_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(errors.UserError, match=r"^model: must be 1 to 63"):
        registry.register(name, {}, {})


@pytest.mark.parametrize("alias", ["latest", "12", "Champion"])
def test_an_alias_that_stands_for_something_else_is_refused(registry: Registry, alias: str) -> None:
    registry.register("spam", {}, {})
    with pytest.raises(errors.UserError, match=r"^alias: must be"):
        registry.promote("spam", 1, alias)


def test_what_does_not_exist_is_named_with_what_does(registry: Registry) -> None:
    registry.register("spam", {"weights": b""}, {})
    registry.promote("spam", 1)
    for ask, message in (
        (lambda: registry.resolve("spma", "latest"), "got 'spma'; did you mean 'spam'"),
        (lambda: registry.resolve("spam", "champoin"), "got 'champoin'; did you mean 'champion'"),
        (lambda: registry.resolve("spam", "2"), r"one of its versions \(1\), but got 2"),
        (lambda: registry.promote("spam", 2), r"one of its versions \(1\), but got 2"),
        (lambda: registry.rollback("spam"), "1 is its first"),
        (lambda: registry.rollback("spam", "shadow"), "an alias that is set, but got 'shadow'"),
        (lambda: registry.read(registry.version("spam", 1), "weight"), "did you mean 'weights'"),
    ):
        with pytest.raises(errors.NotFoundError, match=message):
            ask()
    assert [event.action for event in registry.events("spam")] == ["registered", "promoted"]


def test_a_path_that_leaves_the_folder_is_never_written(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(errors.UserError, match="a key must be"):
        registry.register("spam", {"../escaped": b"x"}, {})
    assert registry.versions("spam") == []


def test_events_sort_by_the_clock_and_say_who_and_why(tmp_path: Path) -> None:
    clock = iter(range(10**18, 2 * 10**18, 10**9))
    registry = Registry(storage.open(tmp_path.as_uri()), now=lambda: next(clock))
    for _ in range(3):
        registry.register("spam", {}, {})
    registry.promote("spam", 1, by="ann", why="first")
    registry.promote("spam", 3, by="bob", why="better")
    registry.rollback("spam", why="worse")
    told = [(e.action, e.number, e.previous, e.by, e.why) for e in registry.events("spam")[3:]]
    assert told == [
        ("promoted", 1, None, "ann", "first"),
        ("promoted", 3, 1, "bob", "better"),
        ("rolled-back", 1, 3, aliases.user(), "worse"),
    ]


def test_the_log_keeps_the_order_of_moves_when_a_clock_jumps_back(tmp_path: Path) -> None:
    clock = iter([5 * 10**18, 5 * 10**18, 4 * 10**18, 10**18, 10**18])
    registry = Registry(storage.open(tmp_path.as_uri()), now=lambda: next(clock))
    for _ in range(2):
        registry.register("spam", {}, {})
    for number in (1, 2, 1):
        registry.promote("spam", number)
    moves = [event for event in registry.events("spam") if event.alias]
    assert [(one.previous, one.number) for one in moves] == [(None, 1), (1, 2), (2, 1)]


def test_two_that_end_in_the_same_moment_are_both_in_the_log(tmp_path: Path) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()), now=lambda: 10**18)
    for _ in range(2):
        registry.register("spam", {}, {})
    registry.promote("spam", 1, expect=None)
    with pytest.raises(errors.ConflictError, match="champion must point to version none"):
        registry.promote("spam", 2, expect=None)
    registry.promote("spam", 2)
    told = [(event.action, event.number) for event in registry.events("spam")]
    assert told == [("registered", 1), ("registered", 2), ("promoted", 1), ("promoted", 2)]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b'{"kind": "mlflow-model"}',
        b'{"name": "other", "number": 3, "created": "", "files": {}, "manifest": {}}',
        b'{"kind": "version", "format": 2, "written_by": "7.1.0"}',
    ],
)
def test_a_foreign_manifest_is_skipped_and_named_where_it_is_asked_for(
    registry: Registry, tmp_path: Path, manifest: bytes
) -> None:
    registry.register("spam", {}, {})
    store = storage.open(tmp_path.as_uri())
    store.put("models/spam/versions/3.json", manifest)
    skipped: list[Exception] = []
    assert [one.number for one in registry.versions("spam", skipped.append)] == [1]
    assert "models/spam/versions/3.json" in str(skipped[0])
    assert registry.register("spam", {}, {}, same=lambda _: False).number == 4
    with pytest.raises((errors.CorruptObjectError, errors.NewerFormatError), match=r"3\.json"):
        registry.promote("spam", 3)
    assert [event.number for event in registry.events("spam")] == [1, 4]


def test_files_that_are_no_versions_are_none(registry: Registry, tmp_path: Path) -> None:
    registry.register("spam", {}, {})
    store = storage.open(tmp_path.as_uri())
    for key in ("spam/versions/7.txt", "spam/versions/old/8.json", "Other/versions/1.json", "x.md"):
        store.put(f"models/{key}", b"foreign")
    assert registry.models() == ["spam"]
    assert registry.latest("spam") == 1
