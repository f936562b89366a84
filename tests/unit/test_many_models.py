"""Several models on one endpoint: loaded by their first request, within a budget of memory."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eagleray import apikeys, storage
from eagleray.state.models import Registry
from serving import controller, guard, keys, metrics, models, served
from serving.settings import Settings
from tests import bundles

RAW = bundles.rows(20, seed=3)
BODY = {"instances": bundles.instances(RAW)}
NAMES = ("left", "right", "up", "down")


class Endpoint:
    """The endpoint of `left`, whose storage has other models."""

    def __init__(self, folder: Path, registry: Registry, **options: Any) -> None:
        settings = Settings(name="left", storage=folder.as_uri(), **options)
        observe = functools.partial(metrics.Metrics, folder / "metrics")
        self.observed: dict[str, metrics.Metrics] = {}
        self.own = served.Served(settings, observe("left"))
        self.own.versions.check()
        self.now = 0.0
        self.models = models.Models(settings, self.own, self.observe, clock=lambda: self.now)
        self.registry, self._metrics = registry, observe

    def observe(self, name: str) -> metrics.Metrics:
        self.observed[name] = self._metrics(name)
        return self.observed[name]

    @property
    def loaded(self) -> list[str]:
        return list(self.models._loaded)

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def all_() -> Any:
            transport = httpx.ASGITransport(self.models)
            async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
                return await work(client)

        return asyncio.run(all_())

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def one(client: httpx.AsyncClient) -> httpx.Response:
            return await client.request(method, path, **options)

        answer: httpx.Response = self.run(one)
        return answer

    def predict(self, name: str, **options: Any) -> httpx.Response:
        return self.ask("POST", f"/v1/models/{name}:predict", json=BODY, **options)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Endpoint]]:
    monkeypatch.setenv(metrics.FOLDER, "")
    registry, made = Registry(storage.open(tmp_path.as_uri())), []
    for seed, name in enumerate(NAMES):
        registry.register(name, bundles.files(seed=seed), {})
        registry.promote(name, 1)

    def make(**options: Any) -> Endpoint:
        made.append(Endpoint(tmp_path, registry, **options))
        return made[-1]

    yield make
    for one in made:
        one.models.stop()


def test_another_model_is_loaded_by_its_first_request(endpoint: Callable[..., Endpoint]) -> None:
    one = endpoint(models=["*"])
    for seed, name in enumerate(NAMES):
        answer = one.predict(name)
        assert (answer.status_code, answer.json()["model"]) == (200, name), answer.text
        got = [list(each["probabilities"].values()) for each in answer.json()["predictions"]]
        expected = bundles.make(seed=seed).predict(RAW).outputs
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert one.loaded == ["right", "up", "down"]
    assert one.ask("GET", "/v1/models/up").json() == {"name": "up", "version": 1, "ready": True}
    assert one.ask("GET", "/v2/models/up/versions/1/ready").status_code == 200
    assert one.ask("GET", "/v2/models/up/versions/2").status_code == 404
    assert one.ask("GET", "/v2/models/up").json()["name"] == "up"
    assert ("predict", 200, "1") in [of for of, _ in one.observed["right"]._answered]


def test_the_watch_for_a_client_ends_with_its_answer_also_where_its_model_was_loaded_for_it(
    endpoint: Callable[..., Endpoint],
) -> None:
    one = endpoint(models=["right"])
    for _ in range(2):
        assert one.predict("right").status_code == 200
    for application in (one.own.application, one.models._loaded["right"].application):
        watch = application.departures
        assert (watch._new, watch._old, watch._listening, watch._left) == ({}, {}, {}, set())


@pytest.mark.parametrize("path", ["/v2/models/up", "/v2/models/up/versions/1", "/v1/models/up"])
def test_any_page_of_a_model_loads_it(endpoint: Callable[..., Endpoint], path: str) -> None:
    one = endpoint(models=["up"])
    answer = one.ask("GET", path)
    assert (answer.status_code, answer.json()["name"]) == (200, "up")
    assert one.loaded == ["up"]
    assert one.ask("GET", "/v2/models/up/versions/2").status_code == 404


def test_only_models_that_the_setting_names_are_served(endpoint: Callable[..., Endpoint]) -> None:
    one = endpoint(models=["right"])
    assert one.predict("right").status_code == 200
    for name in ("up", "a%2Fb", "Right", ""):
        assert one.predict(name).status_code == 404
    assert one.loaded == ["right"]


def test_a_model_that_is_not_there_is_a_404_and_is_not_asked_for_again_at_once(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = endpoint(models=["*"]), []
    resolve = one.own.registry.resolve

    def counted(name: str, alias: str) -> Any:
        asked.append(name)
        return resolve(name, alias)

    monkeypatch.setattr(one.own.registry, "resolve", counted)
    for _ in range(3):
        answer = one.predict("none")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == (
            "a model must be registered and have the alias champion, but none is not so"
        )
    assert asked == ["none"]
    one.registry.register("none", bundles.files(), {})
    one.registry.promote("none", 1)
    one.now += models.REFUSED_S + 1
    assert one.predict("none").status_code == 200
    assert [*one.observed] == ["none"]  # metrics know no name that a client made up


def test_the_least_recently_asked_model_leaves_and_the_own_one_never(
    endpoint: Callable[..., Endpoint],
) -> None:
    size = sum(len(content) for content in bundles.files().values())
    one = endpoint(models=["*"])
    two = {"models_mb": 2.5 * size / 2**20}
    one.models._settings = one.models._settings.model_copy(update=two)
    for name in ("right", "up", "right", "down"):
        assert one.predict(name).status_code == 200
    assert one.loaded == ["right", "down"]
    assert one.predict("left").status_code == 200
    assert one.predict("up").status_code == 200
    assert one.loaded == ["down", "up"]


def test_a_model_beyond_the_budget_is_refused_and_the_others_stay(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = endpoint(models=["*"])
    assert one.predict("right").status_code == 200
    monkeypatch.setattr(one.models, "_size", lambda _: 2**40)
    answer = one.predict("up")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "a model must fit into models_mb, which is 1024" in answer.text
    assert one.loaded == ["right"]


def test_all_models_are_stopped_at_once(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of each waits for storage; here, until the others end too."""
    one, together = endpoint(models=["*"]), threading.Barrier(3)
    for name in ("right", "up", "down"):
        assert one.predict(name).status_code == 200
    stop = controller.Controller.stop

    def waiting(self: controller.Controller) -> None:
        together.wait(20)
        stop(self)

    monkeypatch.setattr(controller.Controller, "stop", waiting)
    one.models.stop()
    assert all(each.controller._stopped.is_set() for each in one.models._loaded.values())
    assert not together.broken


def test_an_alias_is_followed_while_its_model_is_loaded(
    endpoint: Callable[..., Endpoint],
) -> None:
    one = endpoint(models=["*"], poll_s=0.05)
    assert one.predict("right").headers["x-eagleray-version"] == "1"
    one.registry.register("right", bundles.files(seed=9), {})
    one.registry.promote("right", 2)
    while one.predict("right").headers["x-eagleray-version"] != "2":
        pass
    assert one.loaded == ["right"]


def test_a_version_that_does_not_reproduce_its_golden_rows_is_a_503_that_says_so(
    endpoint: Callable[..., Endpoint],
) -> None:
    one = endpoint(models=["*"])
    broken = bundles.files(seed=2) | {"golden.json": bundles.files(seed=3)["golden.json"]}
    one.registry.register("right", broken, {})
    one.registry.promote("right", 2)
    answer = one.predict("right")
    assert answer.status_code == 503
    assert "right cannot be served: " in answer.json()["error"]["message"]
    assert one.loaded == []


def test_requests_for_one_model_wait_for_one_load_and_those_for_others_do_not(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, go, loads = endpoint(models=["*"], load_s=0.05), threading.Event(), []
    serve = one.models._serve

    def slow(name: str) -> served.Served:
        loads.append(name)
        if name == "right":
            go.wait(30)
        return serve(name)

    monkeypatch.setattr(one.models, "_serve", slow)

    async def work(client: httpx.AsyncClient) -> None:
        right = functools.partial(client.post, "/v1/models/right:predict", json=BODY)
        late = await asyncio.gather(right(), right())
        assert [answer.status_code for answer in late] == [503, 503]
        assert late[0].headers["retry-after"] == "1"
        assert "right is not yet" in late[0].text
        limited = await right(headers={"x-request-timeout-ms": "10"})
        assert limited.status_code == 504
        assert (await client.post("/predict", json=BODY)).status_code == 200
        while (await client.post("/v1/models/up:predict", json=BODY)).status_code != 200:
            pass
        assert (await client.get("/v1/models")).status_code == 200
        assert one.loaded == ["up"]
        monkeypatch.setattr(models, "MOST_WAITING", 0)
        assert "at most 0 requests wait" in (await right()).text
        monkeypatch.setattr(models, "MOST_WAITING", 100)
        go.set()
        while (await right()).status_code != 200:
            pass

    one.run(work)
    assert loads == ["right", "up"]


def test_a_model_waits_for_the_room_that_one_which_is_being_loaded_takes(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(len(content) for content in bundles.files().values())
    one, go, asked = endpoint(models=["*"]), threading.Event(), threading.Event()
    room = {"models_mb": 1.5 * size / 2**20}
    one.models._settings = one.models._settings.model_copy(update=room)
    serve, sized = one.models._serve, one.models._size

    def slow(name: str) -> served.Served:
        if name == "right":
            go.wait(30)
        else:
            assert go.is_set()
        return serve(name)

    def known(name: str) -> int:
        if name == "up":
            asked.set()
        return sized(name)

    monkeypatch.setattr(one.models, "_serve", slow)
    monkeypatch.setattr(one.models, "_size", known)

    async def work(client: httpx.AsyncClient) -> list[int]:
        right = asyncio.create_task(client.post("/v1/models/right:predict", json=BODY))
        while not one.models._coming:
            await asyncio.sleep(0)
        up = asyncio.create_task(client.post("/v1/models/up:predict", json=BODY))
        await asyncio.to_thread(asked.wait, 30)
        await asyncio.sleep(0)
        assert list(one.models._coming) == ["right"]
        go.set()
        return [answer.status_code for answer in await asyncio.gather(right, up)]

    assert one.run(work) == [200, 200]
    assert one.loaded == ["up"]
    assert one.models._coming == {}


def test_no_key_no_load(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    one = endpoint(models=["*"])
    key, known = apikeys.new("team", ("predict",))
    file = tmp_path / "keys"
    file.write_text(known.line())
    one.own.application.guard = guard.Guard(keys.Keys(file))
    for path in ("/v1/models/right", "/v1/models", "/v2/models/right"):
        assert one.ask("GET", path).status_code == 401
    assert one.predict("right").status_code == 401
    assert one.loaded == []
    given = {"authorization": f"Bearer {key}"}
    assert one.predict("right", headers=given).status_code == 200
    assert one.predict("right").status_code == 401


def test_models_are_listed_with_what_is_loaded(endpoint: Callable[..., Endpoint]) -> None:
    one = endpoint(models=["right", "up", "gone"])
    assert one.predict("right").status_code == 200
    assert one.ask("GET", "/v1/models").json() == {"models": ["left", "right", "up"]}
    unloaded = {"name": "up", "state": "UNAVAILABLE", "reason": "unloaded"}
    ready = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in NAMES[:2]]
    assert one.ask("POST", "/v2/repository/index").json() == [*ready, unloaded]
    assert one.ask("GET", "/v2/repository/index").status_code == 405


def test_storage_is_listed_once_for_all_who_ask_at_the_same_time(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked, go = endpoint(models=["*"]), list[str](), threading.Event()
    listed = one.own.registry.models

    def counted() -> list[str]:
        asked.append("models/")
        go.wait(30)
        return listed()

    monkeypatch.setattr(one.own.registry, "models", counted)

    async def work(client: httpx.AsyncClient) -> list[Any]:
        waiting = [asyncio.create_task(client.get("/v1/models")) for _ in range(20)]
        while not asked:
            await asyncio.sleep(0.01)
        waiting.pop().cancel()  # the others get their answer
        go.set()
        return [answer.json()["models"] for answer in await asyncio.gather(*waiting)]

    assert one.run(work) == [["left", "down", "right", "up"]] * 19
    assert asked == ["models/"]
    assert one.ask("GET", "/v1/models").status_code == 200
    assert len(asked) == 2


def test_while_storage_is_gone_loaded_models_answer_and_others_are_a_503(
    endpoint: Callable[..., Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from eagleray import errors

    one = endpoint(models=["*"])
    assert one.predict("right").status_code == 200

    def down(*_: object) -> Any:
        raise errors.StorageUnavailableError("https://s3.inside: bucket 'models': down")

    monkeypatch.setattr(one.own.registry, "resolve", down)
    monkeypatch.setattr(one.own.registry, "models", down)
    assert one.predict("right").status_code == 200
    refused = one.predict("up"), one.ask("GET", "/v1/models")
    assert [answer.status_code for answer in refused] == [503, 503]
    for answer in refused:  # where storage is concerns no client
        assert "storage cannot be read; the server's log says why" in answer.text
        assert "inside" not in answer.text
    assert caplog.text.count("https://s3.inside") == 2
