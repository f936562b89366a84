"""Early stopping of members: what falls behind leaves its trial, and the others go on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from eagleray import spec
from eagleray.state import searches
from ray_jobs import scheduler, search


class Actor:
    """Stands for a trial's actor: remembers which members it was told to drop."""

    def __init__(self) -> None:
        self.dropped: list[list[int]] = []
        self.drop = SimpleNamespace(remote=self.dropped.append)


def searched(tmp_path: Path, scheduler: str = "asha") -> search.Search:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ndata: {source: 'dataset:wine', target: target}\n"
        "train: {epochs: 9, lr: {uniform: [0.1, 0.2]}}\n"
        f"tune: {{metric: accuracy, scheduler: {scheduler}}}\n"
    )
    return search.Search(spec.load(file))


def trial(*numbers: int) -> Any:
    members = [{"number": number, "values": {}} for number in numbers]
    state = SimpleNamespace(ray_actor=Actor())
    return SimpleNamespace(
        trial_id=str(numbers), config={"members": members}, temporary_state=state
    )


def result(epoch: int, **scores: float) -> dict[str, Any]:
    return {
        "members": [
            {
                "number": int(name[1:]),
                "values": {},
                "epoch": epoch,
                "score": score,
                "history": [{"accuracy": score}],
                "state": None,
                "done": epoch == 9,
            }
            for name, score in scores.items()
        ]
    }


def test_members_that_fall_behind_leave_their_trial_and_are_marked(tmp_path: Path) -> None:
    members = scheduler.build(searched(tmp_path), [])
    pack = trial(1, 2, 3)
    members.on_trial_add(None, pack)
    reports = result(1, m1=0.9, m2=0.1, m3=0.2)
    assert members.on_trial_result(None, pack, reports) == TrialScheduler.CONTINUE
    assert pack.temporary_state.ray_actor.dropped == [[2, 3]]
    assert [one.get("stopped", False) for one in reports["members"]] == [False, True, True]
    assert members.on_trial_result(None, pack, result(9, m1=0.9)) == TrialScheduler.STOP


def test_a_trial_whose_last_member_is_stopped_ends(tmp_path: Path) -> None:
    members = scheduler.build(searched(tmp_path), [])
    good, bad = trial(1), trial(2)
    for one in (good, bad):
        members.on_trial_add(None, one)
    assert members.on_trial_result(None, good, result(1, m1=0.9)) == TrialScheduler.CONTINUE
    assert members.on_trial_result(None, bad, result(1, m2=0.1)) == TrialScheduler.STOP


def test_rungs_hold_what_earlier_runs_of_the_search_have_shown(tmp_path: Path) -> None:
    history = [{"accuracy": 0.9}]
    known = [searches.Record(number=1, values={}, status="stopped", epoch=1, history=history)]
    pack = trial(2)
    for earlier, expected in ((known, TrialScheduler.STOP), ([], TrialScheduler.CONTINUE)):
        members = scheduler.build(searched(tmp_path), earlier)
        members.on_trial_add(None, pack)
        assert members.on_trial_result(None, pack, result(1, m2=0.1)) == expected


@pytest.mark.parametrize("kind", ["asha", "none"])
def test_failures_and_members_at_their_end_need_no_decision(tmp_path: Path, kind: str) -> None:
    members = scheduler.build(searched(tmp_path, kind), [])
    pack = trial(1, 2)
    members.on_trial_add(None, pack)
    failed = {"number": 1, "epoch": 0, "done": True, "failure": "it broke", "status": "failed"}
    assert members.on_trial_result(None, pack, {"members": [failed]}) == TrialScheduler.CONTINUE
    assert members.on_trial_result(None, pack, result(9, m2=0.5)) == TrialScheduler.STOP
    assert pack.temporary_state.ray_actor.dropped == []


def by_folds(tmp_path: Path, count: int, kind: str = "asha") -> search.Search:
    one = searched(tmp_path, kind)
    return search.Search(spec.load(one.experiment.path, {"tune.folds": str(count)}))


@pytest.mark.parametrize(
    ("count", "kind", "rungs"),
    [(2, "asha", [1]), (3, "asha", [1, 3]), (5, "hyperband", [1, 3]), (4, "median", [1, 2, 3, 4]),
     (5, "none", [])],
)  # fmt: skip
def test_a_fold_is_a_rung(tmp_path: Path, count: int, kind: str, rungs: list[int]) -> None:
    made = by_folds(tmp_path, count, kind)
    assert scheduler.rungs(made.experiment) == rungs
    scheduler.build(made, [])


@pytest.mark.parametrize("count", [2, 3])
def test_a_poor_trial_stops_after_one_fold(tmp_path: Path, count: int) -> None:
    members = scheduler.build(by_folds(tmp_path, count), [])
    pack = trial(1, 2, 3)
    members.on_trial_add(None, pack)
    reports = result(1, m1=0.9, m2=0.1, m3=0.2)
    assert members.on_trial_result(None, pack, reports) == TrialScheduler.CONTINUE
    assert pack.temporary_state.ray_actor.dropped == [[2, 3]]


def test_trials_of_earlier_runs_are_compared_by_their_mean(tmp_path: Path) -> None:
    """By the mean over three folds 0.6 is worse than 0.7; by the best fold it would be better."""
    folds = [{"accuracy": one} for one in (0.9, 0.5, 0.4)]
    record = searches.Record(number=1, values={}, folds=4, epoch=3, history=folds)
    newcomer = trial(2)
    for score, expected in ((0.7, TrialScheduler.CONTINUE), (0.5, TrialScheduler.STOP)):
        members = scheduler.build(by_folds(tmp_path, 4), [record])
        members.on_trial_add(None, newcomer)
        for epoch, mean in ((1, 0.95), (3, score)):
            said = members.on_trial_result(None, newcomer, result(epoch, m2=mean))
        assert said == expected
