"""Which differences of two schemas clients notice: judged by what the endpoint takes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eagleray import cli, compatibility, errors, storage
from eagleray.learn import columns
from eagleray.learn.schema import Column, Schema, Target
from eagleray.state.models import Registry
from serving import protocol
from tests import bundles

LEFT = Target(name="left", task="binary", classes=("no", "yes"))
OLD = Schema(
    columns=(
        Column(name="age", type="numeric", nullable=True, missing=("?",)),
        Column(name="zone", type="categorical", categories=("1", "2")),
        Column(name="note", type="text"),
        Column(name="day", type="datetime", written="%d.%m.%Y"),
        Column(name="face", type="image", image_shape=(1, 8, 8)),
    ),
    target=LEFT,
)


def breaking(new: Schema, old: Schema = OLD) -> list[str]:
    return [str(change) for change in compatibility.changes(old, new) if change.breakage]


def changed(name: str, **update: object) -> Schema:
    columns = (c.model_copy(update=update) if c.name == name else c for c in OLD.columns)
    return OLD.model_copy(update={"columns": tuple(columns)})


def added(**facts: Any) -> Schema:
    return OLD.model_copy(update={"columns": (*OLD.columns, Column(name="pay", **facts))})


def predicting(**facts: Any) -> Schema:
    return OLD.model_copy(update={"target": LEFT.model_copy(update=facts)})


@pytest.mark.parametrize(
    ("new", "notice"),
    [
        (added(type="numeric"), "column pay: none → numeric: requests that lack it are refused"),
        (
            OLD.model_copy(update={"columns": OLD.columns[1:]}),
            "column age: numeric, may be missing → none: requests that have it are refused",
        ),
        (changed("age", type="text"), "a value must be text"),
        (changed("age", nullable=False), "requests that lack a value are refused"),
        (changed("age", missing=()), r"the mark \? is refused"),
        (changed("zone", categories=("a",)), "only 1, 2 → only a: numbers without quotes"),
        (changed("zone", type="text"), "numbers without quotes are refused"),
        (changed("day", written=None), "dates in the format before are refused"),
        (changed("face", image_shape=(3, 8, 8)), "pictures with other channels are refused"),
        (
            changed("age", decimal_comma=True),
            "decimal: point → comma: numbers written as text are read otherwise",
        ),
        (predicting(classes=("no", "oui")), "only yes → only oui: an answer has other labels"),
        (
            predicting(task="multiclass", classes=("no", "yes", "later")),
            "none → only later: an answer has other labels",
        ),
        (predicting(task="regression", classes=()), "an answer has another form"),
    ],
)
def test_what_clients_would_notice_is_named(new: Schema, notice: str) -> None:
    with pytest.raises(AssertionError, match=notice):
        assert breaking(new) == []


def test_another_order_of_classes_is_told() -> None:
    (change,) = compatibility.changes(OLD, predicting(classes=("yes", "no")))
    assert (change.what, change.before, change.after) == ("order of classes", "no, yes", "yes, no")


def test_a_column_of_another_kind_may_lose_its_gaps() -> None:
    old, new = changed("note", nullable=True), changed("note", type="categorical")
    (notice,) = breaking(new, old)
    assert "requests that lack a value are refused" in notice


@pytest.mark.parametrize(
    "new",
    [
        added(type="numeric", nullable=True),
        changed("age", integer=True, missing=("?", "-")),
        changed("note", nullable=True),
        changed("note", type="categorical", categories=("a",)),
        changed("zone", categories=("1", "3")),
        changed("face", image_shape=(1, 16, 16)),
        predicting(name="gone"),
        predicting(task="multiclass"),
        predicting(classes=("yes", "no")),
    ],
)
def test_what_clients_do_not_notice_is_no_obstacle(new: Schema) -> None:
    assert breaking(new) == []


PICTURE = [[1, 2], [3, 4]]
SENT: dict[str, list[object]] = {
    "numeric": [1, 0.5],
    "boolean": [True, "yes", 0],
    "datetime": ["2024-01-31", 1_700_000_000],
    "categorical": ["x", "a name"],
    "text": ["x", "some words"],
    "identifier": ["x", "u17"],
    "image": [PICTURE],
}
"""What clients of a column send, by its kind."""


@pytest.mark.parametrize("before", [*columns.REGISTRY])
@pytest.mark.parametrize("after", [*columns.REGISTRY])
def test_a_change_of_kind_is_an_obstacle_where_values_of_the_one_are_refused_by_the_other(
    before: str, after: str
) -> None:
    old, new = (only(type=kind, image_shape=(1, 2, 2)) for kind in (before, after))
    sent = [json.dumps({"instances": [{"a": value}]}).encode() for value in SENT[before]]
    assert all(taken(old, body) for body in sent)
    found = breaking(new, old)
    assert found or all(taken(new, body) for body in sent)
    words = {"categorical", "text", "identifier"}
    assert bool(found) == (before != after and not {before, after} <= words)


names = st.sampled_from(["a", "b", "c"])
columns_of_any_kind = st.builds(
    Column,
    name=names,
    type=st.sampled_from([*columns.REGISTRY]),
    nullable=st.booleans(),
    missing=st.sampled_from([(), ("?",), ("?", "gone")]),
    categories=st.sampled_from([None, ("x", "y"), ("1", "x")]),
    image_shape=st.sampled_from([(1, 2, 2), (1, 4, 4), (3, 2, 2)]),
    written=st.sampled_from([None, "%d.%m.%Y"]),
)
schemas = st.lists(columns_of_any_kind, max_size=3, unique_by=lambda column: column.name).map(
    lambda made: Schema(columns=tuple(made), target=LEFT)
)
values = st.sampled_from(
    [None, 1, 0.5, True, "x", "1", "?", "gone", "2024-01-31", "31.01.2024", PICTURE]
)


def only(**facts: Any) -> Schema:
    return Schema(columns=(Column(name="a", **facts),), target=LEFT)


@settings(max_examples=300)
@given(schemas, schemas, st.dictionaries(names, values))
@example(only(type="categorical", nullable=True), only(type="text"), {})
def test_what_a_version_takes_a_compatible_one_takes(
    old: Schema, new: Schema, row: dict[str, object]
) -> None:
    body = json.dumps({"instances": [row]}).encode()
    if taken(old, body) and not breaking(new, old):
        assert taken(new, body)


def taken(known: Schema, body: bytes) -> bool:
    codec = protocol.Codec(known)
    try:
        codec.parse(codec.rows(body))
    except errors.RequestError:
        return False
    return True


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A model whose third version predicts other classes; the first is champion."""
    registry = Registry(storage.open(tmp_path.as_uri()))
    other = Target(name="left", task="binary", classes=("no", "maybe"))
    for target in (None, None, other):
        registry.register("churn", bundles.files(target=target), {})
    registry.promote("churn", 1)
    return tmp_path.as_uri()


def test_a_version_that_breaks_clients_is_promoted_only_when_told_so(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    promote = ["models", "promote", "churn", "--storage", uri]
    assert cli.main([*promote, "2"]) == 0
    assert cli.main([*promote, "3"]) == 2
    told = capsys.readouterr().err
    assert "must answer clients of version 2, but version 3 has another schema: classes" in told
    assert "--allow-schema-change" in told
    assert cli.main([*promote, "3", "--dry-run"]) == 2
    assert cli.main([*promote, "3", "--allow-schema-change"]) == 0
    assert cli.main(["models", "rollback", "churn", "--storage", uri]) == 0
    assert Registry(storage.open(uri)).aliases("churn").values == {"champion": 2}


def test_clients_that_send_whole_records_need_a_version_that_ignores_further_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, made = Registry(storage.open(tmp_path.as_uri())), bundles.files()
    ignoring = made["bundle.json"].replace(b'"extra_fields":"refuse"', b'"extra_fields":"ignore"')
    fewer = bundles.files(columns=bundles.COLUMNS[:2])
    lenient = fewer["bundle.json"].replace(b'"extra_fields":"refuse"', b'"extra_fields":"ignore"')
    for changed in ({"bundle.json": ignoring}, {}):
        registry.register("churn", made | changed, {})
    registry.register("churn", fewer | {"bundle.json": lenient}, {})
    registry.promote("churn", 1)
    promote = ["models", "promote", "churn", "--storage", tmp_path.as_uri()]
    assert cli.main([*promote, "2"]) == 2
    told = "extra fields: ignore → refuse: requests with fields that are no columns are refused"
    assert told in capsys.readouterr().err
    assert cli.main([*promote, "3"]) == 0, "it has fewer columns, and ignores the others"


def test_diff_shows_what_differs_in_the_schemas(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "diff", "churn", "1", "3", "--storage", uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"fact": "classes", "left": "only yes", "right": "only maybe"} in found


def test_an_alias_that_moved_is_left_alone(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    promote = ["models", "promote", "churn", "2", "--storage", uri, "--expect"]
    assert cli.main([*promote, "none"]) == 2
    assert "champion must point to version none, but points to 1" in capsys.readouterr().err
    assert cli.main([*promote, "one"]) == 2
    assert "--expect: must be a version's number or none" in capsys.readouterr().err
    assert cli.main([*promote, "1"]) == 0


def test_a_schema_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()))
    registry.register("churn", {"bundle.json": b"{}"}, {})
    registry.register("churn", bundles.files(), {})
    registry.promote("churn", 1)
    promote = ["models", "promote", "churn", "2", "--storage", tmp_path.as_uri()]
    assert cli.main(promote) == 1
    assert "version 1: must have a schema" in capsys.readouterr().err
    assert cli.main([*promote, "--allow-schema-change"]) == 0
