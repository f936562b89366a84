import asyncio
import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray import bundle
from serving import admission, batching, fast_path, metrics, predictor, protocol, web
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


@pytest.mark.parametrize(
    "path", ["/predict", "/predict/", "/v1/models/left:predict", "/v1/models/left:predict/"]
)
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
        ("GET", "/v1/models/right", (404, "not_found")),
        ("POST", "/v1/models/left", (405, "method_not_allowed")),
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


@pytest.mark.parametrize(("kind", "content"), [("text/html", "{}"), (FORM, "age=1")])
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


def test_gzip_is_unpacked_and_answers_are_packed_for_who_asks(
    application: web.Application,
) -> None:
    content = gzip.compress(json.dumps({"instances": [ROW] * 500}).encode())
    headers = JSON | {"content-encoding": "gzip"}
    plain, packed = (
        ask(
            application,
            "POST",
            "/predict",
            content=content,
            headers=headers | {"accept-encoding": accepted},
        )
        for accepted in ("gzip;q=0, identity", "br, gzip")
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 5
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert plain.json() == packed.json()


def test_small_answers_are_not_packed(application: web.Application) -> None:
    answer = ask(application, "POST", "/predict", json={"instances": [ROW]})
    assert "content-encoding" not in answer.headers


ONE = json.dumps({"instances": [ROW]}).encode()
HALVES = gzip.compress(ONE[:20]) + gzip.compress(ONE[20:])
PACKED = {
    "two members": (HALVES, 200),
    "a bomb": (gzip.compress(bytes(protocol.MOST_BYTES + 1)), 413),
    "cut": (gzip.compress(ONE)[:-4], 400),
    "no gzip": (ONE, 400),
    "trailing rubbish": (gzip.compress(ONE) + b"rubbish", 400),
    "gzip of a bad row": (gzip.compress(b'{"instances": [{}]}'), 422),
}


@pytest.mark.parametrize("name", PACKED)
def test_gzip_is_read_within_bounds(application: web.Application, name: str) -> None:
    content, status = PACKED[name]
    headers = JSON | {"content-encoding": "gzip"}
    answer = ask(application, "POST", "/predict", content=content, headers=headers)
    assert answer.status_code == status


def test_another_encoding_is_refused(application: web.Application) -> None:
    headers = JSON | {"content-encoding": "br"}
    answer = ask(application, "POST", "/predict", content=b"x", headers=headers)
    assert error(answer) == (415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "gzip"


def test_every_fault_of_a_request_is_in_its_answer(application: web.Application) -> None:
    sent = {"instances": [{"age": "old"}]}
    said = ask(application, "POST", "/predict", json=sent).json()["error"]
    assert [fault["field"] for fault in said["details"]] == [
        "instances[0].age",
        "instances[0].city",
    ]
    assert said["field"] == "instances[0].age"


def test_a_bundle_says_whether_clients_may_send_whole_records(
    application: web.Application,
) -> None:
    made = bundles.make()
    made.extra_fields = "ignore"
    files = bundle.pack(made, bundles.rows(4), {})
    described = json.loads(files["bundle.json"])
    del described["extra_fields"]
    older = files | {"bundle.json": json.dumps(described).encode()}
    record = {"instances": [ROW | {"id": 7, "left": "yes"}]}
    for held, override, expected in (
        (files, None, 200),
        (files, "refuse", 422),
        (older, None, 422),
        (older, "ignore", 200),
    ):
        served = web.Application("left", application._metrics)
        served.predictor = predictor.Predictor(
            bundle.unpack(held),
            batching.Limits(),
            ThreadPoolExecutor(1),
            application._metrics,
            extra_fields=override,  # type: ignore[arg-type]
        )
        assert ask(served, "POST", "/predict", json=record).status_code == expected
        document = ask(served, "GET", "/openapi.json").json()["components"]["schemas"]["Row"]
        assert document["additionalProperties"] is (expected == 200)


def test_a_number_far_out_is_flagged_beside_an_unknown_category(
    application: web.Application,
) -> None:
    sent = {"instances": [ROW | {"age": 4100, "city": "Paris"}]}
    (answer,) = ask(application, "POST", "/predict", json=sent).json()["predictions"]
    assert [warning.partition(":")[0] for warning in answer["warnings"]] == ["city", "age"]


def test_a_full_replica_refuses_before_it_reads(application: web.Application) -> None:
    capacity = admission.Capacity(most_rows=1, most_bytes=100)
    full = web.Application("left", application._metrics, capacity)
    full.predictor = application.predictor
    read = 0

    async def counted() -> Any:
        nonlocal read
        read += 1
        yield ONE

    headers = JSON | {"content-length": str(len(ONE))}
    for _ in range(2):
        answer = ask(full, "POST", "/predict", content=counted(), headers=headers)
        assert error(answer) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        capacity._most_bytes, capacity.rows = 10_000, 1  # first too many bytes, then too many rows
    assert read == 0
    capacity.rows = 0
    assert ask(full, "POST", "/predict", content=ONE, headers=JSON).status_code == 200
    assert (capacity.rows, capacity.bytes) == (0, 0)


def test_a_body_that_trickles_gives_its_room_back(application: web.Application) -> None:
    capacity = admission.Capacity()
    impatient = web.Application("left", application._metrics, capacity, read_s=0.02)
    impatient.predictor = application.predictor

    async def trickle() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    answer = ask(impatient, "POST", "/predict", content=trickle(), headers=JSON)
    assert error(answer) == (408, "timeout")
    assert answer.headers["connection"] == "close"
    assert (capacity.rows, capacity.bytes) == (0, 0)


def test_health_fails_once_batches_cannot_run(application: web.Application) -> None:
    thread = ThreadPoolExecutor(1)
    broken = web.Application("left", application._metrics)
    loaded = bundles.make()
    loaded.golden = bundles.golden(loaded)
    broken.predictor = predictor.Predictor(loaded, batching.Limits(), thread, application._metrics)
    assert ask(broken, "GET", "/healthz").status_code == 200
    thread.shutdown()
    assert error(ask(broken, "POST", "/predict", content=ONE))[0] == 500
    answer = ask(broken, "GET", "/healthz")
    assert (answer.status_code, answer.json()["status"]) == (503, "failed")
    assert ask(broken, "GET", "/v1/models/left").json()["ready"] is False


def test_large_bodies_and_pictures_are_decoded_beside_the_event_loop(
    application: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    asked = application.predictor
    assert asked is not None
    parse = asked._codec.parse

    def noted(rows: protocol.Rows) -> protocol.Rows:
        threads.append(threading.current_thread() is threading.main_thread())
        return parse(rows)

    monkeypatch.setattr(asked._codec, "parse", noted)
    for rows in (1, 5000):
        ask(application, "POST", "/predict", json={"instances": [ROW] * rows})
    monkeypatch.setattr(asked._codec, "is_slow", lambda rows: True)
    ask(application, "POST", "/predict", json={"instances": [ROW]})
    assert threads == [True, False, False]


def test_a_failure_of_ours_gives_a_request_id_and_no_trace(
    application: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise RuntimeError("secret")

    monkeypatch.setattr(application.predictor, "document", broken)
    answer = ask(application, "GET", "/openapi.json", headers={"x-request-id": "r7"})
    assert error(answer) == (500, "internal")
    assert answer.json()["error"]["request_id"] == "r7"
    assert "secret" not in answer.text


def test_pages_for_people_and_machines_are_there(application: web.Application) -> None:
    links = ask(application, "GET", "/").json()["links"]
    assert {ask(application, "GET", link).status_code for link in links} == {200}
    page = ask(application, "GET", "/docs").text
    assert ask(application, "GET", "/docs/swagger-ui-bundle.js").status_code == 200
    assert "://" not in page
    assert ask(application, "GET", "/readyz").json()["version"] == 3


@pytest.mark.parametrize("path", ["/v1/models/left", "/v1/models/left/"])
def test_the_model_says_its_name_its_version_and_whether_it_is_ready(
    application: web.Application, path: str
) -> None:
    answer = ask(application, "GET", path)
    assert (answer.status_code, answer.json()) == (
        200,
        {"name": "left", "version": 3, "ready": True},
    )


def test_before_a_version_is_loaded_the_application_is_alive_but_not_ready(tmp_path: Path) -> None:
    empty = web.Application("left", metrics.Metrics(tmp_path, "left"))
    assert ask(empty, "GET", "/healthz").status_code == 200
    assert ask(empty, "GET", "/readyz").status_code == 503
    model = ask(empty, "GET", "/v1/models/left")
    assert (model.status_code, model.json()["ready"]) == (503, False)
    assert error(ask(empty, "POST", "/predict", json={"instances": [ROW]})) == (503, "unavailable")


def test_only_predictions_take_the_fast_path(application: web.Application) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError(scope["path"])

    async def work() -> httpx.Response:
        fast_path.enable(application)
        transport = httpx.ASGITransport(fast_path.FastPath(slow))
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            with pytest.raises(LookupError):
                await client.get("/-/healthz")
            return await client.post("/predict", json={"instances": [ROW]})

    assert asyncio.run(work()).status_code == 200
    with pytest.raises(LookupError):  # another event loop than the fast path's
        ask(fast_path.FastPath(slow), "POST", "/predict", json={"instances": [ROW]})


REPLICA = """
import sys
from pathlib import Path
from serving import metrics
from tests import bundles
gauges = metrics.Metrics(Path(sys.argv[1]), "left")
gauges.serving(1, instead_of=None)
gauges.request("predict", 200, 0.01, version="1")
gauges.loaded(1, 1.7e9)
gauges.captured(2)
made = bundles.make()
made.number = 1
gauges.predicted(made, made.predict(bundles.rows(5)))
other = metrics.Metrics(Path(sys.argv[1]), "other")
other.serving(1, instead_of=None)
other.request("predict", 500, 9.0, version="1")
other.count()
text = gauges.exposition().decode()
print(text)
print(gauges.traffic())
"""


def test_metrics_add_up_over_replicas_and_outlive_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPLICA, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answered = 'model="left",route="predict",status="200",version="1"'
    assert f"eagleray_requests_total{{{answered}}} 2.0" in text
    assert 'eagleray_model_created_seconds{model="left",version="1"} 1.7e+09' in text
    assert 'eagleray_captured_rows_total{model="left"} 4.0' in text
    assert 'eagleray_rows_total{model="left",version="1"} 10.0' in text
    assert 'eagleray_model_version{model="left",version="1"} 1.0' in text
    assert 'eagleray_model_version{model="other",version="1"} 1.0' in text
    shown = text.splitlines()[-1]  # on the page of the model: nothing of the other one
    assert shown.startswith("Traffic(answered=2, failed=0, ")
    assert shown.endswith(" 0, 0], replicas={'1': 1})")
