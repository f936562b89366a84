"""When the deployment for large versions has replicas, and when a version is not waited for."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eagleray import bundle, errors, storage
from eagleray.state.aliases import Aliases, Route
from eagleray.state.models import Registry
from serving import large, metrics, protocol, remote
from serving.autoscaling import policy
from serving.settings import Large, Settings
from tests import bundles

SETTINGS = Settings(
    name="left", min_replicas=2, max_replicas=6, p95_ms=50, large=Large(unused_s=20)
)
QUESTIONS = policy.Reading(ongoing=0.0, arrived=0.2, served=0.2, busy=0.001)
"""What a replica reports that one replica of the endpoint asks whether it has a version."""
NOTHING = policy.Reading(ongoing=0.0, arrived=0.0, served=0.0, busy=0.001)


def decided(loads: list[policy.Load], replicas: int = 0) -> list[int]:
    """What the policy wants for these loads, a second apart."""
    scaler, found = policy.Scaler(SETTINGS.large_plan()), []
    for second, load in enumerate(loads):
        replicas, _ = scaler(load, replicas, float(second))
        found.append(replicas)
    return found


def test_a_question_starts_a_replica_questions_keep_it_and_without_any_it_ends() -> None:
    idle, starting = policy.Load((), ()), policy.Load((), (), waiting=1.0)
    assert decided([idle, idle, starting, starting]) == [0, 0, 1, 1]
    asked, quiet = (policy.Load((one,), (one,)) for one in (QUESTIONS, NOTHING))
    assert decided([asked] * 100, 1) == [1] * 100
    ends = decided([asked] * 5 + [quiet] * 60, 1)
    assert ends[5 + 20 - 2] == 1, "not before `unused_s`"
    assert ends[-1] == 0


def test_its_replicas_follow_the_load_as_those_of_the_endpoint_do_up_to_as_many() -> None:
    own, plan = SETTINGS.plan(), SETTINGS.large_plan()
    assert (plan.min_replicas, plan.max_replicas, plan.p95_ms) == (0, 6, 50)
    assert (plan.pace.up_s, plan.pace.panic) == (own.pace.up_s, own.pace.panic)
    fewer = SETTINGS.model_copy(update={"large": Large(max_replicas=2)})
    assert fewer.large_plan().max_replicas == 2


def test_a_first_replica_begins_with_the_candidate_or_else_with_the_champion() -> None:
    aliases = Aliases(values={"champion": 3})
    assert large.wanted(aliases, "champion") == 3
    route = Route(rollout="r", candidate=4, share=0.1)
    assert large.wanted(aliases.model_copy(update={"routes": {"champion": route}}), "champion") == 4
    assert large.wanted(aliases, "challenger") is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEEP_S", 0.001)
    monkeypatch.setattr(remote, "RETRY_S", 0.001)


class Answers:
    """Gives one answer after another; the last one again and again."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.count = list(answers), 0

    async def __call__(self, method: str, *_: Any) -> Any:
        assert method == "ready"
        await asyncio.sleep(0)
        self.count += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


LOST, READY = errors.LostError("killed"), remote.State()


def followed(calls: Answers, *, alone: bool = False, until: int = 100) -> remote.Batches:
    """What is known of a version after it was asked for, at most `until` times."""

    async def work() -> remote.Batches:
        batches = remote.Batches(7, calls)
        batches.alone = alone
        task = asyncio.create_task(batches.follow(start_s=60.0))
        while not task.done() and calls.count < until:
            await asyncio.sleep(0.001)
        task.cancel()
        return batches

    return asyncio.run(work())


@pytest.mark.usefixtures("quick")
def test_a_version_is_refused_when_several_processes_end_while_they_load_it() -> None:
    batches = followed(Answers(LOST))
    assert (batches.ready, "but 3 have ended meanwhile: killed" in str(batches.refused)) == (
        False,
        True,
    )


@pytest.mark.usefixtures("quick")
def test_losses_of_a_version_that_comes_back_do_not_add_up() -> None:
    batches = followed(Answers(LOST, LOST, READY, LOST, LOST, READY, LOST, READY))
    assert (batches.ready, batches.refused) == (True, None)


@pytest.mark.usefixtures("quick")
def test_a_version_that_serves_alone_is_never_given_up() -> None:
    for answer in (LOST, remote.State("no room on the node that is left")):
        batches = followed(Answers(answer), alone=True, until=20)
        assert (batches.ready, batches.refused) == (False, None)


@pytest.mark.usefixtures("quick")
def test_a_refusal_is_final_and_says_why() -> None:
    calls = Answers(remote.State("its golden rows"))
    assert (followed(calls).refused, calls.count) == ("its golden rows", 1)


def test_rows_that_another_process_gets_are_the_same() -> None:
    codec = protocol.Codec(bundles.make().schema)
    rows = bundles.instances(bundles.rows(20))
    parsed = codec.parse(codec.rows(msgspec.json.encode({"instances": rows})))
    assert codec.unpacked(protocol.pack(parsed)) == parsed


def test_an_outline_has_all_of_a_version_but_its_model(tmp_path: Path) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()))
    version = registry.register("left", bundles.files(), {})
    whole, outline = bundle.load(registry, version), bundle.outline(registry, version)
    assert (outline.name, outline.number, outline.schema) == ("left", 1, whole.schema)
    assert outline.golden == whole.golden
    with pytest.raises(errors.ServingError, match="runs in another one"):
        outline.predict(bundles.rows(1))


HEAVY = bundles.behaving("self.held = getattr(self, 'held', None) or [torch.ones(2**25)]")
HEAVY_MB = 128
GROWING = bundles.behaving("self.held = [*getattr(self, 'held', []), torch.ones(2**23)]")


class Process:
    """A replica for large versions, with room for `room` versions that are loaded."""

    def __init__(self, folder: Path, *registered: dict[str, bytes], room: int = 9) -> None:
        (folder / "storage").mkdir()
        self.now, uri = 0.0, (folder / "storage").as_uri()
        registry = Registry(storage.open(uri))
        for files in registered or (bundles.files(),) * 3:
            registry.register("left", files, {})
        settings = Settings(name="left", storage=uri, large=Large(), poll_s=0.001)
        observer = metrics.Metrics(folder / "metrics", "left")
        self.large = large.Large(settings, observer, free=self._free, clock=lambda: self.now)
        self.room, self.tries = room, 0

    @property
    def held(self) -> list[int]:
        return self.large._held.numbers

    async def ready(self, number: int) -> remote.State:
        return await self.large.ready(number)

    async def predict(self, number: int) -> None:
        codec = protocol.Codec(bundles.make().schema)
        body = msgspec.json.encode({"instances": bundles.instances(bundles.rows(1))})
        packed = protocol.pack(codec.parse(codec.rows(body)))
        reply = await self.large.predict(number, packed, False, False)
        assert (reply.failed, reply.busy) == (None, None)

    async def tried(self) -> None:
        """Wait until it has looked for room again."""
        before = self.tries
        while self.tries <= before + 1:  # the clock may have moved while it looked
            await asyncio.sleep(0.001)

    def _free(self) -> int:
        self.tries += 1
        return 1 << 40 if len(self.held) < self.room else 0


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_a_version_grows_by_what_it_takes_and_not_by_versions_that_come_later(
    tmp_path: Path,
) -> None:
    process = Process(tmp_path, GROWING, HEAVY, bundles.files(), room=2)

    async def work() -> None:
        for number in (1, 2):
            await process.ready(number)
        assert (await process.ready(1)).grown_mb < HEAVY_MB / 2, "version 2 takes its own memory"
        process.now += large.UNUSED_S + 1
        await process.ready(1)
        await process.ready(3)
        assert process.held == [1, 3], "version 2 gives its memory back"
        for _ in range(6):
            await process.predict(1)
        assert 150 < (await process.ready(1)).grown_mb < 280, "6 times 32 MiB"

    run(work())


def test_while_a_version_is_loaded_none_seems_to_grow(tmp_path: Path) -> None:
    process = Process(tmp_path, bundles.files(), HEAVY)

    async def work() -> None:
        await process.ready(1)
        loading, grown = asyncio.create_task(process.ready(2)), [0.0]
        while not loading.done():
            await asyncio.sleep(0.001)
            grown.append((await process.ready(1)).grown_mb)
        assert (max(grown) < HEAVY_MB / 2, len(grown) > 1) == (True, True)

    run(work())


def test_a_version_waits_for_the_room_of_one_that_is_not_asked_for_any_more(
    tmp_path: Path,
) -> None:
    process = Process(tmp_path, room=1)

    async def work() -> None:
        await process.ready(1)
        process.now = 10.0
        waiting = asyncio.create_task(process.ready(2))
        await process.tried()
        assert (process.held, waiting.done()) == ([1], False)
        process.now = large.UNUSED_S + 1
        assert ((await waiting).refused, process.held) == (None, [2])

    run(work())


def test_a_version_is_refused_once_it_has_waited_for_room_in_vain(tmp_path: Path) -> None:
    process = Process(tmp_path, room=1)

    async def work() -> None:
        await process.ready(1)
        waiting = asyncio.create_task(process.ready(2))
        await process.tried()
        for seconds in (20.0, large.ROOM_S):
            process.now = seconds
            await process.ready(1)
            await process.tried()
            assert not waiting.done()
        process.now = large.ROOM_S + 1
        assert "version 2 must fit the replica's memory" in str((await waiting).refused)
        assert process.held == [1]

    run(work())


def test_a_version_that_nothing_makes_room_for_is_refused_at_once(tmp_path: Path) -> None:
    process = Process(tmp_path, room=0)

    async def work() -> None:
        assert "must fit the replica's memory" in str((await process.ready(1)).refused)

    run(work())
    assert process.tries == 1


def test_a_version_that_predicts_is_in_use_though_nobody_asks_for_it(tmp_path: Path) -> None:
    process = Process(tmp_path, room=1)

    async def work() -> None:
        await process.ready(1)
        process.now = 25.0
        await process.predict(1)
        process.now = 50.0
        waiting = asyncio.create_task(process.ready(2))
        await process.tried()
        assert (process.held, waiting.done()) == ([1], False)
        process.now = 25.0 + large.UNUSED_S + 1
        assert ((await waiting).refused, process.held) == (None, [2])

    run(work())
