"""Decisions of rollouts, on simulated traffic."""

import asyncio
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.state import aliases
from eagleray.state.evidence import Counts, Evidence
from eagleray.state.rollouts import Plan, Rollout
from serving import admission, batching, rollout, routing

PLAN = Plan(bake_s=10, least=100, deadline_s=600)
Behaviour = Callable[[random.Random], tuple[float, str] | None]
"""Seconds and outcome of a request; None if it fails."""


def good(chance: random.Random) -> tuple[float, str]:
    return chance.lognormvariate(-6.0, 0.5), "yes" if chance.random() < 0.3 else "no"


def told(one: Evidence, stable: int, candidate: int, of: int) -> Evidence:
    """The evidence with labels: of so many requests of each version, so many were right."""
    labels = [{"labels": of, "hits": hits} for hits in (stable, candidate)]
    return one.model_copy(
        update={
            "stable": one.stable.model_copy(update=labels[0]),
            "candidate": one.candidate.model_copy(update=labels[1]),
        }
    )


def begun(plan: Plan = PLAN) -> Rollout:
    return Rollout(
        id="r", model="spam", alias="champion", stable=1, candidate=2, by="ada", plan=plan
    ).decided("started", "")


class Traffic:
    """Requests for two versions, some a second."""

    def __init__(
        self, candidate: Behaviour, seed: int, *, rate: int = 200, stable: Behaviour = good
    ) -> None:
        self.stable, self.candidate = routing.Tally(), routing.Tally()
        self._behaves, self._rate, self._chance = candidate, rate, random.Random(seed)
        self._champion = stable

    def second(self, share: float) -> Evidence:
        for _ in range(self._rate):
            chosen = self._chance.random() < share
            tally = self.candidate if chosen else self.stable
            got = (self._behaves if chosen else self._champion)(self._chance)
            tally.answered(*got) if got else tally.failed()
        return Evidence(stable=self.stable.counts(), candidate=self.candidate.counts())


def roll(candidate: Behaviour, seed: int = 0, plan: Plan = PLAN, *, rate: int = 200) -> Rollout:
    """Look every two seconds until it has ended."""
    made, traffic = begun(plan), Traffic(candidate, seed, rate=rate)
    while made.open:
        share = made.share
        traffic.second(share)
        made = rollout.step(made, traffic.second(share), 2.0)
    return made


def test_a_good_candidate_takes_over_step_by_step_and_each_decision_has_numbers() -> None:
    made = roll(good)
    assert [one.action for one in made.decisions] == ["started", "advanced", "advanced", "promoted"]
    assert [one.share for one in made.decisions] == [0.05, 0.25, 0.5, 0.5]
    assert made.status == "promoted"
    assert "errors 0.00% (champion 0.00%)" in made.decisions[-1].why
    assert made.route is None


def test_of_fifty_good_candidates_at_most_two_are_stopped() -> None:
    quick = Plan(steps=(0.25, 0.5), bake_s=20, least=50)
    stopped = [seed for seed in range(50) if roll(good, seed, quick, rate=50).status != "promoted"]
    assert len(stopped) <= 2


def failing(chance: random.Random) -> tuple[float, str] | None:
    return None if chance.random() < 0.05 else good(chance)


def slow(chance: random.Random) -> tuple[float, str]:
    seconds, outcome = good(chance)
    return 3 * seconds, outcome


def spread(chance: random.Random) -> tuple[float, str]:
    return chance.lognormvariate(-4.0, 1.5), "yes" if chance.random() < 0.3 else "no"


def stubborn(chance: random.Random) -> tuple[float, str]:
    return good(chance)[0], "no"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [(failing, "errors"), (slow, "slow requests"), (stubborn, "predictions of")],
)
def test_a_bad_candidate_is_stopped_within_a_minute_for_the_right_reason(
    candidate: Behaviour, reason: str
) -> None:
    for seed in range(10):
        made = roll(candidate, seed, Plan())
        assert made.status == "stopped"
        assert made.decisions[-1].why.startswith(reason)
        assert made.age_s < 60
        requests = made.seen.candidate.requests, made.seen.stable.requests
        assert requests[0] < 0.1 * sum(requests)


def test_a_candidate_that_always_fails_does_not_take_over_at_the_first_look() -> None:
    made = roll(lambda _: None, plan=Plan(steps=(0.5,), bake_s=1, least=50))
    assert made.status == "stopped"
    assert made.decisions[-1].why.startswith("errors")


def test_where_times_have_a_long_tail_the_median_tells_what_is_slower() -> None:
    for times, ending in ((1, "promoted"), (6, "stopped")):
        made = begun()
        traffic = Traffic(
            lambda chance, times=times: (times * spread(chance)[0], spread(chance)[1]),  # type: ignore[misc]
            0,
            stable=spread,
        )
        while made.open:
            made = rollout.step(made, traffic.second(made.share), 2.0)
        assert made.status == ending
    assert made.decisions[-1].why.startswith("slow requests, above the median")


def test_an_objective_takes_the_place_of_the_champions_own_p95() -> None:
    assert roll(slow, plan=PLAN.model_copy(update={"p95_ms": 50.0})).status == "promoted"
    assert roll(slow, plan=PLAN.model_copy(update={"p95_ms": 5.0})).status == "stopped"


def test_without_requests_it_waits_until_its_deadline_and_never_sticks() -> None:
    made = roll(good, rate=0)
    assert (made.status, made.age_s) == ("stopped", 600)
    assert made.decisions[-1].why.startswith("its 600 s are over: 0 requests")


def test_a_candidate_that_is_refused_somewhere_is_stopped_at_once() -> None:
    made = rollout.step(begun(), Evidence(refused="golden rows are off"), 2.0)
    assert (made.status, made.decisions[-1].why) == ("stopped", "golden rows are off")


def test_a_candidate_with_which_a_replica_grows_is_stopped() -> None:
    assert rollout.step(begun(), Evidence(grown_mb=900), 2.0).open
    made = rollout.step(begun(), Evidence(grown_mb=1100), 2.0)
    assert made.decisions[-1].why.startswith("memory: a replica has grown by 1100 MiB")


def test_paused_it_stays_at_its_step_and_is_still_stopped() -> None:
    paused, traffic = begun().decided("paused", "", status="paused"), Traffic(good, 0)
    for _ in range(20):
        paused = rollout.step(paused, traffic.second(0.05), 2.0)
    assert (paused.step, paused.baked_s) == (0, 0.0)
    worse = Traffic(failing, 0)
    paused = begun().decided("paused", "", status="paused")
    while paused.open:
        paused = rollout.step(paused, worse.second(0.05), 2.0)
    assert paused.status == "stopped"


def test_a_shadow_ends_with_what_differs_and_a_split_lasts_until_its_deadline() -> None:
    made = begun(Plan(mode="shadow", steps=(1.0,), bake_s=0))
    for requests, differing in ((10, 0), (300, 3)):
        counts = Counts(requests=requests, compared=requests, differing=differing)
        made = rollout.step(made, Evidence(candidate=counts), 2.0)
    assert (made.status, made.route) == ("ended", None)
    assert "1.0% of 300 predictions differ" in made.decisions[-1].why
    split = roll(good, plan=Plan(mode="split", steps=(0.5,), bake_s=0, deadline_s=20))
    assert (split.status, split.age_s) == ("ended", 20)


SPLIT = Plan(mode="split", steps=(0.5,), bake_s=10, least=100, deadline_s=200, measure="label")


def split(plan: Plan, *, stable: float, candidate: float, seed: int = 0) -> Rollout:
    """A split whose requests are labelled: each version is right with its probability."""
    made, traffic, chance = begun(plan), Traffic(good, seed), random.Random(seed)
    hits, of = [0, 0], 0
    while made.open:
        of += 50
        for place, rate in enumerate((stable, candidate)):
            hits[place] += sum(chance.random() < rate for _ in range(50))
        made = rollout.step(made, told(traffic.second(0.5), *hits, of), 2.0)
    return made


def test_the_better_version_of_a_split_is_named_with_its_numbers() -> None:
    made = split(SPLIT, stable=0.77, candidate=0.9)
    assert (made.status, made.winner, made.route) == ("ended", 2, None)
    law = r"candidate is better: 0\.\d+ against 0\.7\d*, e-value \d+, [\d,]+ labels"
    assert re.fullmatch(law, made.decisions[-1].why)
    lost = split(SPLIT.model_copy(update={"more_wrong": 0.5}), stable=0.9, candidate=0.77)
    assert (lost.status, lost.winner) == ("ended", 1)
    assert lost.decisions[-1].why.startswith("champion is better: 0.")


def test_the_winner_of_a_split_takes_over_only_if_that_was_asked_for() -> None:
    plan = SPLIT.model_copy(update={"promote_winner": True})
    assert split(plan, stable=0.77, candidate=0.9).status == "promoted"
    lost = split(plan.model_copy(update={"more_wrong": 0.5}), stable=0.9, candidate=0.77)
    assert (lost.status, lost.winner) == ("ended", 1)


def test_between_equal_versions_a_winner_is_named_once_in_twenty_splits_at_most() -> None:
    ended = [split(SPLIT, stable=0.8, candidate=0.8, seed=seed) for seed in range(40)]
    assert sum(one.winner is not None for one in ended) <= 4
    last = next(one for one in ended if one.winner is None)
    assert (last.status, last.age_s) == ("ended", 200)
    assert last.decisions[-1].why.startswith("no difference: 0.")
    assert "e-value" in last.decisions[-1].why


@pytest.mark.parametrize(
    ("measure", "candidate", "winner"),
    [
        ("errors", lambda chance: None if chance.random() < 0.02 else good(chance), 1),
        ("latency", lambda chance: (good(chance)[0] / 2, good(chance)[1]), 2),
        ("outcome:yes", lambda chance: (0.002, "yes" if chance.random() < 0.4 else "no"), 2),
        ("outcome:no", lambda chance: (0.002, "yes" if chance.random() < 0.4 else "no"), 1),
    ],
)
def test_a_split_is_judged_by_the_measure_of_its_plan(
    measure: str, candidate: Behaviour, winner: int
) -> None:
    plan = Plan(mode="split", steps=(0.5,), bake_s=10, deadline_s=400, measure=measure)
    made = roll(candidate, plan=plan.model_copy(update={"more_errors": 0.5}))
    assert (made.status, made.winner) == ("ended", winner)


def test_a_candidate_that_labels_speak_against_is_stopped() -> None:
    made, traffic, labels = begun(), Traffic(good, 0), 0
    while made.open:
        labels += 40
        evidence = told(traffic.second(0.05), int(0.9 * labels), int(0.7 * labels), labels)
        made = rollout.step(made, evidence, 2.0)
    assert made.status == "stopped"
    assert made.decisions[-1].why.startswith("labels: the limits are passed")
    assert "right 70.0% (champion 90.0%)" in made.decisions[-1].why


def test_what_has_ended_does_not_change_any_more() -> None:
    ended = begun().decided("stopped", "", status="stopped")
    assert rollout.step(ended, Evidence(), 100.0) is ended


@given(st.binary(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_who_has_got_the_candidate_keeps_it_as_its_share_grows(
    value: bytes, share: float, more: float
) -> None:
    low, high = sorted((share, more))
    few, many = (
        routing.Choice.of(aliases.Route(rollout="r", candidate=2, share=one, sticky="X-User"))
        for one in (low, high)
    )
    assert few.candidate({b"x-user": value}, 0.5) <= many.candidate({b"x-user": value}, 0.5)


@pytest.mark.parametrize(("shadow", "most"), [(False, 950), (True, 1000)])
def test_some_requests_stay_with_the_champion_so_that_there_is_something_to_compare(
    *, shadow: bool, most: int
) -> None:
    route = aliases.Route(rollout="r", candidate=2, share=1.0, shadow=shadow)
    choice, chances = routing.Choice.of(route), [number / 1000 for number in range(1000)]
    assert sum(choice.candidate({}, chance) for chance in chances) == most
    assert sum(choice.control({}, chance) for chance in chances) == 1000 - most


def test_a_header_chooses_as_often_as_chance_does() -> None:
    choice = routing.Choice.of(aliases.Route(rollout="r", candidate=2, share=0.3, sticky="x-user"))
    users = [{b"x-user": b"%d" % number} for number in range(4000)]
    assert 0.27 < sum(choice.candidate(one, 0.9) for one in users) / 4000 < 0.33
    other = routing.Choice.of(aliases.Route(rollout="s", candidate=2, share=0.3, sticky="x-user"))
    both = sum(choice.candidate(one, 0.9) and other.candidate(one, 0.9) for one in users)
    assert both / 4000 < 0.12, "another rollout asks other users"
    assert not choice.candidate({}, 0.9)
    assert choice.candidate({}, 0.1)


class Version:
    """A version that notes its name when it is asked."""

    number, remote, header = 1, None, (b"x-eagleray-version", b"1")

    def __init__(self, name: str, asked: list[str], *, is_quick: bool) -> None:
        self._name, self._asked, self.is_quick = name, asked, is_quick

    async def timed(self, *_: object) -> tuple[list[dict[str, Any]], float]:
        self._asked.append(self._name)
        return [{}], 0.001

    def encode(self, *_: object) -> tuple[bytes, bytes, tuple[()]]:
        return b"", b"", ()


@pytest.mark.parametrize(("is_quick", "asked"), [(True, "stable"), (False, "control")])
def test_the_control_has_batches_of_its_own_unless_they_are_quick(
    monkeypatch: pytest.MonkeyPatch, is_quick: bool, asked: str
) -> None:
    names, capacity = list[str](), admission.Capacity()
    versions: list[Any] = [
        Version(name, names, is_quick=is_quick) for name in ("stable", "control", "candidate")
    ]
    split = routing.Split("r1", capacity, lambda _: "yes", batching.Schedule(0.001))
    split.follow(*versions, aliases.Route(rollout="r1", candidate=2, share=0.3))
    monkeypatch.setattr(random, "random", lambda: 0.5)
    exchange: Any = None
    asyncio.run(split.answer(b"", admission.Reservation(capacity), {}, exchange))
    counted = split.stable.counts()
    assert (names, counted.requests, counted.outcomes) == ([asked], 1, {"yes": 1})


class Together(Version):
    """A version whose requests run together with those of others."""

    def __init__(
        self, name: str, asked: list[str], schedule: batching.Schedule, thread: ThreadPoolExecutor
    ) -> None:
        super().__init__(name, asked, is_quick=False)
        self._batcher = batching.Batcher[int, int](list, batching.Limits(), thread, schedule)

    async def timed(self, *_: object) -> tuple[list[dict[str, Any]], float]:
        await self._batcher.submit([1])
        self.is_quick = self._batcher.is_quick
        return await super().timed()

    async def answer(self, *_: object) -> tuple[bytes, bytes, tuple[()]]:
        await self.timed()
        return self.encode()


async def turns(route: aliases.Route, *, slow: bool = False) -> tuple[list[str], routing.Split]:
    """Split 200 turns of 8 requests; which versions were asked, and the split."""
    asked, capacity, schedule = list[str](), admission.Capacity(), batching.Schedule(0.001)
    with ThreadPoolExecutor(1) as thread:
        versions: list[Any] = [
            Together(name, asked, schedule, thread) for name in ("stable", "control", "candidate")
        ]
        for one in versions:
            while not (slow or one.is_quick):
                await one.timed()
        asked.clear()
        split = routing.Split("r1", capacity, lambda _: "yes", schedule)
        split.follow(*versions, route)
        exchange: Any = None

        def answer(user: int) -> Any:
            headers = {b"x-user": b"%d" % user}
            return split.answer(b"", admission.Reservation(capacity), headers, exchange)

        for turn in range(200):
            for one in versions:
                one.is_quick = not slow
            await asyncio.gather(*(answer(8 * turn + number) for number in range(8)))
    return asked, split


def test_quick_requests_of_a_turn_make_one_batch_of_one_version() -> None:
    random.seed(0)
    route = aliases.Route(rollout="r1", candidate=2, share=0.3)
    asked, split = asyncio.run(turns(route))
    each = [{*asked[start : start + 8]} for start in range(0, 1600, 8)]
    assert all(len(versions) == 1 for versions in each)
    chosen = each.count({"candidate"})
    assert 40 <= chosen <= 80
    stable, candidate = split.stable.counts(), split.candidate.counts()
    assert (candidate.requests, sum(candidate.seconds.values())) == (8 * chosen, chosen)
    assert stable.requests == 8 * sum(stable.seconds.values())
    assert candidate.outcomes == {"yes": 8 * chosen}


@pytest.mark.parametrize(("shadow", "slow"), [(False, True), (True, False)])
def test_slow_requests_and_those_for_a_shadow_are_drawn_one_by_one(
    *, shadow: bool, slow: bool
) -> None:
    random.seed(0)
    route = aliases.Route(rollout="r1", candidate=2, share=0.5, shadow=shadow)
    _, split = asyncio.run(turns(route, slow=slow))
    counted = (split.stable if shadow else split.candidate).counts()
    assert 700 <= counted.requests <= (1600 if shadow else 900)
    assert sum(counted.seconds.values()) == counted.requests


def test_a_header_decides_within_a_turn_too_and_one_time_of_each_version_counts() -> None:
    route = aliases.Route(rollout="r1", candidate=2, share=0.5, sticky="x-user")
    asked, split = asyncio.run(turns(route))
    each = [{*asked[start : start + 8]} for start in range(0, 1600, 8)]
    assert sum(versions == {"candidate", "stable"} for versions in each) > 190
    counted = split.candidate.counts()
    assert 700 <= counted.requests <= 900
    assert 190 <= sum(counted.seconds.values()) <= 200
