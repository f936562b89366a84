"""Rollouts through the parts of replicas, without Ray: real storage, models, HTTP and leases.

Replicas stand side by side in this process; their controllers look when the test says so, by a
clock that it moves.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from eagleray import errors, storage
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollout, Rollouts
from serving import metrics, served
from serving.settings import Settings
from tests import bundles

PLAN = Plan(steps=(0.25, 0.5), bake_s=4, least=20, deadline_s=100)
ROWS = bundles.instances(bundles.rows(200, seed=3))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")


class Endpoint:
    """Three replicas of one model."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.now = (folder / "storage").as_uri(), 0.0
        (folder / "storage").mkdir()
        self.store = storage.open(self.uri)
        self.registry, self.rollouts = Registry(self.store), Rollouts(self.store)
        self.gauges = metrics.Metrics(folder / "metrics", "left")
        self.replicas: list[served.Served] = []
        self.chance = random.Random(0)
        self.answers: list[httpx.Response] = []

    def add(self, *versions: dict[str, bytes]) -> None:
        for files in versions:
            self.registry.register("left", files, {})
        self.registry.promote("left", 1)
        while len(self.replicas) < 3:
            self.replicas.append(self.replica())
        self.follow()

    def replica(self) -> served.Served:
        settings = Settings(name="left", storage=self.uri)
        return served.Served(settings, self.gauges, clock=lambda: self.now)

    def follow(self) -> None:
        for replica in self.replicas:
            replica.versions.check()

    async def ask(self, count: int, headers: dict[str, str] | None = None) -> None:
        """Send requests, each to any of the replicas; a fifth has a row with an odd age."""
        for _ in range(count):
            row = dict(self.chance.choice(ROWS))
            row["age"] = 120 if self.chance.random() < 0.2 else row["age"]
            transport = httpx.ASGITransport(self.chance.choice(self.replicas).application)
            async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
                body = {"instances": [row]}
                self.answers.append(await client.post("/predict", json=body, headers=headers))

    def pass_time(self, seconds: float = 2.0) -> None:
        """Let time pass, and every replica look at the rollout and the aliases."""
        self.now += seconds
        for replica in self.replicas:
            replica.controller.look()
        self.follow()

    def run(self, *, rounds: int = 60, requests: int = 60) -> Rollout:
        """Traffic until the rollout has ended."""

        async def work() -> None:
            for _ in range(rounds):
                await self.ask(requests)
                self.pass_time()
                if not self.rollouts.current("left").open:
                    return

        asyncio.run(work())
        return self.rollouts.current("left")

    @property
    def actions(self) -> list[tuple[str, int]]:
        return [(one.action, one.number) for one in self.registry.events("left")][-4:]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path)
    yield made
    for replica in made.replicas:
        replica.stop()


def test_a_good_version_takes_over_and_the_log_has_every_step_with_its_numbers(
    endpoint: Endpoint,
) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN, why="more data")
    ended = endpoint.run()
    assert ended.status == "promoted"
    assert endpoint.registry.aliases("left").values == {"champion": 2}
    assert endpoint.registry.aliases("left").routes == {}
    assert endpoint.actions[1:] == [
        ("rollout-started", 2),
        ("rollout-advanced", 2),
        ("promoted", 2),
    ]
    last = endpoint.registry.events("left")[-1]
    assert (last.by, last.previous) == ("rollout", 1)
    assert "errors 0.00% (champion 0.00%)" in last.why
    assert {one.status_code for one in endpoint.answers} == {200}
    asyncio.run(endpoint.ask(3))
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers[-3:]} == {"2"}


BAD = {
    "raises on some rows": (bundles.behaving("assert not (age > 3).any()"), "errors"),
    "is slow": (bundles.behaving("time.sleep(0.05)"), "slow requests"),
    "knows one class": (bundles.behaving(bias=50.0), "predictions of"),
    "eats memory": (
        bundles.behaving("self.held = [*getattr(self, 'held', []), torch.ones(2**18)]"),
        "memory",
    ),
    "gives NaN": (bundles.behaving("age[age > 3] = float('nan')"), "errors"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_version_is_stopped_and_no_client_sees_an_error(
    endpoint: Endpoint, fault: str
) -> None:
    files, reason = BAD[fault]
    endpoint.add(bundles.behaving(), files)
    limits: dict[str, float] = {"bake_s": 1000, "more_memory_mb": 100}
    if reason != "slow requests":  # others may be slow as well
        limits |= {"more_slow": 0.99, "more_slower": 0.99}
    patient = PLAN.model_copy(update=limits)
    endpoint.rollouts.start("left", 2, plan=patient)
    ended = endpoint.run()
    assert (ended.status, ended.age_s < 60) == ("stopped", True)
    assert ended.decisions[-1].why.startswith(reason)
    assert endpoint.actions[-1] == ("rollout-stopped", 2)
    assert endpoint.registry.aliases("left").values == {"champion": 1}
    assert {one.status_code for one in endpoint.answers} == {200}


def test_a_bad_version_is_stopped_too_where_it_is_to_get_all_requests_at_once(
    endpoint: Endpoint,
) -> None:
    endpoint.add(bundles.behaving(), BAD["raises on some rows"][0])
    limits = {"steps": (1.0,), "bake_s": 1000, "more_slow": 0.99, "more_slower": 0.99}
    endpoint.rollouts.start("left", 2, plan=PLAN.model_copy(update=limits))
    ended = endpoint.run()
    assert (ended.status, ended.decisions[-1].why[:6]) == ("stopped", "errors")
    assert {one.status_code for one in endpoint.answers} == {200}


def test_a_version_whose_golden_rows_fail_is_never_routed_to(endpoint: Endpoint) -> None:
    made = bundles.behaving()
    golden = made["golden.json"].replace(b'"outputs":[[0.', b'"outputs":[[0.9')
    endpoint.add(made, made | {"golden.json": golden})
    endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    ended = endpoint.run()
    assert ended.status == "stopped"
    assert "golden rows must be reproduced" in ended.decisions[-1].why
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1"}


def test_another_replica_goes_on_when_the_one_that_decides_has_died(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    asyncio.run(endpoint.ask(60))
    endpoint.pass_time()
    endpoint.pass_time()
    before = endpoint.rollouts.current("left")
    assert before.seen.candidate.requests > 0
    (leader,) = (one for one in endpoint.replicas if one.controller.leads)
    endpoint.replicas.remove(leader)
    for _ in range(9):  # longer than a lease lasts without its holder
        endpoint.pass_time()
    assert endpoint.rollouts.current("left").age_s > before.age_s
    assert endpoint.run().status == "promoted"


def test_a_replica_that_ends_leaves_the_lease_to_another_at_once(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    first, second, _ = endpoint.replicas
    first.controller.start(every_s=0.01)
    for _ in range(1000):
        if first.controller.leads:
            break
        time.sleep(0.01)
    second.controller.look()
    assert (first.controller.leads, second.controller.leads) == (True, False)
    first.stop()
    second.controller.look()  # no time has passed by its clock
    assert (first.controller.leads, second.controller.leads) == (False, True)


def abort_without_its_route(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a rollout and decide its end, as a process that dies before the route follows."""
    endpoint.add(bundles.behaving(), bundles.behaving())
    begun = endpoint.rollouts.start("left", 2, plan=PLAN)
    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "apply", lambda *_, **__: None)
        endpoint.rollouts.abort(begun)


def test_a_process_that_dies_between_decision_and_route_leaves_nothing_half_done(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort_without_its_route(endpoint, monkeypatch)
    assert "champion" in endpoint.registry.aliases("left").routes
    endpoint.follow()
    endpoint.pass_time()
    assert endpoint.registry.aliases("left").routes == {}
    assert endpoint.actions[-1] == ("rollout-stopped", 2)


def test_a_rollout_begins_after_one_that_ended_and_was_not_yet_applied(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort_without_its_route(endpoint, monkeypatch)
    again = endpoint.rollouts.start("left", 2, plan=PLAN)
    assert endpoint.registry.aliases("left").routes["champion"].rollout == again.id
    assert [action for action, _ in endpoint.actions[-2:]] == ["rollout-stopped", "rollout-started"]
    with pytest.raises(errors.ConflictError, match="must not be in a rollout"):
        endpoint.rollouts.start("left", 2, plan=PLAN)


def test_damaged_documents_neither_stop_a_rollout_nor_make_it_stick(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    begun = endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    folder = f"models/left/rollouts/{begun.id}"
    endpoint.store.put(f"{folder}/evidence/damaged.json", b"{")
    asyncio.run(endpoint.ask(40))
    for _ in range(2):  # the first one that looks decides before the others have written
        endpoint.pass_time()
    assert endpoint.rollouts.current("left").seen.candidate.requests > 0
    endpoint.store.put(f"{folder}/rollout.json", b"{")
    for replica in endpoint.replicas:
        replica.controller._rollout = None  # as in a process that has just started
    endpoint.pass_time()
    assert endpoint.registry.aliases("left").routes == {}
    assert endpoint.actions[-1] == ("rollout-stopped", 2)


def test_a_user_with_a_sticky_header_meets_one_version(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=Plan(mode="split", steps=(0.5,), sticky="x-user"))
    endpoint.follow()

    async def work() -> dict[str, set[str]]:
        met: dict[str, set[str]] = {}
        for number in range(60):
            user = f"user {number % 12}"
            await endpoint.ask(1, {"x-user": user})
            version = endpoint.answers[-1].headers["x-eagleray-version"]
            met.setdefault(user, set()).add(version)
        return met

    met = asyncio.run(work())
    assert all(len(one) == 1 for one in met.values())
    assert set.union(*met.values()) == {"1", "2"}


def test_a_split_ends_with_the_winner_by_the_labels_that_clients_report(
    endpoint: Endpoint,
) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    plan = {"mode": "split", "steps": (0.5,), "bake_s": 4, "least": 20, "deadline_s": 200}
    plan |= {"measure": "label", "promote_winner": True, "more_slow": 0.99}
    endpoint.rollouts.start("left", 2, plan=Plan.model_validate(plan))
    endpoint.follow()

    async def report() -> dict[str, int]:
        """The labels of all answers since the last report: the champion is right half the time."""
        labels = []
        for answer in endpoint.answers:
            version = answer.json()["version"]
            label = {"request_id": answer.headers["x-request-id"], "version": version}
            reward = 1.0 if version == 2 else 0.5
            labels.append({**label, "reward": reward})
        endpoint.answers.clear()
        transport = httpx.ASGITransport(endpoint.replicas[0].application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            sent = await client.post("/v1/models/left:label", json={"labels": labels})
            again = await client.post("/v1/models/left:label", json={"labels": labels})
        assert again.json() == {"counted": 0, "repeated": len(labels), "ignored": 0}
        return dict(sent.json())

    async def work() -> None:
        for _ in range(40):
            await endpoint.ask(30)
            assert (await report())["counted"] == 30
            endpoint.pass_time()
            if not endpoint.rollouts.current("left").open:
                return

    asyncio.run(work())
    ended = endpoint.rollouts.current("left")
    assert (ended.status, ended.winner) == ("promoted", 2)
    assert ended.decisions[-1].why.startswith("candidate is better: 1 against 0.")
    assert endpoint.registry.aliases("left").values == {"champion": 2}
    assert endpoint.registry.events("left")[-1].why == f"rollout: {ended.decisions[-1].why}"


def test_a_shadow_answers_nobody_and_says_how_much_differs(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving("time.sleep(0.001)"))
    shadow = Plan(mode="shadow", steps=(1.0,), bake_s=4, least=20, more_slow=0.99)
    endpoint.rollouts.start("left", 2, plan=shadow)
    endpoint.follow()
    ended = endpoint.run(requests=20)
    assert (ended.status, ended.seen.candidate.differing) == ("ended", 0)
    assert ended.seen.candidate.compared >= 20
    assert {one.headers["x-eagleray-version"] for one in endpoint.answers} == {"1"}
    assert endpoint.registry.aliases("left").values == {"champion": 1}


def test_a_request_that_both_versions_refuse_counts_against_none(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN.model_copy(update={"steps": (1.0,)}))
    endpoint.follow()

    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(endpoint.replicas[0].application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.post("/predict", json={"instances": [{"age": "old"}]})

    assert asyncio.run(work()).status_code == 422
    for _ in range(3):
        endpoint.pass_time()
    assert endpoint.rollouts.current("left").seen.candidate.requests == 0


def test_two_operators_and_a_promotion_do_not_steer_at_once(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving(), bundles.behaving())
    begun = endpoint.rollouts.start("left", 2, plan=PLAN)
    for act in (
        lambda: endpoint.rollouts.start("left", 3, plan=PLAN),
        lambda: endpoint.registry.promote("left", 3),
        lambda: endpoint.registry.rollback("left"),
    ):
        with pytest.raises(errors.ConflictError, match="eagleray rollout abort left"):
            act()
    paused = endpoint.rollouts.pause(begun, why="lunch")
    assert endpoint.rollouts.abort(begun).status == "stopped", "of what others wrote meanwhile"
    with pytest.raises(errors.ConflictError, match="but it was stopped: aborted by hand"):
        endpoint.rollouts.resume(paused)
    actions = [one.action for one in endpoint.rollouts.current("left").decisions]
    assert actions == ["started", "paused", "stopped"]
    endpoint.registry.promote("left", 3)


def test_of_operators_who_start_in_the_same_moment_one_begins_and_the_others_are_told(
    endpoint: Endpoint,
) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving(), bundles.behaving())
    together = threading.Barrier(6)

    def start(number: int) -> Rollout | errors.ConflictError:
        together.wait()
        try:
            return Rollouts(endpoint.store).start("left", number, plan=PLAN)
        except errors.ConflictError as refusal:
            return refusal

    with ThreadPoolExecutor(6) as operators:
        found = list(operators.map(start, [2, 3, 2, 3, 2, 3]))
    (begun,) = (one for one in found if isinstance(one, Rollout))
    assert endpoint.registry.aliases("left").routes["champion"].rollout == begun.id
    assert endpoint.rollouts.current("left").id == begun.id
    assert [one.action for one in endpoint.registry.events("left")].count("rollout-started") == 1


def test_operators_who_steer_in_the_same_moment_leave_each_decision_and_the_route_of_the_last(
    endpoint: Endpoint,
) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    begun = endpoint.rollouts.start("left", 2, plan=PLAN)
    together = threading.Barrier(6)

    def steer(what: str) -> bool:
        own = Rollouts(endpoint.store)
        together.wait()
        try:
            getattr(own, what)(begun, why=what)
        except errors.ConflictError:  # somebody has aborted it before
            return False
        return True

    acts = ["pause", "resume", "abort", "pause", "resume", "abort"]
    with ThreadPoolExecutor(6) as operators:
        done = list(operators.map(steer, acts))
    ended = endpoint.rollouts.current("left")
    actions = [one.action for one in ended.decisions]
    assert (ended.status, actions.count("stopped"), actions[-1]) == ("stopped", 1, "stopped")
    assert [ok for ok, act in zip(done, acts, strict=True) if act == "abort"].count(True) == 1
    assert endpoint.registry.aliases("left").routes == {}


def test_what_cannot_be_rolled_out_is_refused_and_leaves_no_route(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    with pytest.raises(errors.NotFoundError):
        endpoint.rollouts.start("left", 9, plan=PLAN)
    with pytest.raises(errors.ConflictError, match="points to version 1 already"):
        endpoint.rollouts.start("left", 1, plan=PLAN)
    with pytest.raises(errors.ConflictError, match="points nowhere"):
        endpoint.rollouts.start("left", 2, plan=PLAN, alias="challenger")
    with pytest.raises(errors.NotFoundError, match="must have had a rollout"):
        endpoint.rollouts.current("left")
    assert endpoint.registry.aliases("left").routes == {}


def test_a_malformed_route_is_refused_and_the_version_keeps_serving(endpoint: Endpoint) -> None:
    endpoint.add(bundles.behaving(), bundles.behaving())
    endpoint.rollouts.start("left", 2, plan=PLAN)
    endpoint.follow()
    data, etag = endpoint.store.get_tagged("models/left/aliases.json")
    document = json.loads(data)
    document["routes"]["champion"]["share"] = 7
    endpoint.store.compare_and_swap("models/left/aliases.json", json.dumps(document).encode(), etag)
    endpoint.follow()
    asyncio.run(endpoint.ask(5))
    assert {one.status_code for one in endpoint.answers} == {200}
