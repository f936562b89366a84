"""The page at `/` as HTML: what stands in it, and for whom."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html.parser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from eagleray import apikeys, bundle, errors, imported, look, storage
from eagleray.learn import columns, schema
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollouts
from serving import guard, keys, metrics, rates, rollout, routing, web
from serving.page import form, live
from tests import bundles, elsewhere, pages

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = """"><script>alert('x')</script>&{{ 7*7 }}"""


class Tags(html.parser.HTMLParser):
    """Every tag of a page with its attributes, and all of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str, attribute: str) -> list[str | None]:
        return [attrs[attribute] for tag, attrs in self.tags if tag == name and attribute in attrs]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        yield


@pytest.fixture
def application(tmp_path: Path) -> web.Application:
    made = bundles.make()
    made.golden = bundles.golden(made)
    return pages.application(tmp_path / "metrics", made)


def ask(application: Any, path: str = "/", **headers: str) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(work())


def shown(loaded: bundle.Bundle) -> Tags:
    return Tags(form.made(loaded).body.decode())


def model(column: schema.Column, values: list[Any], **target: Any) -> bundle.Bundle:
    """A model of one column, whose golden rows are these; only its page is asked for."""
    made = bundles.make()
    known = schema.Target(name="left", task="binary", classes=("no", "yes"))
    made.schema = schema.Schema(columns=(column,), target=known.model_copy(update=target))
    made.golden = bundle.Golden({column.name: values}, [])
    return made


def test_a_browser_gets_a_page_and_other_clients_get_json(application: web.Application) -> None:
    page = ask(application, **BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for accept in ("*/*", "application/json"):
        assert ask(application, accept=accept).json()["model"] == "left"
    assert page.headers["vary"] == "accept" or "accept" in page.headers.get_list("vary")


def test_each_field_says_what_it_takes_and_holds_a_real_value(
    application: web.Application,
) -> None:
    page = Tags(ask(application, **BROWSER).text)
    assert page.of("div", "data-name") == ["age", "income $", "city", "member", "joined", "note"]
    assert "a number, 18 to 89 in training" in page.text
    assert [value for value in page.of("option", "value") if value] == [
        "Bern",
        "Oslo",
        "Rome",
        "true",
        "false",
    ]
    values = [attrs for tag, attrs in page.tags if tag == "input" and "data-value" in attrs]
    assert [(one["type"], one["value"]) for one in values] == [
        ("text", "21"),
        ("text", ""),
        ("datetime-local", "2024-01-11T08:00:00"),
    ]


def test_names_categories_and_values_are_text_whatever_stands_in_them() -> None:
    column = schema.Column(
        name=HOSTILE, type="categorical", categories=("a", HOSTILE), missing=(HOSTILE,)
    )
    made = model(column, [HOSTILE], name=HOSTILE, classes=("no", HOSTILE))
    made.name = "left"
    page = shown(made)
    assert page.of("div", "data-name") == [HOSTILE]
    assert page.of("option", "value")[-1] == HOSTILE
    assert [tag for tag, _ in page.tags].count("script") == 1
    refused = errors.RequestError(HOSTILE, status=503)
    said = Tags(form.refused(HOSTILE, web.responses.refusal(refused)).body.decode())
    assert [tag for tag, _ in said.tags].count("script") == 1
    assert said.text.count(HOSTILE) == 3  # title, heading, message


def test_every_page_stands_alone_under_a_policy_that_lets_nothing_else_in(
    application: web.Application,
) -> None:
    application.guard = guard.Guard(None, rates.Rates(1, 1))
    for status in (200, 429):
        answer = ask(application, **BROWSER)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        for tag in ("style", "script"):
            (inner,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", answer.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        page = Tags(answer.text)
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert not [name for _, attrs in page.tags for name in attrs if name == "style"]
        assert not page.of("script", "src")
        assert len(answer.content) < 150_000
        assert answer.headers["cache-control"] == "no-store"


FIELDS: list[tuple[str, dict[str, Any], list[Any], columns.Field]] = [
    (
        "numeric",
        {},
        [1.5],
        columns.Field(keyboard="text", hint="a number", value="1.5", typed=True),
    ),
    ("numeric", {}, [None], columns.Field(keyboard="text", hint="a number", typed=True)),
    (
        "categorical",
        {"categories": ("a", "b")},
        ["c"],
        columns.Field(control="choice", known=("a", "b", "c"), value="c"),
    ),
    (
        "categorical",
        {"categories": tuple(f"{n:02}" for n in range(60))},
        ["07"],
        columns.Field(
            hint="a name; 60 are known", known=tuple(f"{n:02}" for n in range(60)), value="07"
        ),
    ),
    ("categorical", {}, [3.0], columns.Field(hint="a name", value="3")),
    (
        "boolean",
        {},
        ["yes"],
        columns.Field(control="choice", known=("true", "false"), value="true", typed=True),
    ),
    ("text", {}, ["a\nb"], columns.Field(control="lines", value="a\nb")),
    (
        "datetime",
        {"written": "%d.%m.%Y"},
        ["31.12.2024", None],
        columns.Field(type="date", hint="a date", value="2024-12-31"),
    ),
    (
        "datetime",
        {},
        ["2024-12-31T10:00:00.250+01:00"],
        columns.Field(type="datetime-local", hint="a time in UTC", value="2024-12-31T09:00:00.250"),
    ),
]


@pytest.mark.parametrize(("kind", "facts", "values", "expected"), FIELDS)
def test_a_kind_says_its_own_field(
    kind: str, facts: dict[str, Any], values: list[Any], expected: columns.Field
) -> None:
    column = schema.Column(name="x", type=kind, **facts)
    assert column.kind.field(column, values, None) == expected


@pytest.mark.parametrize("kind", list(columns.REGISTRY))
def test_the_value_of_every_kind_is_one_that_its_column_reads(kind: str) -> None:
    column = schema.Column(name="x", type=kind, nullable=True, image_shape=(1, 2, 2))
    examples = {"datetime": "2024-12-31", "image": [[0, 16], [3, 4]], "boolean": True}
    value = examples.get(kind, 7)
    field = column.kind.field(column, [value], (0, 9))
    sent = float(field.value) if field.typed and field.value.isdigit() else field.value
    read, expected = (column.kind.parse(column, [one]) for one in (sent, value))
    np.testing.assert_array_equal(read, expected)
    assert form.made(model(column, [value])).status == 200
    assert form.made(model(column, [None])).status == 200


def test_a_picture_is_shown_bright_and_sent_as_it_is() -> None:
    column = schema.Column(name="scan", type="image", image_shape=(3, 1, 2))
    whole, broken = [[[0, 8, 16], [3, 4, 5]]], [[[0, 0.5, 1], [-3, 4, 5]]]
    first, second = (column.kind.field(column, [one], None) for one in (whole, broken))
    assert column.kind.parse(column, [first.value]).tolist() == (
        column.kind.parse(column, [whole]).tolist()
    )
    assert second.value == "[[[0,0.5,1],[-3,4,5]]]"
    assert first.preview.startswith("data:image/png;base64,")
    assert first.preview != f"data:image/png;base64,{first.value}"


def test_a_kind_of_a_package_needs_no_field_of_its_own() -> None:

    class Duration(columns.NumberKind):
        name, need = "duration", "a duration such as 1h30m"

    field = Duration().field(schema.Column(name="x", type="numeric"), ["1h30m"], (0.0, 7200.0))
    assert field.hint == "a duration such as 1h30m, 0 to 7,200 in training"
    assert (field.control, field.value, field.typed) == ("line", "1h30m", True)


@pytest.mark.parametrize(
    ("content", "frame", "target"),
    [
        (elsewhere.mixed_file, elsewhere.clients, "left"),
        (elsewhere.regressor_file, elsewhere.diabetes, "target"),
        (elsewhere.classifier_file, elsewhere.cancer, "diagnosis"),
    ],
)
def test_a_model_made_elsewhere_has_a_page(content: Any, frame: Any, target: str) -> None:
    made = imported.make("onnx", content(), frame(), imported.Options(target=target))
    page = shown(bundle.unpack(made.files))
    assert page.of("div", "data-name") == [name for name in frame().columns if name != target]
    assert "in training" in page.text


def test_a_column_of_an_old_version_has_no_range(application: web.Application) -> None:
    made = bundles.make()
    made.golden = bundles.golden(made)
    object.__setattr__(made.transforms.numbers, "extremes", None)
    assert "in training" not in shown(made).text


def test_the_page_is_made_once_for_a_version(application: web.Application) -> None:
    first, second = ask(application, **BROWSER), ask(application, **BROWSER)
    assert first.text == second.text
    made = bundles.make(seed=1)
    made.golden = bundles.golden(made)
    pages_of_four = pages.application(Path(application._metrics.folder), made, number=4)
    application.predictor = pages_of_four.predictor
    assert "Version 4 serves" in ask(application, **BROWSER).text


@pytest.mark.parametrize(("scopes", "status"), [(("predict",), 200), (("admin",), 403), ((), 401)])
def test_with_keys_the_page_asks_for_one_and_shows_no_row_without(
    application: web.Application, tmp_path: Path, scopes: tuple[str, ...], status: int
) -> None:
    text, record = apikeys.new("me", scopes or ("predict",))
    (tmp_path / "keys").write_text(record.line())
    application.guard = guard.Guard(keys.Keys(tmp_path / "keys"))
    given = {"authorization": f"Bearer {text}"} if scopes else {}
    answer = ask(application, **BROWSER, **given)
    page = Tags(answer.text)
    assert answer.status_code == status
    assert ("age" in page.of("div", "data-name")) == (status == 200)
    assert ("password" in page.of("input", "type")) == (status != 200)
    assert ("early" in answer.text) == (status == 200)
    assert ask(application, **given).status_code == status  # JSON likewise
    assert ask(application, "/live", **given).status_code == {200: 403, 403: 200}.get(status, 401)


def test_without_a_version_the_page_says_so_and_opens_later(tmp_path: Path) -> None:
    empty = web.Application("left", metrics.Metrics(tmp_path, "left"))
    answer = ask(empty, **BROWSER)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "no version is loaded yet" in answer.text
    assert "data-again" in answer.text


def test_the_page_works_below_a_prefix(application: web.Application) -> None:
    mounted = Starlette(routes=[Mount("/models/left", application)])
    page = Tags(ask(mounted, "/models/left/", **BROWSER).text)
    assert page.of("a", "href") == ["docs", "openapi.json", "docs"]


def test_a_template_fails_on_a_value_that_lacks() -> None:
    with pytest.raises(Exception, match="'message' is undefined"):
        look.Template("serving.page", "refused.html").page(
            name="left", status=500, title="", key=False, again=False
        )


# Live values


class Moment:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def looked(values: live.Live) -> dict[str, Any]:
    return asyncio.run(values.look())


@pytest.fixture
def rollouts(tmp_path: Path) -> Rollouts:
    """Two versions of one model; the first one is the champion."""
    (tmp_path / "storage").mkdir()
    store = storage.open((tmp_path / "storage").as_uri())
    registry = Registry(store)
    for seed in (0, 1):
        registry.register("left", bundles.files(seed=seed), {})
    registry.promote("left", 1)
    return Rollouts(store)


def test_live_values_have_the_rollout_with_its_evidence_and_say_when_storage_is_away(
    tmp_path: Path, rollouts: Rollouts
) -> None:
    clock = Moment()
    values = live.Live(metrics.Metrics(tmp_path / "metrics", "left"), clock)
    values.follow(rollouts, "left", "champion")
    said = looked(values)
    assert (said["storage"], said["rollout"], said["rollout_s"]) == (True, None, 0.0)
    begun = rollouts.start("left", 2, plan=Plan(), why="more data")
    assert looked(values)["rollout"] is None, "storage is asked every two seconds at most"
    clock.now += 2
    said = looked(values)["rollout"]
    assert said["headline"] == ("left: version 2 beside 1, the champion: canary, running at 5%")
    assert said["decisions"][0]["why"] == "more data"
    place = tmp_path / "storage"
    place.rename(tmp_path / "away")
    place.write_text("")
    clock.now += 7
    said = looked(values)
    assert (said["storage"], said["rollout_s"]) == (False, 7.0)
    assert said["rollout"]["candidate"] == begun.candidate
    place.unlink()
    (tmp_path / "away").rename(place)
    rollouts.abort(begun, why="enough")
    clock.now += 2
    said = looked(values)
    assert said["storage"]
    assert said["rollout"]["open"] is False
    assert said["rollout"]["decisions"][0]["why"] == "enough"


def test_a_rollout_is_described_by_what_was_counted_of_both_versions(rollouts: Rollouts) -> None:
    begun = rollouts.start("left", 2, plan=Plan())
    stable, candidate = routing.Tally(), routing.Tally()
    for number in range(100):
        stable.answered(0.001, "yes" if number % 4 else "no")
        candidate.answered(0.001 if number % 2 else 0.1, "yes")
    candidate.failed()
    seen = rollout.Evidence(stable=stable.counts(), candidate=candidate.counts(), grown_mb=20)
    said = rollout.described(rollout.step(begun, seen, 2.0))
    compared = {what: (old, new) for what, old, new in said["compared"]}
    assert compared["requests"] == ("100", "101")
    assert compared["errors"] == ("0.00%", "0.99%")
    assert compared["predicted yes"] == ("75.00%", "100.00%")
    assert compared["memory"] == ("-", "+20 MiB")
    assert [new for what, (_, new) in compared.items() if what.startswith("over ")] == ["50.00%"]
    assert "100 stops it" in said["doubt"]
