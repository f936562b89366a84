"""Which trials are stopped, and which go on from another, by Ray Tune's decisions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from eagleray import spec
from eagleray.spec.tune import Tune
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import scheduler

EPOCHS = 18
STOPPING = ("asha", "hyperband", "median")


class Actor:
    """A worker that notes what it is told."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.cloned: list[tuple[int, dict[str, Any], searches.State]] = []
        self.drop = SimpleNamespace(remote=self.dropped.extend)
        self.clone = SimpleNamespace(remote=lambda *told: self.cloned.append(told))


class Driver:
    """A search whose trials are members of one pack; `rates` are their learning rates."""

    def __init__(self, folder: Path, kind: str, rates: list[float], **tune: object) -> None:
        (folder / "x.yaml").write_text(
            "name: x\ndata: {source: 'dataset:wine', target: target}\n"
            f"train: {{epochs: {EPOCHS}, lr: {{loguniform: [1.0e-3, 1.0]}}}}\n"
            f"tune: {json.dumps({'scheduler': kind, 'search': 'random', **tune})}\n"
        )
        self.experiment = spec.load(folder / "x.yaml")
        self.searched: Any = SimpleNamespace(
            experiment=self.experiment, mode="max", metric="accuracy"
        )
        self.records = {
            number: searches.Record(number=number, values={"train.lr": rate})
            for number, rate in enumerate(rates, 1)
        }
        self.start()

    def start(self) -> None:
        known = [one for one in self.records.values() if one.history]
        self.members = scheduler.build(self.searched, known)
        self.actor = Actor()
        started = [one for one in self.records.values() if one.status == "running"]
        members = [{"number": one.number, "values": one.values} for one in started]
        self.trial: Any = SimpleNamespace(
            trial_id="t",
            config={"members": members},
            temporary_state=SimpleNamespace(ray_actor=self.actor),
        )
        self.members.on_trial_add(None, self.trial)

    def epoch(self) -> str:
        """Train all members for an epoch: the higher its rate, the better a member is."""
        reports = []
        for one in self.records.values():
            if one.status == "running":
                one.epoch += 1
                value = one.values["train.lr"] * (1 - 0.5**one.epoch)
                one.history.append({"accuracy": value, "seconds": 1.0})
                one.score, one.status = value, "finished" if one.epoch == EPOCHS else "running"
                reports.append(self.report(one))
        told = self.members.on_trial_result(None, self.trial, {"members": reports})
        for report in reports:
            if report["done"]:
                self.records[report["number"]].status = (
                    "stopped" if "stopped" in report else "finished"
                )
        return told

    def report(self, one: searches.Record) -> dict[str, Any]:
        blob = blobs.Blob(sha256=f"{one.number:064}", size=1)
        return {
            "number": one.number,
            "values": one.values,
            "epoch": one.epoch,
            "score": one.score,
            "history": one.history[-1:],
            "state": searches.State(values=one.values, epoch=one.epoch, blob=blob),
            "done": one.status != "running",
        }

    def run(self, *, interrupted: bool = False) -> dict[int, int]:
        """Epochs of each trial in the end."""
        while any(one.status == "running" for one in self.records.values()):
            if interrupted:
                self.start()
            self.epoch()
        return {number: one.epoch for number, one in self.records.items()}


RATES = [0.9, 0.8, 0.7, 0.02, 0.5, 0.03, 0.95, 0.04, 0.05, 0.85, 0.06, 0.07]


def test_every_scheduler_of_the_file_is_registered() -> None:
    named = get_args(Tune.model_fields["scheduler"].annotation)
    assert set(named) == set(scheduler.REGISTRY)


@pytest.mark.parametrize("kind", STOPPING)
def test_trials_that_fall_behind_are_stopped_and_the_best_is_not(tmp_path: Path, kind: str) -> None:
    driver = Driver(tmp_path, kind, RATES)
    ended = driver.run()
    assert ended[7] == EPOCHS
    assert driver.records[12].status == "stopped"
    assert sum(ended.values()) < 0.8 * EPOCHS * len(RATES)
    assert set(driver.actor.dropped) <= {n for n, one in driver.records.items() if one.epoch < 18}


@pytest.mark.parametrize("kind", STOPPING)
def test_interrupted_at_every_epoch_a_search_stops_what_an_uninterrupted_one_stops(
    tmp_path: Path, kind: str
) -> None:
    whole = Driver(tmp_path, kind, RATES).run()
    assert Driver(tmp_path, kind, RATES).run(interrupted=True) == whole


def test_hyperband_spares_some_trials_the_first_rungs(tmp_path: Path) -> None:
    """Its brackets have fewer rungs than asha's one; the seed and the number choose a bracket."""
    worse = [0.5 - number / 100 for number in range(40)]
    asha = Driver(tmp_path, "asha", worse).run()
    hyperband = Driver(tmp_path, "hyperband", worse).run()
    other = Driver(tmp_path, "hyperband", worse, seed=1).run()
    assert sum(hyperband.values()) > sum(asha.values())
    assert hyperband != other


def test_without_a_scheduler_all_trials_finish(tmp_path: Path) -> None:
    assert set(Driver(tmp_path, "none", RATES).run().values()) == {EPOCHS}


def test_in_a_population_the_worst_go_on_from_the_best_under_changed_values(
    tmp_path: Path,
) -> None:
    driver = Driver(tmp_path, "pbt", [0.9, 0.5, 0.4, 0.01])
    for _ in range(4):
        driver.epoch()
    ((number, values, state),) = driver.actor.cloned
    assert number == 4
    assert (state.values, state.epoch) == ({"train.lr": 0.9}, 4)
    assert state.blob.sha256 == f"{1:064}"
    assert values != state.values
    assert 1e-3 <= values["train.lr"] <= 1.0
    assert not driver.actor.dropped


def test_a_population_changes_alike_whenever_it_is_asked(tmp_path: Path) -> None:
    told = []
    for seed in (0, 0, 1):
        driver = Driver(tmp_path, "pbt", [0.9, 0.8, 0.02, 0.01], seed=seed)
        for _ in range(4):
            driver.epoch()
        told.append([values for _, values, _ in driver.actor.cloned])
    assert told[0] == told[1] != told[2]
    assert told[0]


def test_a_trial_that_has_ended_is_no_part_of_a_population(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "pbt", [0.9, 0.5, 0.4, 0.01])
    driver.records[1].epoch = EPOCHS - 1
    for _ in range(6):
        driver.epoch()
    assert driver.actor.cloned
    assert {"train.lr": 0.9} not in [state.values for *_, state in driver.actor.cloned]


def test_rungs_are_epochs_at_which_trials_are_compared(tmp_path: Path) -> None:
    found = {
        kind: scheduler.rungs(Driver(tmp_path, kind, []).experiment) for kind in ("asha", "pbt")
    }
    assert found == {"asha": [2, 6, 18], "pbt": [2, 4, 6, 8, 10, 12, 14, 16, 18]}
