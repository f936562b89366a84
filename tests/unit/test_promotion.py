"""What becomes of the winner of a run: champion, candidate of a rollout, or left to a person."""

from pathlib import Path
from typing import Any

import pytest

from eagleray import spec, storage
from eagleray.learn import schema
from eagleray.state.models import Registry
from eagleray.state.rollouts import Rollouts
from ray_jobs import promotion
from tests import bundles

CANARY = {"steps": [10, 40], "bake_s": 5, "least": 7, "deadline_s": 90, "sticky": "x-user"}


GAPS = {
    "better": (0.1, 0.05, 0.15),
    "worse": (-0.1, -0.15, -0.05),
    "no difference": (0.01, -0.01, 0.03),
}
"""The difference to the champion, with its interval, of each verdict."""


class House:
    """A storage, and the experiment whose winners come to it."""

    def __init__(self, folder: Path, serve: dict[str, Any]) -> None:
        (folder / "rows.csv").write_text("a,left\n")
        file = folder / "left.yaml"
        data = "data: {source: rows.csv, target: left}\n"
        file.write_text(f"name: left\n{data}storage: {folder.as_uri()}\nserve: {serve!r}\n")
        self.experiment = spec.load(file)
        self.store = storage.open(folder.as_uri())
        self.registry, self.rollouts = Registry(self.store), Rollouts(self.store)

    def win(self, outcome: str | None = "better", **more: Any) -> promotion.Place:
        """Register another winner, compared with the champion, and find its place."""
        manifest = {"metric": "roc_auc", "compared": self._compared(outcome)}
        files = more.pop("files", bundles.files())
        version = self.registry.register("left", files, {**manifest, **more})
        return promotion.promote(self.store, self.experiment, version.number)

    def _compared(self, outcome: str | None) -> dict[str, Any] | None:
        champion = self.registry.aliases("left").values.get("champion")
        if champion is None or outcome is None:
            return None
        if outcome not in GAPS:
            return {"version": champion, "why": outcome}
        gap = dict(zip(("value", "low", "high"), GAPS[outcome], strict=True))
        verdict = {"outcome": outcome, "metric": "roc_auc", "difference": gap}
        return {"version": champion, "verdict": verdict}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, {"rollout": CANARY, "slo": {"p95_ms": 40}})


def test_the_first_winner_is_the_champion_and_the_next_one_begins_a_rollout(house: House) -> None:
    first = house.win()
    assert (first.champion, first.why) == (
        1,
        "it is the champion, as the first version of this model",
    )
    second = house.win()
    assert (second.champion, second.rolls_out) == (1, True)
    assert second.why.startswith("it gets 10% of the requests of version 1")
    begun = house.rollouts.current("left")
    assert (begun.candidate, begun.by, begun.plan.steps) == (2, "eagleray run", (0.1, 0.4))
    assert (begun.plan.bake_s, begun.plan.least, begun.plan.p95_ms) == (5, 7, 40)
    assert house.registry.events("left")[-1].why == "rollout at 10%: it passed the gate"


def test_a_run_that_is_repeated_begins_no_second_rollout(house: House) -> None:
    house.win()
    house.win()
    again = promotion.promote(house.store, house.experiment, 2)
    assert (again.rolls_out, "the rollout of this one is at 10%" in again.why) == (True, True)
    house.rollouts.abort(house.rollouts.current("left"), why="no")
    after = promotion.promote(house.store, house.experiment, 2)
    assert (after.rolls_out, "is stopped: no" in after.why) == (False, True)
    assert house.registry.aliases("left").routes == {}


def test_a_rollout_that_died_before_its_route_begins_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.win()
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "route", lambda *_, **__: None)
        house.win()
    assert house.registry.aliases("left").routes == {}
    assert promotion.promote(house.store, house.experiment, 2).rolls_out
    assert house.registry.aliases("left").routes["champion"].candidate == 2


OTHER = schema.Target(name="left", task="binary", classes=("maybe", "never"))


@pytest.mark.parametrize(
    ("winner", "law"),
    [
        ({"warnings": ["never predicts 'yes'"]}, "it has a warning: it never predicts 'yes'"),
        ({"outcome": "worse"}, "on the same rows it is worse than version 1: its roc_auc differs"),
        (
            {"outcome": "no difference"},
            "it is no better, beyond noise, than version 1: its roc_auc differs by +0.0100,"
            " 95 % interval -0.0100 to 0.0300",
        ),
        ({"outcome": "it needs age"}, "it cannot be compared with version 1: it needs age"),
        ({"outcome": None}, "it was not compared with version 1 on the same rows"),
        ({"files": bundles.files(target=OTHER)}, "must answer clients of version 1"),
    ],
)
def test_a_winner_that_fails_the_gate_is_left_to_a_person(
    house: House, winner: dict[str, Any], law: str
) -> None:
    house.win()
    place = house.win(**winner)
    assert (place.champion, place.rolls_out) == (1, False)
    assert place.why.startswith("version 1 stays champion, and no rollout begins: ")
    assert law in place.why
    assert house.registry.aliases("left").routes == {}


def test_a_comparison_with_another_champion_does_not_count(house: House) -> None:
    house.win()
    beside = {"version": 1, "verdict": None, "why": "it was so"}
    house.registry.register("left", bundles.files(seed=1), {})
    house.registry.promote("left", 2)
    assert "was not compared with version 2" in house.win(compared=beside).why


def test_during_another_rollout_no_second_one_begins(house: House) -> None:
    for _ in range(3):
        place = house.win()
    assert (place.champion, place.rolls_out) == (1, False)
    assert "`eagleray rollout abort left` ends it" in place.why


def test_without_the_section_a_person_promotes_later_versions(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    house.win()
    assert house.win().why == (
        "version 1 stays champion until you promote this one; this one is better"
        " (roc_auc +0.1, 95 % interval 0.05 to 0.15)"
    )
    assert house.win(None).why == "version 1 stays champion until you promote this one"
    assert house.registry.aliases("left").routes == {}


def test_a_word_stands_for_the_defaults(tmp_path: Path) -> None:
    plan = promotion.plan(House(tmp_path, {"rollout": "canary"}).experiment)
    assert (plan.mode, plan.steps, plan.p95_ms) == ("canary", (0.05, 0.25, 0.5), None)
