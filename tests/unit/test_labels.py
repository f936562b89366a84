"""Labels that clients report: what is counted, and what is refused."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray import bundle
from eagleray.learn import schema
from serving import admission, batching, labels, metrics, predictor, protocol, web
from tests import bundles

VALUE = schema.Target(name="left", task="regression")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        yield


def application(folder: Path, loaded: bundle.Bundle) -> web.Application:
    gauges = metrics.Metrics(folder, "left")
    made = web.Application("left", gauges)
    loaded.name, loaded.number = "left", 3
    loaded.golden = bundles.golden(loaded)
    made.predictor = predictor.Predictor(loaded, batching.Limits(), ThreadPoolExecutor(1), gauges)
    return made


@pytest.fixture
def classes(tmp_path: Path) -> web.Application:
    return application(tmp_path / "metrics", bundles.make())


def post(to: web.Application, body: Any, **options: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(to)) as client:
            url = "http://left/v1/models/left:label"
            data = {"content": body} if isinstance(body, bytes) else {"json": {"labels": body}}
            return await client.post(url, **data, **options)

    return asyncio.run(work())


def counted(answer: httpx.Response) -> tuple[int, int, int]:
    found = answer.json()
    return found["counted"], found["repeated"], found["ignored"]


def label(identity: str = "a", version: int = 3, **more: Any) -> dict[str, Any]:
    return {"request_id": identity, "version": version, **more}


YES = {"predicted": "yes", "label": "yes"}


def test_a_request_counts_once_and_only_for_a_version_in_service(classes: web.Application) -> None:
    sent = [label("a", **YES), label("b", reward=0), label("c", 2, reward=1)]
    assert counted(post(classes, sent)) == (2, 0, 1)
    assert counted(post(classes, [label("a", row=1, **YES), label("d", reward=0.5)])) == (1, 1, 0)
    assert classes._metrics._labels.labels("left", "3")._value.get() == 3.0


def test_the_rows_of_a_request_count_together(classes: web.Application) -> None:
    no = {"predicted": "no", "label": "yes"}
    rows = [label(row=0, **YES), label(row=1, **no), label(row=1, **YES), label("b", **YES)]
    body = httpx.Request("POST", "http://left", json={"labels": rows}).content
    assert classes._labels.rewards(body) == [("a", 3, 0.5), ("b", 3, 1.0)]


@pytest.mark.parametrize(
    ("predicted", "truth", "reward"),
    [(1.0, 1.0, 1.0), (1, 2, 0.5), ("1", 4.0, 0.0), (-1e300, 1e300, 0.0)],
)
def test_a_number_is_as_right_as_it_is_near(
    tmp_path: Path, predicted: object, truth: object, reward: float
) -> None:
    values = application(tmp_path, bundles.make(target=VALUE))
    assert values.predictor is not None
    assert values.predictor.reward(predicted, truth) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("sent", "field", "law"),
    [
        ([], "labels", "length >= 1"),
        ([label(), label(**YES)], "labels[0]", "but got less"),
        ([label(reward=1, **YES)], "labels[0]", "but got more"),
        ([label(predicted="yes")], "labels[0]", "but got less"),
        ([label(predicted="yes", label="maybe")], "labels[0]", "but got 'maybe'"),
        ([label(reward=2)], "labels[0].reward", "<= 1.0"),
        ([label(reward=None)], "labels[0].reward", "got `null`"),
        ([label("x" * 129, reward=1)], "labels[0].request_id", "length <= 128"),
        ([label(version=0, reward=1)], "labels[0].version", ">= 1"),
        ([label(row=-1, reward=1)], "labels[0].row", ">= 0"),
        ([label(reward=1, truth=1)], "labels[0]", "unknown field `truth`"),
        ([label(predicted="yes", label=10**400)], "labels[0]", "one of the target's classes"),
    ],
)
def test_what_is_no_label_is_refused_with_its_field(
    classes: web.Application, sent: list[Any], field: str, law: str
) -> None:
    answer = post(classes, sent)
    found = answer.json()["error"]
    assert (answer.status_code, found["field"]) == (422, field)
    assert law in found["message"]
    assert classes._labels._remembered == {}, "nothing of a body that is refused is counted"


@pytest.mark.parametrize("value", ["", "nan", "many"])
def test_what_is_no_number_is_no_label_of_a_number(tmp_path: Path, value: object) -> None:
    values = application(tmp_path, bundles.make(target=VALUE))
    answer = post(values, [label(predicted=1.0, label=value)])
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "labels[0]")


def test_what_is_no_json_is_refused(classes: web.Application) -> None:
    assert post(classes, b"{").status_code == 400
    assert post(classes, b"[" * 100_000).status_code == 422
    assert post(classes, b'{"labels": [{"row": ' + b"[" * 100_000).status_code in (400, 422)
    assert post(classes, b"{}", headers={"content-type": "text/csv"}).status_code == 415
    assert post(classes, b"{}", headers={"content-encoding": "gzip"}).status_code == 415


def test_more_than_a_body_may_have_is_refused_before_it_is_read(classes: web.Application) -> None:
    for length in (protocol.MOST_BYTES + 1, 2 * admission.MOST_BYTES):
        answer = post(classes, b"{}", headers={"content-length": str(length)})
        assert answer.status_code == 413


def test_before_a_version_is_loaded_labels_are_ignored(tmp_path: Path) -> None:
    made = web.Application("left", metrics.Metrics(tmp_path, "left"))
    assert counted(post(made, [label(reward=1), label("b", **YES)])) == (0, 0, 2)


def test_what_is_remembered_is_bounded(
    classes: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "MOST_REMEMBERED", 2)
    for name in "abc":
        post(classes, [label(name, reward=1)])
    assert list(classes._labels._remembered) == ["b", "c"]
