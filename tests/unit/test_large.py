"""When the deployment for large versions has replicas, and when a version is not waited for."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eagleray import bundle, errors, storage
from eagleray.state.aliases import Aliases, Route
from eagleray.state.models import Registry
from serving import large, protocol, remote
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
