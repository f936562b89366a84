"""Trials with several workers, on real Ray; each has a half of the cluster's CPU."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eagleray import spec
from ray_jobs import search, training
from tests.integration.searches import test_search_goes_on as searches

WORKERS = 2
TRAINS = """
    import torch.distributed
    with open({log!r}, 'a') as file:
        group = torch.distributed
        rank = group.get_rank() if group.is_initialized() else -1
        file.write(f'{{os.getpid()}} {{rank}}\\n')
    time.sleep(0.1)
"""
"""Each pass forward leaves the process and the rank; it takes long enough for states and kills."""


class Killer(threading.Thread):
    """Sends a signal to the second worker of a group, once, when it has done so many passes."""

    def __init__(self, log: Path, passes: int, number: int = signal.SIGKILL) -> None:
        super().__init__(daemon=True)
        self._log, self._passes, self._number, self.killed = log, passes, number, 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.killed and not self.ended.wait(0.05):
            done = Counter(pid for pid, rank in passes(self._log) if rank == 1)
            for pid, count in done.items():
                if count >= self._passes:
                    self.killed = pid
                    os.kill(pid, self._number)


def passes(log: Path) -> list[tuple[int, int]]:
    """Process and rank of each pass of a worker."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), int(rank)) for pid, rank in map(str.split, lines) if rank != "-1"]


def grouped(folder: Path, in_training: str, **overrides: Any) -> spec.Experiment:
    options = {"compute.workers": WORKERS, "compute.cpus": 1 / WORKERS}
    return searches.own_model(folder, in_training, **{**options, **overrides})


def curve(chosen: spec.Experiment, values: dict[str, Any], epochs: int) -> list[float]:
    """The losses of one worker."""
    searched = search.Search(chosen)
    configuration = chosen.configuration(values)
    data = searched.dataset.encode(searched.transforms(configuration))
    one = training.Trainer(configuration, data, metric="log_loss", custom=searched.custom)
    return [one.epoch()["train_loss"] for _ in range(epochs)]


@pytest.mark.slow
def test_a_lost_worker_costs_one_restart_from_the_last_state_and_asha_stops_what_falls_behind(
    ray_cluster: None, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    options = {"train.epochs": 27, "train.batch_size": 32, "tune.trials": 3}
    asha = {"tune.scheduler": "asha", "tune.seed": 1}
    chosen = grouped(tmp_path, TRAINS.format(log=str(log)), **options, **asha)
    killer = Killer(log, passes=40)
    killer.start()
    ended, _ = searches.run(chosen)
    killer.ended.set()
    states = Counter(one.status for one in ended.trials)
    assert states["finished"] >= 1
    assert states["stopped"] >= 1
    assert states.total() == 3
    leaders = list(dict.fromkeys(pid for pid, rank in passes(log) if rank == 0))
    assert killer.killed
    assert len(leaders) == 2  # groups: one for all trials, and one more after the loss
    passed = sum(rank == 0 for _, rank in passes(log))
    for record in ended.trials:
        losses = [epoch["train_loss"] for epoch in record.history]
        assert losses == pytest.approx(curve(chosen, record.values, record.epoch), rel=1e-5)
    needed = sum(record.epoch for record in ended.trials) * 4
    assert needed < passed < needed + 40  # what it had done since its last state, once more


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_lets_its_group_save_and_no_batch_is_trained_twice(
    ray_cluster: None, tmp_path: Path
) -> None:
    log, epochs = tmp_path / "log", 27
    options = {"train.epochs": epochs, "train.batch_size": 32, "tune.trials": 1}
    chosen = grouped(tmp_path, TRAINS.format(log=str(log)), **options)
    killer = Killer(log, passes=40, number=signal.SIGTERM)
    killer.start()
    ended, _ = searches.run(chosen)
    killer.ended.set()
    for rank in range(WORKERS):
        lives = Counter(pid for pid, one in passes(log) if one == rank)
        assert len(lives) == 2
        assert sum(lives.values()) == epochs * 4
    (record,) = ended.trials
    losses = [epoch["train_loss"] for epoch in record.history]
    assert losses == pytest.approx(curve(chosen, record.values, epochs), rel=1e-5)


@pytest.mark.slow
def test_a_group_starts_with_the_workers_that_fit_and_names_the_one_that_fails(
    ray_cluster: None, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    wrong = TRAINS.format(log=str(log)) + (
        "    if rank == 1 and batches > 2:\n        raise TypeError('wrong')\n"
    )
    elastic = {"compute.workers": "{min: 1, max: 3}", "compute.strategy": "fsdp"}
    failing = grouped(tmp_path, wrong, **{"tune.trials": 1, **elastic})
    with pytest.raises(searches.errors.SearchError, match=r"worker 1 on [\d.]+: .*wrong"):
        searches.run(failing)
    assert {rank for _, rank in passes(log)} == {0, 1}
    assert [one.status for one in searches.on_record(failing).trials()] == ["failed"]


@pytest.mark.slow
def test_a_module_that_is_missing_on_a_worker_is_named_with_the_worker(
    ray_cluster: None, tmp_path: Path
) -> None:
    """Ray Train sets the variable in its workers, so the driver does not miss the module."""
    missing = "    pass\nif 'WORLD_SIZE' in os.environ:\n    import absent\n"
    found = r"worker \d on [\d.]+: own.py:\d+: own:Net: the module must import, .*'absent'"
    with pytest.raises(searches.errors.SearchError, match=found):
        searches.run(grouped(tmp_path, missing, **{"tune.trials": 1}))


def test_more_workers_than_the_machine_has_are_refused_before_any_trial(
    ray_cluster: None, tmp_path: Path
) -> None:
    too_many = searches.experiment(tmp_path, **{"compute.workers": 3})
    with pytest.raises(searches.errors.UserError, match="at most 1 with 1 CPU each, but got 3"):
        searches.run(too_many)
    assert searches.on_record(too_many).trials() == []
