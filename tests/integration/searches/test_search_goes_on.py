"""Searches that lose their workers, are given more trials, or fail for one reason, on real Ray."""

import io
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from rich import console

from eagleray import errors, spec, storage
from eagleray.state import searches
from ray_jobs import pipeline, tuning
from ray_jobs.report.outcome import Outcome
from tests import records

FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: [16]}
train: {lr: {loguniform: [1.0e-6, 1.0e-2]}, epochs: 5, batch_size: 32}
tune: {trials: 2, metric: log_loss, search: random, scheduler: none}
"""
OWN = """
import os, time, torch
class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(shape.numeric, outputs)
        self.batches = 0
    def forward(self, inputs):
        if self.training and os.getpid() != DRIVER:
            self.batches += 1
            in_training(self.batches)
        return self.layer(inputs['numeric'])
"""
"""A model that tells `in_training`, which is the test's, of each batch: an epoch is one.

The driver, which trains it for the learning curve when the search has ended, tells of none.
"""


@pytest.fixture
def one_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost worker is replaced once, if it saved no newer state: fewer workers start."""
    monkeypatch.setattr(tuning, "RETRIES", 1)


def experiment(folder: Path, text: str = FILE, **overrides: object) -> spec.Experiment:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "wine.yaml"
    file.write_text(text + f"storage: file://{folder}/storage\n")
    return spec.load(file, {name: str(value) for name, value in overrides.items()})


def own_model(folder: Path, in_training: str, **overrides: object) -> spec.Experiment:
    """Trials of a model that does `in_training` once an epoch."""
    code = f"{OWN}DRIVER = {os.getpid()}\ndef in_training(batches):\n{in_training}"
    (folder / "own.py").write_text(code)
    text = FILE.replace("{hidden: [16]}", "{type: 'own:Net'}")
    return experiment(folder, text, **{"train.batch_size": 1000, **overrides})


def run(chosen: spec.Experiment) -> tuple[Outcome, str]:
    out = io.StringIO()
    ended = pipeline.run(chosen, console.Console(file=out, width=200))
    return ended, out.getvalue()


def on_record(chosen: spec.Experiment) -> searches.Records:
    """The records of the one search in storage."""
    store = storage.open(chosen.storage)
    (search_id,) = {entry.key.split("/")[2] for entry in store.list("searches/wine/")}
    return searches.Records(store, "wine", search_id)


@pytest.mark.slow
def test_with_more_trials_a_search_goes_on_and_with_fewer_its_result_stands(
    ray_cluster: None, tmp_path: Path
) -> None:
    """With this seed the third trial's learning rate is the worst, and the fourth's the best.

    The same winner keeps its version; a better one is another version, that waits for a person.
    """
    first, _ = run(experiment(tmp_path, **{"tune.seed": 4}))
    same, said = run(experiment(tmp_path, **{"tune.seed": 4, "tune.trials": 3}))
    assert "resuming: 2 of 3 trials done, best " in said
    assert same.search.id == first.search.id
    before = {one.number: one for one in first.trials}
    after = {one.number: one for one in same.trials}
    assert sorted(after) == [1, 2, 3]
    assert records.unchanged(before, after)
    assert same.result.version == first.result.version == 1
    better, _ = run(experiment(tmp_path, **{"tune.seed": 4, "tune.trials": 4}))
    assert better.winner.number == 4
    assert (better.result.version, better.place.champion) == (2, 1)
    few, said = run(experiment(tmp_path, **{"tune.seed": 4, "tune.trials": 1}))
    assert "has already ended; returning its result" in said
    assert few.summary() == better.summary()


def test_a_search_whose_trials_all_fail_alike_ends_after_three_and_says_so_again(
    ray_cluster: None, tmp_path: Path
) -> None:
    wrong = "    if batches > 2:\n        raise TypeError(f'wrong after {time.time()}')\n"
    chosen = own_model(tmp_path, wrong, **{"tune.trials": 20})
    with pytest.raises(
        errors.SearchError, match=r"all [34] trials that ran failed with the same cause"
    ):
        run(chosen)
    kept = on_record(chosen).trials()
    assert {one.status for one in kept} == {"failed"}
    assert len(kept) in (3, 4)  # the fourth is planned early where the third has had a score
    before = "has already ended: no trial gave a model: .*wrong after.*--set tune.seed=1"
    with pytest.raises(errors.SearchError, match=before):
        run(chosen)
    assert on_record(chosen).trials() == kept
    _, said = run(own_model(tmp_path, "    pass\n", **{"tune.trials": 1, "train.epochs": 3}))
    new = r"note: search \w+ is a new one; \w+ is unfinished, and differs in "
    assert re.search(new + "train.epochs: 3 now, 5 then; own:Net: the code has changed", said)


def test_a_module_that_workers_lack_ends_a_search_at_once_which_goes_on_when_it_is_there(
    ray_cluster: None, tmp_path: Path
) -> None:
    lacks = f"    sys.path.insert(0, {str(tmp_path)!r})\n    import absent\n"
    lacks = f"    pass\nimport sys\nif os.getpid() != {os.getpid()}:\n{lacks}"
    chosen = own_model(tmp_path, lacks, **{"tune.trials": 6})
    named = r"own.py:\d+: own:Net: the module must import, .*'absent'; install its package on \S+,"
    with pytest.raises(errors.SearchError, match=named):
        run(chosen)
    assert len(on_record(chosen).trials()) in (1, 2)  # the second is planned beside the first
    (tmp_path / "absent.py").touch()
    ended, _ = run(chosen)
    assert [one.status for one in ended.trials] == ["finished"] * 6


@pytest.mark.slow
def test_a_trial_whose_worker_dies_again_and_again_without_progress_is_given_up(
    ray_cluster: None, one_retry: None, tmp_path: Path
) -> None:
    dies = "    if batches > 2:\n        os.kill(os.getpid(), 9)\n"
    chosen = own_model(tmp_path, dies, **{"train.lr": 0.01})
    with pytest.raises(errors.SearchError, match="worker lost 2 times without progress"):
        run(chosen)
    assert [one.status for one in on_record(chosen).trials()] == ["lost"]


class Killer(threading.Thread):
    """Kills the worker that trains, this long after it began, each time.

    `killed` has the epoch of the state that each killed worker had saved.
    """

    def __init__(self, chosen: spec.Experiment, log: Path, every_s: float) -> None:
        super().__init__(daemon=True)
        self.chosen, self.log, self.every_s = chosen, log, every_s
        self.ended = threading.Event()
        self.killed: dict[int, int] = {}

    def run(self) -> None:
        began: dict[int, float] = {}
        while not self.ended.wait(0.05):
            if not self.epochs():
                continue
            pid = self.epochs()[-1]
            if time.monotonic() - began.setdefault(pid, time.monotonic()) > self.every_s:
                self.kill(pid)
                began[pid] = float("inf")

    def kill(self, pid: int) -> None:
        (record,) = on_record(self.chosen).trials()
        state = on_record(self.chosen).state(record.number, record.values)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended by itself
            return
        self.killed[pid] = state.checkpoints[0].epoch if state.checkpoints else 0

    def epochs(self) -> list[int]:
        """The worker of each epoch that was begun."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trial_whose_worker_is_killed_every_few_seconds_ends(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often than any number of retries, and it trains on from its last state each time."""
    monkeypatch.setattr(tuning, "RETRIES", 1)
    log, epochs = tmp_path / "epochs", 240  # of a quarter of a second
    slow = f"    with open({str(log)!r}, 'a') as log:\n        print(os.getpid(), file=log)\n"
    slow += "    time.sleep(0.25)\n"
    chosen = own_model(tmp_path, slow, **{"train.lr": 0.01, "train.epochs": epochs})
    killer = Killer(chosen, log, 5)
    killer.start()
    ended, _ = run(chosen)
    killer.ended.set()
    killer.join()
    winner, lives = ended.winner, Counter(killer.epochs())
    assert (winner.status, winner.epoch, len(winner.history)) == ("finished", epochs, epochs)
    last = killer.epochs()[-1]  # it may be killed as well, once the trial has ended
    saved = [epoch for worker, epoch in killer.killed.items() if worker != last]
    assert len(saved) > tuning.RETRIES
    assert saved == sorted(saved)
    assert epochs - lives[last] >= saved[-1] > 0


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_saves_in_mid_epoch_and_no_batch_is_repeated(
    ray_cluster: None, tmp_path: Path
) -> None:
    """SIGTERM, as from a machine that goes down; an epoch is eleven batches."""
    log, told = tmp_path / "batches", threading.Event()
    slow = f"    with open({str(log)!r}, 'a') as log:\n        print(os.getpid(), file=log)\n"
    slow += "    time.sleep(0.1)\n"
    settings = {"train.lr": 0.01, "train.epochs": 4, "train.batch_size": 10, "tune.trials": 1}
    chosen = own_model(tmp_path, slow, **settings)

    def tell() -> None:
        while not told.wait(0.02):
            pids = log.read_text().split() if log.exists() else []
            if len(pids) % 11 == 6 and len(pids) > 11:
                os.kill(int(pids[-1]), signal.SIGTERM)
                told.set()

    telling = threading.Thread(target=tell)
    telling.start()
    ended, _ = run(chosen)
    told.set()
    telling.join()
    lives = Counter(log.read_text().split())
    assert len(lives) == 2
    assert sum(lives.values()) == 4 * 11
    assert (ended.winner.epoch, len(ended.winner.history)) == (4, 4)
