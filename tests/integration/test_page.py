"""The page at `/` in Chromium, against the application under uvicorn."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from eagleray import apikeys, storage
from eagleray.learn import schema
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollouts
from serving import admission, guard, keys, metrics, rates, served, web
from serving.page import live
from serving.settings import Settings
from tests import bundles, pages

PHONE = {"width": 360, "height": 740}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE},
}


@pytest.fixture(scope="module", autouse=True)
def variables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        pages.count_anew(patch)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pages.chromium() as made:
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[web.Application, str]]:
    made = bundles.make()
    made.golden = bundles.golden(made)
    application = pages.application(tmp_path_factory.mktemp("metrics"), made)
    with pages.served(application) as url:
        yield application, url


@pytest.fixture
def endpoint(whole: tuple[web.Application, str]) -> Iterator[tuple[web.Application, str]]:
    """The application, which a test may change, and its URL."""
    application = whole[0]
    before = application.predictor, application.capacity
    yield whole
    application.guard = None
    application.predictor, application.capacity = before


class Visit:
    """A page in a browser of its own, and what went wrong in it."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(10_000)
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if "Failed to load resource" not in message.text:  # of an answer that is not 200
            self.faults.append(message.text)


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    made = Visit(browser, **getattr(request, "param", {}))
    yield made
    made.page.context.close()
    assert made.faults == []


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector("[data-by]")


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:100]}" for one in found for node in one["nodes"]]


def test_the_example_is_answered_with_confidence_contributions_and_version(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    page = visit.page
    page.goto(endpoint[1])
    predict(page)
    answer = page.locator("[data-answer]")
    expect(answer.locator(".headline")).to_have_text("left: no")
    expect(answer).to_contain_text("probability0.57")
    expect(answer).to_contain_text("Answered by version 3 in ")
    why = answer.get_by_role("table", name="What each column adds to that average")
    assert why.get_by_role("rowheader").count() == len(bundles.COLUMNS)
    expect(answer).to_contain_text("The probability of no is 0.57")
    page.get_by_label("city").select_option("Bern")
    page.get_by_role("checkbox").uncheck()
    predict(page)
    expect(why).to_have_count(0)
    assert not any("Bern" in url or "early" in url for url in visit.asked)


def test_the_command_is_the_same_request(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    page = visit.page
    page.goto(endpoint[1])
    page.get_by_label("note").fill('it\'s $HOME `x` \\ "late"\n🙂')
    page.get_by_role("textbox", name="age").fill("33")
    predict(page)
    words = shlex.split(page.locator("[data-curl]").inner_text())
    assert words[:2] == ["curl", "-s"]
    sent = dict(zip(words[3::2], words[4::2], strict=True))
    row = json.loads(sent["-d"])["instances"][0]
    assert row["note"] == 'it\'s $HOME `x` \\ "late"\n🙂'
    assert (row["age"], row["income $"], row["joined"]) == (33, None, "2024-01-11T08:00")
    said = httpx.post(words[2], content=sent["-d"], headers={"content-type": "application/json"})
    (answer,) = said.json()["predictions"]
    shown = page.locator("dl.facts dd").inner_text()
    assert float(shown) == pytest.approx(answer["probability"], abs=1e-4)
    assert "explanation" in answer


def test_a_row_too_long_for_a_command_is_saved_as_a_file(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    page = visit.page
    page.goto(endpoint[1])
    expect(page.get_by_role("button", name="Save row.json")).to_be_hidden()
    page.get_by_label("note").fill("late " * 1000)
    page.get_by_role("textbox", name="income $").fill("1e999")
    assert page.locator("[data-curl]").inner_text().endswith("-d '@row.json'")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save row.json").click()
    row = json.loads(saving.value.path().read_text())["instances"][0]
    assert (row["note"], row["income $"]) == ("late " * 1000, "1e999")


def test_faults_stand_beside_their_fields_in_the_words_of_the_api(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    page = visit.page
    page.goto(endpoint[1])
    age = page.get_by_role("textbox", name="age")
    age.fill("old")
    page.get_by_role("textbox", name="income $").fill("much")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#f1-error")).to_have_text("a number is needed, but got text")
    expect(page.locator("#f1-error")).to_be_visible()
    expect(age).to_have_attribute("aria-invalid", "true")
    expect(age).to_have_accessible_description(
        "a number, 18 to 89 in training a number is needed, but got text"
    )
    assert page.locator("[data-problem]").evaluate("node => node === document.activeElement")
    page.get_by_role("link", name="income $").click()
    expect(page.get_by_role("textbox", name="income $")).to_be_focused()
    assert violations(page) == []
    age.fill("")
    page.get_by_role("textbox", name="income $").fill("")
    page.keyboard.press("Enter")
    expect(page.locator("#f1-error")).to_have_text("this field is needed, but is absent")
    expect(page.locator("#f2-error")).to_be_hidden()
    page.get_by_role("button", name="Fill in the example again").click()
    expect(page.locator("[data-problem]")).to_be_hidden()
    expect(age).to_have_value("21")
    predict(page)


def test_the_keyboard_alone_is_enough(endpoint: tuple[web.Application, str], visit: Visit) -> None:
    page = visit.page
    page.goto(endpoint[1])
    reached: list[str] = []
    while "Predict" not in reached:
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const at = document.activeElement;"
                " return (at.labels?.[0] ?? at).textContent.trim(); }"
            )
        )
        assert len(reached) < 30
        if reached[-1] == "age":
            page.keyboard.type("44")
    names = [column.name for column in bundles.COLUMNS]
    assert [one for one in dict.fromkeys(reached) if one in names] == names
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-by]")
    expect(page.locator("[data-curl]")).to_contain_text('"age":44')


@pytest.mark.parametrize("visit", LOOKS.values(), ids=LOOKS, indirect=True)
def test_everybody_can_use_it(endpoint: tuple[web.Application, str], visit: Visit) -> None:
    """axe finds nothing before an answer and after it, and a phone does not scroll sideways."""
    page = visit.page
    page.goto(endpoint[1])
    assert violations(page) == []
    predict(page)
    assert violations(page) == []
    inner, whole = page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner


def test_with_keys_it_asks_for_one_and_keeps_it_in_the_tab_alone(
    endpoint: tuple[web.Application, str], visit: Visit, tmp_path: Path
) -> None:
    application, url = endpoint
    text, record = apikeys.new("me", ["predict"])
    (tmp_path / "keys").write_text(record.line())
    application.guard = guard.Guard(keys.Keys(tmp_path / "keys"))
    page = visit.page
    page.goto(url)
    key = page.get_by_label("API key")
    assert violations(page) == []
    key.fill("er_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_contain_text("a key must be given")
    key.fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="age")).to_have_value("21")
    expect(page.locator("[data-age]")).to_contain_text("the key must have the scope admin")
    predict(page)
    expect(page.locator("[data-curl]")).to_contain_text("Bearer $EAGLERAY_KEY")
    assert text not in page.content()
    stored = "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]"
    assert page.evaluate(stored) == [f'{{"eagleray-key":"{text}"}}', "{}", ""]
    assert not any(text in one for one in visit.asked)
    page.reload()
    expect(page.get_by_role("textbox", name="age")).to_have_value("21")
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("API key")).to_have_value("")
    assert page.evaluate("sessionStorage.length") == 0


def test_refusals_are_said_in_the_words_of_the_api(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    application, url = endpoint
    page = visit.page
    page.goto(url)
    button, problem = page.get_by_role("button", name="Predict"), page.locator("[data-problem]")
    application.capacity = admission.Capacity(most_rows=0)
    button.click()
    expect(problem).to_contain_text("too many rows are in progress (503). Try again in 1 s.")
    application.guard = guard.Guard(None, rates.Rates(0.001, 1))
    application.guard._rates.check("127.0.0.1")  # type: ignore[union-attr]
    button.click()
    expect(problem).to_contain_text("requests a second are answered")
    expect(problem).to_contain_text("(429)")
    page.goto(url)
    expect(page.get_by_role("heading", name="Too many requests")).to_be_visible()
    assert violations(page) == []
    page.goto("about:blank")
    application.guard = None
    page.goto(url)
    page.route("**/predict*", lambda route: route.abort())
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("[data-problem]")).to_contain_text("The endpoint cannot be reached.")


def test_a_page_without_a_version_opens_by_itself(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    application, url = endpoint
    loaded, application.predictor = application.predictor, None
    visit.page.clock.install()
    visit.page.goto(url)
    expect(visit.page.get_by_text("no version is loaded yet")).to_be_visible()
    assert violations(visit.page) == []
    application.predictor = loaded
    visit.page.clock.run_for(2500)
    expect(visit.page.get_by_role("button", name="Predict")).to_be_visible()


def test_it_works_below_a_prefix(endpoint: tuple[web.Application, str], visit: Visit) -> None:
    mounted = Starlette(routes=[Mount("/teams/a", endpoint[0])])
    with pages.served(mounted) as url:
        visit.page.goto(f"{url}/teams/a/")
        predict(visit.page)
        expect(visit.page.locator("[data-curl]")).to_contain_text(f"{url}/teams/a/v1/models/left:")
        expect(visit.page.locator("[data-replicas]")).to_have_text("1")
        assert visit.page.get_by_role("link", name="API", exact=True).evaluate("a => a.href") == (
            f"{url}/teams/a/docs"
        )
        visit.page.goto("about:blank")  # its connections end before the server does
    assert all("/teams/a/" in one for one in visit.asked if one.startswith(url))


def test_a_picture_is_dropped_pasted_or_chosen(
    browser: Browser, visit: Visit, tmp_path: Path
) -> None:
    column = schema.Column(name="scan", type="image", image_shape=(1, 8, 8), nullable=True)
    scans = np.random.default_rng(0).integers(0, 17, (4, 8, 8)).tolist()
    made, white, grey = (
        pages.pictures(column, scans),
        pages.png([[255] * 8] * 8),
        pages.png([[7] * 8] * 8),
    )
    with pages.served(pages.application(tmp_path, made)) as url:
        page = visit.page
        page.goto(url)
        predict(page)
        expect(page.locator(".headline")).to_contain_text("digit: ")
        assert sent(page)["scan"] == pages.png(scans[0])
        before = page.locator("[data-preview]").get_attribute("src")
        page.evaluate(DROP, ["drop", "dataTransfer", white])
        expect(page.locator("[data-preview]")).not_to_have_attribute("src", before or "")
        assert sent(page)["scan"] == white
        page.evaluate(DROP, ["paste", "clipboardData", grey])
        page.wait_for_function(
            "png => document.querySelector('[data-value]').value === png", arg=grey
        )
        predict(page)
        (tmp_path / "note.txt").write_text("no picture")
        page.get_by_label("scan").set_input_files(tmp_path / "note.txt")
        page.wait_for_function("() => document.querySelector('[data-value]').value.length < 20")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#f1-error")).to_contain_text(
            "a picture of the training pictures' shape"
        )
        page.get_by_role("button", name="Send none").click()
        assert sent(page)["scan"] is None
        predict(page)
        page.goto("about:blank")


DROP = """([kind, field, png]) => {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "x.png", {type: "image/png"}));
  const event = new Event(kind, {bubbles: true, cancelable: true});
  Object.defineProperty(event, field, {value: transfer});
  document.querySelector("[data-drop]").dispatchEvent(event);
}"""


def sent(page: Page) -> dict[str, Any]:
    """The row of the command that the page shows."""
    command = shlex.split(page.locator("[data-curl]").inner_text())[-1]
    row: dict[str, Any] = json.loads(command)["instances"][0]
    return row


def test_values_answer_without_a_task_of_their_own(visit: Visit, tmp_path: Path) -> None:
    made = bundles.make(target=schema.Target(name="price", task="regression"))
    made.golden = bundles.golden(made)
    with pages.served(pages.application(tmp_path, made)) as url:
        visit.page.goto(url)
        predict(visit.page)
        expect(visit.page.locator(".headline")).to_contain_text("price: ")
        expect(visit.page.locator("[data-answer]")).to_contain_text("price is ")
        visit.page.goto("about:blank")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and storage are read each time that the page asks."""
    monkeypatch.setattr(live, "COUNT_S", 0.0)
    monkeypatch.setattr(live, "READ_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_live_values_are_those_of_the_node_and_say_how_old_they_are(
    endpoint: tuple[web.Application, str], visit: Visit
) -> None:
    page, age, p95 = (visit.page, *map(visit.page.locator, ("[data-age]", "[data-p95]")))
    page.clock.install()
    page.goto(endpoint[1])
    expect(page.locator("[data-replicas]")).to_have_text("1")
    expect(p95).not_to_contain_text("ms")
    row = bundles.instances(bundles.rows(1, seed=7))
    for _ in range(5):
        httpx.post(f"{endpoint[1]}/predict", json={"instances": row}).raise_for_status()
    page.clock.run_for(2500)
    expect(p95).to_contain_text("ms")
    expect(page.locator("[data-failed]")).to_have_text("0 %")
    expect(page.locator("[data-scope]")).to_contain_text("version 3 on 1")
    expect(age).to_be_hidden()
    page.route("**/live", lambda route: route.abort())
    page.clock.run_for(15_000)
    expect(age).to_contain_text("s old. The endpoint does not answer.")
    expect(p95).to_contain_text("ms")
    page.unroute("**/live")
    page.clock.run_for(2500)
    expect(age).to_be_hidden()
    page.clock.fast_forward(301_000)
    page.clock.run_for(2500)
    asked = len(visit.asked)
    page.clock.run_for(5000)
    expect(age).to_contain_text("They stop while nobody uses this page")
    assert len(visit.asked) == asked
    page.keyboard.press("Shift")
    page.clock.run_for(2500)
    expect(age).to_be_hidden()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[served.Served]:
    """A replica of two versions in a storage; the first one is the champion."""
    (tmp_path / "storage").mkdir()
    settings = Settings(name="left", storage=(tmp_path / "storage").as_uri())
    registry = Registry(storage.open(settings.storage))
    for seed in (0, 1):
        registry.register("left", bundles.files(seed=seed), {})
    registry.promote("left", 1)
    made = served.Served(settings, metrics.Metrics(tmp_path / "metrics", "left"))
    made.versions.check()
    yield made
    made.stop()


@pytest.mark.usefixtures("at_once")
def test_a_rollout_is_shown_with_its_evidence_until_it_has_ended(
    visit: Visit, tmp_path: Path, replica: served.Served
) -> None:
    rollouts = Rollouts(storage.open((tmp_path / "storage").as_uri()))
    begun = rollouts.start("left", 2, plan=Plan(steps=(0.25, 0.5)), why="more data")
    replica.versions.check()
    row = bundles.instances(bundles.rows(1, seed=7))
    with pages.served(replica.application) as url:
        for _ in range(12):
            httpx.post(f"{url}/predict", json={"instances": row})
        replica.controller.look()
        page = visit.page
        page.clock.install()
        page.goto(url)
        shown = page.locator("[data-rollout]")
        expect(shown).to_contain_text("version 2 beside 1, the champion: canary, running at 25%")
        expect(shown.locator("[aria-current]")).to_have_text("25 %")
        expect(shown.get_by_role("row", name="requests")).to_be_visible()
        assert violations(page) == []
        rollouts.abort(begun, why="enough of it")
        page.clock.run_for(2500)
        expect(shown).to_contain_text("stopped at 25%: enough of it")
        (tmp_path / "storage").rename(tmp_path / "away")
        (tmp_path / "storage").write_text("")
        page.clock.run_for(2500)
        expect(page.locator("[data-storage]")).to_contain_text("Storage does not answer.")
        predict(page)
        page.goto("about:blank")
