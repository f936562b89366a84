"""Versions that do not fit into a replica, through the parts of both deployments, without Ray.

What they say to each other is pickled, as Ray does it. Models, storage and HTTP are real.
"""

import asyncio
import pickle
import random
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray import errors, storage
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollout, Rollouts
from serving import large, metrics, remote, served
from serving.settings import Large, Settings
from tests import bundles

PLAN = Plan(steps=(0.25, 0.5), bake_s=4, least=20, deadline_s=100)
LONG = "sum(range(4_000_000))"
"""A batch takes a processor a tenth of a second or more, in a thread."""
ROWS = bundles.instances(bundles.rows(200, seed=3))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    monkeypatch.setattr(remote, "KEEP_S", 0.05)
    monkeypatch.setattr(remote, "RETRY_S", 0.05)


class Deployment:
    """What Ray makes of `large.Large`: a replica that starts when somebody asks, and may die."""

    def __init__(self, settings: Settings, gauges: metrics.Metrics) -> None:
        self._made = settings, gauges
        self.starts = True
        self.replica: large.Large | None = None
        self.asked = 0  # questions, since somebody looked

    async def __call__(self, method: str, *given: Any) -> Any:
        self.asked += method == "ready"
        while not self.starts:
            await asyncio.sleep(0.01)
        if self.replica is None:
            self.replica = large.Large(*self._made)
            self.replica.begin()
        replica = self.replica
        answer = await getattr(replica, method)(*pickle.loads(pickle.dumps(given)))
        if self.replica is not replica:
            raise errors.LostError("its process has ended")
        return pickle.loads(pickle.dumps(answer))

    def dies(self, *, starts: bool = True) -> None:
        self.replica, self.starts = None, starts


class Endpoint:
    """A replica at version 1, with room for one version."""

    def __init__(self, folder: Path, start_s: float = 30.0) -> None:
        (folder / "storage").mkdir()
        uri = (folder / "storage").as_uri()
        self.now, self.chance = 0.0, random.Random(0)
        self.registry, self.rollouts = Registry(storage.open(uri)), Rollouts(storage.open(uri))
        self.gauges = metrics.Metrics(folder / "metrics", "left")
        version = self.registry.register("left", bundles.behaving(), {})
        self.registry.promote("left", 1)
        size = sum(one.size for one in version.files.values()) / 2**20
        self.settings = Settings(
            name="left", storage=uri, versions_mb=1.5 * size, large=Large(start_s=start_s)
        )
        self.deployment = Deployment(self.settings, self.gauges)
        self.replica = served.Served(
            self.settings, self.gauges, large=self.deployment, clock=lambda: self.now
        )
        self.answers: list[httpx.Response] = []

    async def start(self) -> None:
        assert self.replica.remote is not None
        self.replica.remote.start()
        self.replica.versions.check()

    async def ask(self, count: int = 1, query: str = "", **headers: str) -> None:
        transport = httpx.ASGITransport(self.replica.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            for _ in range(count):
                row = dict(self.chance.choice(ROWS))
                row["age"] = 120 if self.chance.random() < 0.2 else row["age"]
                body = {"instances": [row]}
                self.answers.append(
                    await client.post(f"/predict{query}", json=body, headers=headers)
                )

    async def look(self, seconds: float = 2.0) -> None:
        """Let time pass, and the replica look at the rollout and the aliases."""
        self.now += seconds
        self.replica.controller.look()
        self.replica.versions.check()
        await asyncio.sleep(0.02)

    async def until(self, version: int) -> None:
        """Look and ask until a version answers; it must be soon."""
        for _ in range(200):
            await self.ask()
            if self.answered() == str(version):
                return
            await self.look(0.0)
        raise AssertionError(f"version {version} does not answer")

    async def roll_out(self, *, rounds: int = 100, requests: int = 20) -> Rollout:
        """Traffic until the rollout has ended."""
        for _ in range(rounds):
            await self.look()
            await self.ask(requests)
            if not self.rollouts.current("left").open:
                break
        return self.rollouts.current("left")

    def answered(self) -> str:
        return str(self.answers[-1].headers.get("x-eagleray-version"))

    @property
    def statuses(self) -> set[int]:
        return {one.status_code for one in self.answers}

    @property
    def held(self) -> list[int]:
        return self.replica.versions._held.numbers


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path)
    yield made
    made.replica.versions.stop()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_large_candidate_becomes_champion_and_nothing_of_its_deployment_is_needed_then(
    endpoint: Endpoint,
) -> None:
    async def work() -> None:
        await endpoint.start()
        assert (endpoint.held, endpoint.deployment.replica) == ([1], None)
        endpoint.registry.register("left", bundles.behaving(), {})
        endpoint.rollouts.start("left", 2, plan=PLAN)
        ended = await endpoint.roll_out()
        assert (ended.status, ended.seen.candidate.errors) == ("promoted", 0), ended.decisions[-1]
        for _ in range(3):
            await endpoint.look()
            await endpoint.ask(5)
        assert (endpoint.held, endpoint.answered()) == ([2], "2")
        endpoint.deployment.asked = 0
        await asyncio.sleep(0.2)
        assert endpoint.deployment.asked == 0

    run(work())
    assert endpoint.statuses == {200}
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1", "2"}


BAD = {
    "raises on some rows": (bundles.behaving("assert not (age > 3).any()"), "errors"),
    "knows one class": (bundles.behaving(bias=50.0), "predictions of"),
    "is slow": (bundles.behaving("time.sleep(0.05)"), "slow requests"),
    "eats memory": (
        bundles.behaving("self.held = [*getattr(self, 'held', []), torch.ones(2**20)]"),
        "memory",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_large_candidate_is_rolled_back_and_no_client_sees_it(
    endpoint: Endpoint, fault: str
) -> None:
    files, reason = BAD[fault]
    limits: dict[str, float] = {"bake_s": 1000, "more_memory_mb": 100}
    if reason != "slow requests":
        limits |= {"more_slow": 0.99, "more_slower": 0.99}

    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", files, {})
        endpoint.rollouts.start("left", 2, plan=PLAN.model_copy(update=limits))
        ended = await endpoint.roll_out()
        assert ended.status == "stopped"
        assert ended.decisions[-1].why.startswith(reason)
        await endpoint.look()
        endpoint.deployment.asked = 0
        await asyncio.sleep(0.2)
        assert endpoint.deployment.asked == 0

    run(work())
    assert (endpoint.statuses, endpoint.held) == ({200}, [1])
    assert endpoint.registry.aliases("left").values == {"champion": 1}


def test_a_process_that_dies_costs_no_request_and_its_rollout_goes_on(endpoint: Endpoint) -> None:
    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", bundles.behaving(), {})
        endpoint.rollouts.start("left", 2, plan=PLAN)
        await endpoint.until(2)
        endpoint.deployment.dies(starts=False)
        await asyncio.sleep(0.1)
        endpoint.answers.clear()
        await endpoint.ask(40)
        assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1"}
        endpoint.deployment.starts = True
        assert (await endpoint.roll_out()).status == "promoted"

    run(work())
    assert endpoint.statuses == {200}


def test_without_a_replica_in_time_the_rollout_is_stopped_and_says_why(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, start_s=0.1)

    async def work() -> None:
        await endpoint.start()
        endpoint.deployment.starts = False
        endpoint.registry.register("left", bundles.behaving(), {})
        endpoint.rollouts.start("left", 2, plan=PLAN)
        await endpoint.look()
        await asyncio.sleep(0.3)
        ended = await endpoint.roll_out()
        assert ended.status == "stopped"
        assert "must be ready within 0.1 s, but none is" in ended.decisions[-1].why

    run(work())
    assert endpoint.statuses == {200}


def test_a_version_that_its_deployment_refuses_stops_the_rollout_with_the_reason(
    endpoint: Endpoint,
) -> None:
    made = bundles.behaving()
    golden = made["golden.json"].replace(b'"outputs":[[0.', b'"outputs":[[0.9')

    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", made | {"golden.json": golden}, {})
        endpoint.rollouts.start("left", 2, plan=PLAN)
        ended = await endpoint.roll_out()
        assert ended.status == "stopped"
        assert "golden rows must be reproduced" in ended.decisions[-1].why

    run(work())
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1"}


def test_a_version_that_does_not_even_fit_alone_is_served_where_it_is(
    endpoint: Endpoint,
) -> None:
    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", bundles.behaving(LONG), {})
        endpoint.replica.versions._held._budget //= 2
        endpoint.registry.promote("left", 2)
        await endpoint.until(2)
        await endpoint.ask(**{"x-request-id": "mine", "x-request-timeout-ms": "5000"})
        assert endpoint.answers[-1].headers["x-request-id"] == "mine"
        await endpoint.ask(query="?explain=true", **{"x-request-timeout-ms": "30"})
        await endpoint.ask(**{"x-request-timeout-ms": "30"})
        assert [one.status_code for one in endpoint.answers[-2:]] == [504, 504]
        assert endpoint.deployment.replica is not None
        assert endpoint.deployment.replica.ongoing.now == 0, "their requests there have ended too"
        await endpoint.look()
        assert endpoint.held == []
        endpoint.registry.promote("left", 1)
        await endpoint.until(1)
        assert endpoint.held == []

    run(work())


def test_a_candidate_beside_a_stable_version_there_is_promoted_whatever_memory_both_take(
    endpoint: Endpoint,
) -> None:
    plan = PLAN.model_copy(update={"more_memory_mb": 100, "more_slow": 0.99, "more_slower": 0.99})
    heavy = bundles.behaving("self.held = getattr(self, 'held', None) or [torch.ones(2**25)]")

    async def work() -> None:
        await endpoint.start()
        endpoint.replica.versions._held._budget //= 2
        for _ in range(2):
            endpoint.registry.register("left", heavy, {})
        endpoint.registry.promote("left", 2)
        await endpoint.until(2)
        endpoint.rollouts.start("left", 3, plan=plan)
        ended = await endpoint.roll_out()
        assert ended.status == "promoted", ended.decisions[-1]
        await endpoint.until(3)
        assert endpoint.held == []

    run(work())
    assert endpoint.statuses == {200}


def test_a_stable_version_there_is_waited_for_when_its_process_dies(endpoint: Endpoint) -> None:
    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", bundles.behaving(LONG), {})
        endpoint.replica.versions._held._budget //= 2
        endpoint.registry.promote("left", 2)
        await endpoint.until(2)
        asked = asyncio.create_task(endpoint.ask(4))
        await asyncio.sleep(0.05)
        endpoint.deployment.dies()
        await asked
        assert endpoint.answered() == "2"

    run(work())
    assert endpoint.statuses == {200}


def test_a_shadow_there_is_compared_and_answers_nobody(endpoint: Endpoint) -> None:
    async def work() -> None:
        await endpoint.start()
        endpoint.registry.register("left", bundles.behaving(), {})
        plan = Plan(mode="shadow", steps=(1.0,), bake_s=4, least=20)
        endpoint.rollouts.start("left", 2, plan=plan)
        ended = await endpoint.roll_out()
        assert (ended.status, ended.seen.candidate.differing) == ("ended", 0)
        assert ended.seen.candidate.compared >= 20

    run(work())
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1"}
