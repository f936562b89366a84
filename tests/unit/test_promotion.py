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

    def win(self, score: float = 0.8, *, data: str = "d", **more: Any) -> promotion.Place:
        """Register another winner, and find its place."""
        manifest = {"metric": "roc_auc", "metrics": {"test": {"roc_auc": score}}}
        files = more.pop("files", bundles.files())
        lineage = {"lineage": {"data": data}}
        version = self.registry.register("left", files, {**manifest, **lineage, **more})
        return promotion.promote(self.store, self.experiment, version.number)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, {"rollout": CANARY, "slo": {"p95_ms": 40}})


def test_the_first_winner_is_the_champion_and_the_next_one_begins_a_rollout(house: House) -> None:
    first = house.win()
    assert (first.champion, first.why) == (
        1,
        "it is the champion, as the first version of this model",
    )
    second = house.win(0.9)
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
        ({"score": 0.7}, "its roc_auc on the test part is 0.7000, the champion's 0.8000"),
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


def test_scores_on_other_data_do_not_count(house: House) -> None:
    house.win(0.9)
    assert house.win(0.7, data="newer").rolls_out


def test_during_another_rollout_no_second_one_begins(house: House) -> None:
    for _ in range(3):
        place = house.win()
    assert (place.champion, place.rolls_out) == (1, False)
    assert "`eagleray rollout abort left` ends it" in place.why


def test_without_the_section_a_person_promotes_later_versions(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    house.win()
    assert house.win(0.9).why == "version 1 stays champion until you promote this one"
    assert house.registry.aliases("left").routes == {}


def test_a_word_stands_for_the_defaults(tmp_path: Path) -> None:
    plan = promotion.plan(House(tmp_path, {"rollout": "canary"}).experiment)
    assert (plan.mode, plan.steps, plan.p95_ms) == ("canary", (0.05, 0.25, 0.5), None)
