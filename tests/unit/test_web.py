from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import batching, lane, metrics, predictor, protocol, web
from tests import bundles

ROW: dict[str, Any] = bundles.instances(bundles.rows(2, seed=3))[1]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """`Metrics` sets a variable for its process, which a replica has for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        yield


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> web.Application:
    gauges = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
    made = web.Application("left", gauges)
    loaded = bundles.make()
    loaded.name, loaded.number = "left", 3
    loaded.golden = bundles.golden(loaded)
    made.predictor = predictor.Predictor(loaded, batching.Limits(), ThreadPoolExecutor(1), gauges)
    return made


def ask(application: Any, method: str, path: str, **options: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.request(method, path, **options)

    return asyncio.run(work())


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


@pytest.mark.parametrize("path", ["/predict", "/v1/models/left:predict"])
def test_a_row_is_answered_with_the_version_that_answers(
    application: web.Application, path: str
) -> None:
    answer = ask(application, "POST", path, json={"instances": [ROW, ROW | {"city": "Paris"}]})
    assert answer.status_code == 200
    assert answer.headers["x-eagleray-version"] == "3"
    first, second = answer.json()["predictions"]
    assert set(first) == {"label", "probability", "probabilities"}
    assert "Paris" in second["warnings"][0]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/predictions", (404, "not_found")),
        ("POST", "/v1/models/right:predict", (404, "not_found")),
        ("GET", "/docs/../secret", (404, "not_found")),
        ("GET", "/predict", (405, "method_not_allowed")),
        ("POST", "/readyz", (405, "method_not_allowed")),
    ],
)
def test_what_is_not_there_is_refused(
    application: web.Application, method: str, path: str, expected: tuple[int, str]
) -> None:
    assert error(ask(application, method, path, json={})) == expected


FORM = "application/x-www-form-urlencoded"  # what `curl -d` declares


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", FORM, "a/b+json", None])
def test_json_is_taken_however_it_is_declared(
    application: web.Application, kind: str | None
) -> None:
    headers = {"content-type": kind} if kind else {}
    content = json.dumps({"instances": [ROW]})
    assert ask(application, "POST", "/predict", content=content, headers=headers).status_code == 200


@pytest.mark.parametrize(("kind", "content"), [("text/csv", "{}"), (FORM, "age=1")])
def test_what_is_declared_to_be_something_else_is_refused(
    application: web.Application, kind: str, content: str
) -> None:
    answer = ask(application, "POST", "/predict", content=content, headers={"content-type": kind})
    assert error(answer) == (415, "unsupported_media_type")


def test_a_body_is_refused_by_its_declared_length_before_it_is_read(
    application: web.Application,
) -> None:
    headers = JSON | {"content-length": str(protocol.MOST_BYTES + 1)}
    answer = ask(application, "POST", "/predict", content="{}", headers=headers)
    assert error(answer) == (413, "too_large")


def test_a_body_without_length_is_refused_while_it_is_read(application: web.Application) -> None:
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield bytes(1024 * 1024)

    answer = ask(application, "POST", "/predict", content=endless(), headers=JSON)
    assert error(answer) == (413, "too_large")
    assert read == 17


def test_a_failure_of_ours_gives_a_request_id_and_no_trace(
    application: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(application.predictor, "document", broken)
    answer = ask(application, "GET", "/openapi.json", headers={"x-request-id": "r7"})
    assert error(answer) == (500, "internal")
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"] == "r7"
    assert "secret" not in answer.text


def test_pages_for_people_and_machines_are_there(application: web.Application) -> None:
    links = ask(application, "GET", "/").json()["links"]
    assert {ask(application, "GET", link).status_code for link in links} == {200}
    page = ask(application, "GET", "/docs").text
    assert ask(application, "GET", "/docs/swagger-ui-bundle.js").status_code == 200
    assert "://" not in page
    assert ask(application, "GET", "/readyz").json()["version"] == 3


def test_before_a_version_is_loaded_the_application_is_alive_but_not_ready(tmp_path: Path) -> None:
    empty = web.Application("left", metrics.Metrics(tmp_path, "left"))
    assert ask(empty, "GET", "/healthz").status_code == 200
    assert ask(empty, "GET", "/readyz").status_code == 503
    assert error(ask(empty, "POST", "/predict", json={"instances": [ROW]})) == (503, "unavailable")


def test_only_predictions_take_the_fast_lane(application: web.Application) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError(scope["path"])

    async def work() -> httpx.Response:
        lane.open_to(application, application.takes)
        transport = httpx.ASGITransport(lane.FastLane(slow))
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            with pytest.raises(LookupError):
                await client.get("/-/healthz")
            return await client.post("/predict", json={"instances": [ROW]})

    assert asyncio.run(work()).status_code == 200
    with pytest.raises(LookupError):  # another event loop than the lane's
        ask(lane.FastLane(slow), "POST", "/predict", json={"instances": [ROW]})


REPLICA = """
import sys
from pathlib import Path
from serving import metrics
gauges = metrics.Metrics(Path(sys.argv[1]), "left")
gauges.serving(1, instead_of=None)
gauges.request("predict", 200, 0.01)
gauges.batch(5, 1)
text = gauges.exposition().decode()
print(text)
"""


def test_metrics_add_up_over_replicas_and_outlive_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPLICA, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 'eagleray_requests_total{model="left",route="predict",status="200"} 2.0' in text
    assert 'eagleray_rows_total{model="left"} 10.0' in text
    assert 'eagleray_model_version{model="left",version="1"} 1.0' in text
