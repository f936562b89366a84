"""What an attacker, a newer release or a clock may do to an endpoint, over every protocol."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from eagleray import errors, storage
from eagleray.state.models import Registry
from serving import batching, metrics, predictor, protocol, served, web
from serving.settings import Settings
from tests import bundles
from tests.contract.test_rollouts import PLAN, Endpoint

INFER = "/v2/models/left/infer"
ARROW = "application/vnd.apache.arrow.stream"
DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")


@pytest.fixture
def application(tmp_path: Path) -> Iterator[web.Application]:
    observer = metrics.Metrics(tmp_path / "metrics", "left")
    made, loaded = web.Application("left", observer), bundles.make()
    loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
    with ThreadPoolExecutor(1) as thread:
        made.predictor = predictor.Predictor(loaded, batching.Limits(), thread, observer)
        yield made


def asked(application: web.Application, path: str, body: bytes, **headers: str) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.post(path, content=body, headers=named)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/predict", "application/json"),
        ("/predict", "text/csv"),
        ("/predict", ARROW),
        (INFER, "application/json"),
        (INFER, "application/octet-stream"),
    ],
)
def test_a_bomb_is_refused_by_every_protocol(
    application: web.Application, path: str, kind: str
) -> None:
    bomb = gzip.compress(bytes(protocol.MOST_BYTES + 1))
    assert len(bomb) < 100_000
    answer = asked(application, path, bomb, content_type=kind, content_encoding="gzip")
    assert answer.status_code == 413
    assert (application.capacity.bytes, application.capacity.rows) == (0, 0)


NESTED = {
    "a value": (b'{"instances": [{"age": ', b"}]}"),
    "an unknown field": (b'{"instances": [], "x": ', b"}"),
    "tensors": (b'{"inputs": ', b"}"),
    "parameters": (b'{"inputs": [], "parameters": {"x": ', b"}}"),
}


@pytest.mark.parametrize("place", NESTED)
@pytest.mark.parametrize("packed", [False, True])
def test_deep_json_is_refused_wherever_it_is(
    application: web.Application, place: str, packed: bool
) -> None:
    before, after = NESTED[place]
    body = before + DEEP + after
    more = {"content_encoding": "gzip"} if packed else {}
    path = INFER if b"inputs" in before else "/predict"
    sent = gzip.compress(body) if packed else body
    answer = asked(application, path, sent, content_type="application/json", **more)
    assert answer.status_code == (422 if place == "tensors" else 400)  # a list is no tensor
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    "path", ["/v2/models/right/infer", "/v2/models/left/versions/4/infer", "/v1/models/x:predict"]
)
def test_a_model_or_version_that_does_not_serve_is_named(
    application: web.Application, path: str
) -> None:
    answer = asked(application, path, b"{}", content_type="application/json")
    assert answer.status_code == 404
    assert "left" in answer.text


ALIASES = {
    "damaged": b"{",
    "of another kind": b'{"kind": "run", "format": 1}',
    "of a newer release": b'{"kind": "aliases", "format": 99, "champion": 2}',
    "without a number": b'{"kind": "aliases", "format": 1, "values": {"champion": "two"}}',
}


@pytest.mark.parametrize("fault", ALIASES)
def test_aliases_that_cannot_be_read_change_nothing_until_they_can(
    fault: str, tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    settings = Settings(name="left", storage=(tmp_path / "storage").as_uri())
    registry = Registry(storage.open(settings.storage))
    for seed in (0, 1):
        registry.register("left", bundles.files(seed=seed), {})
    registry.promote("left", 1)
    file = tmp_path / "storage/models/left/aliases.json"
    good = file.read_bytes()
    replica = served.Served(settings, metrics.Metrics(tmp_path / "metrics", "left"))
    replica.versions.check()
    file.write_bytes(ALIASES[fault])
    with pytest.raises(errors.EagleRayError, match="aliases"):
        registry.promote("left", 2)  # nobody writes over what they cannot read
    replica.versions.check()
    assert replica.versions.serving == 1
    assert file.read_bytes() == ALIASES[fault]
    file.write_bytes(good)
    registry.promote("left", 2)
    replica.versions.check()
    assert replica.versions.serving == 2


@pytest.mark.parametrize("years", [-2, 2])
def test_a_clock_that_jumps_neither_ends_a_rollout_nor_holds_it(
    years: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are added up from monotonic clocks: the time of day is for people alone."""
    endpoint = Endpoint(tmp_path)
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    asyncio.run(endpoint.ask(30))
    endpoint.pass_time()
    jump_ns, real_ns = years * 365 * 86400 * 10**9, time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + jump_ns)
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
    ended = endpoint.run()
    assert ended.status == "promoted"
    assert ended.age_s < PLAN.deadline_s
    assert [one.action for one in ended.decisions] == ["started", "advanced", "promoted"]
    assert endpoint.actions[-3:] == [
        ("rollout-started", 2),
        ("rollout-advanced", 2),
        ("promoted", 2),
    ]
    for replica in endpoint.replicas:
        replica.stop()


def test_the_body_of_json_that_tests_nest_is_json_otherwise(application: web.Application) -> None:
    before, after = NESTED["a value"]
    answer = asked(application, "/predict", before + b"[]" + after, content_type="application/json")
    assert answer.status_code == 422
    assert json.loads(answer.content)["error"]["field"] == "instances[0].age"
