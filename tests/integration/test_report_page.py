"""The report in Chromium: light, dark, phone and print, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from eagleray.api import reports
from tests import judged, pages

LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a classification with a champion, and that of a regression."""
    found = {}
    for text in (judged.TUMOURS, judged.DIABETES):
        folder = tmp_path_factory.mktemp("report")
        for seed, rate in (("0", 1e-4), ("1", 1e-2)):
            one = judged.searched(folder, text, **{"train.seed": seed})
            trials = [judged.trial(one, number, **{"train.lr": rate * number}) for number in (1, 2)]
            judged.won(one, [*trials, judged.stopped(one, trials[0], 3, 4)])
        name = one.experiment.name
        found[name] = reports.report(name, one.storage.uri).save(folder / "report.html")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pages.chromium() as made:
        yield made


def opened(browser: Browser, file: Path, **options: Any) -> tuple[Page, list[str]]:
    """The page without a network, and what it asked for or complained about."""
    context = browser.new_context(offline=True, **options)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: faults.append(request.url))
    page.goto(file.as_uri())
    return page, [one for one in faults if one != file.as_uri()]


@pytest.mark.parametrize("name", ["tumours", "diabetes"])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_everybody_can_read_it(
    browser: Browser, files: dict[str, Path], look: dict[str, Any], name: str
) -> None:
    """axe finds nothing, a phone does not scroll sideways, and nothing is asked for."""
    page, faults = opened(browser, files[name], **look)
    for one in page.locator("summary").all():
        one.click()
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {node['html'][:100]}" for one in found for node in one["nodes"]] == []
    inner, whole = page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner
    assert faults == []
    sizes = page.locator("svg.plot text").evaluate_all(
        "nodes => nodes.map(n => 11 * Math.hypot(n.getScreenCTM().a, n.getScreenCTM().b))"
    )
    assert min(sizes) > 9, "text of a picture is legible"
    page.context.close()


def test_the_first_screen_answers_the_question(browser: Browser, files: dict[str, Path]) -> None:
    page, _ = opened(browser, files["tumours"], viewport={"width": 1280, "height": 800})
    first = page.locator(".headline").bounding_box()
    picture = page.locator("figure svg").first.bounding_box()
    assert first is not None
    assert picture is not None
    assert first["y"] + first["height"] < picture["y"]
    assert picture["y"] + picture["height"] < 800
    severities = page.locator(".findings strong").all_inner_texts()
    order = [("Wrong:", "Look at:", "Fine:").index(one) for one in severities]
    assert order == sorted(order)
    page.context.close()


def test_it_prints_in_black_on_white_without_its_tables_of_numbers(
    browser: Browser, files: dict[str, Path]
) -> None:
    page, _ = opened(browser, files["diabetes"], color_scheme="dark")
    page.emulate_media(media="print")
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert not page.locator("figure details").first.is_visible()
    assert len(page.pdf()) > 10_000
    page.context.close()
